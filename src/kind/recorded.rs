//! Walks all recorded replies: exactly the right kind claims each server, and
//! each refusal means what it should.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use super::*;

/// One request and what came back.
struct Case {
    name: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    sent: Vec<u8>,
    answer: Answer,
}

/// One directory, as an endpoint that answers as it was recorded.
struct Recording {
    name: String,
    cases: Vec<Case>,
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

/// All of them, by their names.
pub(super) struct Recordings(BTreeMap<String, Recording>);

impl Recordings {
    pub(super) fn read() -> Self {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(root()).unwrap() {
            let directory = entry.unwrap().path();
            if directory.is_dir() {
                let recording = Recording::read(&directory);
                all.insert(recording.name.clone(), recording);
            }
        }
        assert!(all.len() > 50, "the recordings are not all there");
        Self(all)
    }

    /// The names of those that answered questions. The others were killed by then.
    pub(super) fn answering(&self) -> impl Iterator<Item = &str> {
        let answers = |it: &&Recording| it.cases.iter().any(|it| it.method == "GET");
        self.0.values().filter(answers).map(|it| it.name.as_str())
    }

    /// What the server of this name says. A recording of a special state has only the cases that
    /// differ; the rest, and the way of saying "no such path", are those of the ordinary state.
    pub(super) fn reply(&self, name: &str, question: &Question, key: bool) -> Answer {
        let ordinary = self
            .0
            .values()
            .filter(|it| name == it.name || (name.starts_with(&it.name) && !it.name.ends_with("-runner")))
            .filter(|it| it.cases.iter().any(|it| it.path == "/no/such/path"))
            .max_by_key(|it| it.name.len())
            .unwrap_or_else(|| panic!("{name}: no ordinary state"));
        let nothing = Question::get("/no/such/path");
        self.0[name]
            .reply(question, key)
            .or_else(|| ordinary.reply(question, key))
            .or_else(|| ordinary.reply(&nothing, key))
            .unwrap()
    }

    /// Talks to a recorded server until it is decided what that is.
    pub(super) fn talk(&self, name: &str, key: bool) -> (Verdict, Answers) {
        let mut answers = Answers::default();
        loop {
            match recognise(&answers) {
                Verdict::Ask(question) => {
                    assert!(answers.to(&question).is_none(), "{name}: {question:?} was asked before");
                    let answer = self.reply(name, &question, key);
                    answers.push(question, answer);
                }
                verdict => return (verdict, answers),
            }
        }
    }
}

impl Recording {
    fn read(directory: &Path) -> Self {
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|it| it.unwrap().path()).collect();
        files.retain(|it| it.extension().is_some_and(|it| it == "request"));
        files.sort();
        let cases = files.iter().filter_map(|file| {
            let Message { start, headers, body: sent } = split(&fs::read(file).unwrap())?;
            let mut words = start.split(' ').map(str::to_owned);
            Some(Case {
                name: file.file_stem()?.to_str()?.to_owned(),
                method: words.next()?,
                path: words.next()?,
                headers,
                sent,
                answer: answer(&fs::read(file.with_extension("http")).unwrap())?,
            })
        });
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        Self { name, cases: cases.collect() }
    }

    fn reply(&self, question: &Question, key: bool) -> Option<Answer> {
        let fits = |case: &&Case| {
            let host = case.header("host").unwrap_or("127.0.0.1");
            let ordinary = (host.is_empty() || host.starts_with("127.")) && case.header("origin").is_none();
            let same = match &question.post {
                None => case.method == "GET",
                Some(body) => case.method == "POST" && asked_model(&case.sent) == asked_model(body),
            };
            same && ordinary && case.path == question.path
        };
        let mut found: Vec<&Case> = self.cases.iter().filter(fits).collect();
        found.sort_by_key(|case| case.header("authorization").is_some() != key);
        found.first().map(|case| case.answer.clone())
    }
}

impl Case {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

fn asked_model(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    Some(value["model"].as_str()?.trim_end_matches(":latest").to_owned())
}

/// What both directions have.
struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn split(bytes: &[u8]) -> Option<Message> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let start = lines.next()?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Some(Message { start, headers: headers.collect(), body: bytes[end + 4..].to_vec() })
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let Message { start, headers, body } = split(bytes)?;
    let status = start.split(' ').nth(1)?.parse().ok()?;
    if status == 100 {
        return answer(&body);
    }
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { unchunked(&body) } else { body };
    Some(Answer { status, headers, body: body.into(), at: None })
}

/// The data of a chunked body, as far as it came.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = bytes.windows(2).position(|it| it == b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        bytes = &bytes[end + 2..];
        data.extend_from_slice(&bytes[..size.min(bytes.len())]);
        bytes = bytes.get(size + 2..).unwrap_or_default();
    }
    data
}

/// The beginnings of the directories' names, and what the servers there are. Of two that fit, the
/// longer.
const KINDS_OF: [(&str, Option<&str>); 40] = [
    ("airplay-receiver", None),
    ("broken-gateway", None),
    ("couchdb", None),
    ("docker-model-runner", Some("dockermodelrunner")),
    ("exo", Some("exo")),
    ("gpt4all", Some("gpt4all")),
    ("grafana", None),
    ("jan", Some("jan")),
    ("koboldcpp", Some("koboldcpp")),
    ("lemonade", Some("lemonade")),
    ("litellm", Some("litellm")),
    ("llama-cpp-python", Some("llamacpppython")),
    ("llama-server", Some("llamacpp")),
    ("llama-swap", Some("llamaswap")),
    ("llamacpp", Some("llamacpp")),
    ("llamafile", Some("llamafile")),
    ("lmstudio", Some("lmstudio")),
    ("localai", Some("localai")),
    ("lovable", Some("lovable")),
    ("mistralrs", Some("mistralrs")),
    ("mlx-lm", Some("mlxlm")),
    ("nginx", None),
    ("node-app", None),
    ("ollama", Some("ollama")),
    ("ollama-0.24.0-runner", None),
    ("ollama-0.24.0-runner-", Some("ollama")),
    ("open-webui", Some("openwebui")),
    ("private-site", None),
    ("prometheus", None),
    ("python-http-server", None),
    ("sglang", Some("sglang")),
    // It says so little that it may be anybody's.
    ("sglang-api-key", Some("openai-compatible")),
    ("sglang-router", Some("sglangrouter")),
    ("shimmy", Some("shimmy")),
    ("tabbyapi", Some("tabbyapi")),
    ("text-generation-webui", Some("textgenerationwebui")),
    ("tgi", Some("tgi")),
    ("transformers-serve", Some("transformers")),
    ("vllm", Some("vllm")),
    ("web-app", None),
];

/// What the server of that directory is, by the directory's name.
pub(super) fn expected(name: &str) -> Option<&'static str> {
    let fits = KINDS_OF.iter().filter(|(it, _)| name.starts_with(it));
    fits.max_by_key(|(it, _)| it.len()).unwrap_or_else(|| panic!("{name} is of no kind")).1
}

#[test]
fn exactly_the_right_kind_claims_each_recorded_server() {
    let all = Recordings::read();
    let mut understood = BTreeMap::new();
    for name in all.answering() {
        let recording = &all.0[name];
        let keyed = recording.cases.iter().any(|it| it.header("authorization").is_some());
        for key in [true, false] {
            if !key && !keyed {
                continue;
            }
            let (verdict, answers) = all.talk(name, key);
            let title = if key { name.to_owned() } else { format!("{name} without the key") };
            let asked: Vec<String> = answers.iter().map(|(question, _)| shown(question)).collect();
            let said = match &verdict {
                Verdict::Proof(sighting) => serde_json::to_value(sighting).unwrap(),
                Verdict::NotYet => json!("not yet"),
                Verdict::No => json!("no"),
                Verdict::Ask(_) => unreachable!(),
            };
            assert_eq!(said["kind"].as_str(), expected(name), "{title}: {said} after {asked:?}");
            understood.insert(title, json!({"asked": asked, "said": said}));
        }
    }
    insta::assert_json_snapshot!("servers", understood);
}

fn shown(question: &Question) -> String {
    match &question.post {
        None => format!("GET {}", question.path),
        Some(body) => format!("POST {} {}", question.path, String::from_utf8_lossy(body)),
    }
}

#[test]
fn every_recorded_refusal_has_its_meaning() {
    let mut meanings = BTreeMap::new();
    for (name, recording) in &Recordings::read().0 {
        let kind = expected(name).unwrap_or("none");
        for case in recording.cases.iter().filter(|it| it.method == "POST" && it.answer.status >= 400) {
            let retry_after = case.answer.header("retry-after").and_then(|it| it.parse().ok());
            let Answer { status, body, .. } = &case.answer;
            let cause = classify(kind, Refusal { status: *status, retry_after, body });
            meanings.insert(format!("{name}/{}", case.name), format!("{status} {cause:?}"));
        }
    }
    insta::assert_json_snapshot!("refusals", meanings);
}

#[test]
fn every_recorded_error_inside_an_answer_has_its_meaning() {
    let mut meanings = BTreeMap::new();
    for (name, recording) in &Recordings::read().0 {
        let kind = expected(name).unwrap_or("none");
        for case in recording.cases.iter().filter(|it| it.method == "POST" && it.answer.status == 200) {
            let text = String::from_utf8_lossy(&case.answer.body);
            for line in text.lines().map(|line| line.trim_start_matches("data: ")) {
                if line.starts_with("{\"error\"") {
                    let cause = classify_inside(kind, line.as_bytes());
                    meanings.insert(format!("{name}/{}", case.name), format!("{cause:?}"));
                }
            }
        }
    }
    insta::assert_json_snapshot!("errors_inside", meanings);
}

#[test]
fn every_recorded_server_says_what_it_does_as_far_as_it_does() {
    let all = Recordings::read();
    let mut understood = BTreeMap::new();
    for name in all.answering() {
        let (Some(kind), recording) = (expected(name), &all.0[name]) else { continue };
        for model in ["tiny-a:latest", "another"] {
            let mut answers = Answers::default();
            let doing = loop {
                match pulse(kind, model, &answers, &Answers::default()) {
                    Pulse::Is(doing) => break format!("{doing:?}"),
                    Pulse::Ask(question) => match recording.reply(&question, true) {
                        Some(answer) => answers.push(question, answer),
                        None => break format!("asks {}", question.path),
                    },
                }
            };
            let asked: Vec<String> = answers.iter().map(|(question, _)| shown(question)).collect();
            understood.insert(format!("{name} asked for {model}"), format!("{doing} after {asked:?}"));
        }
    }
    insta::assert_json_snapshot!("doing", understood);
}
