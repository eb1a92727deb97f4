//! The traps of recognition that are in no recording, and its "never"s.

use bytes::Bytes;
use proptest::{prelude::*, sample::select};
use serde_json::json;

use super::*;
use crate::server::Problem;

fn said(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Answer { status, headers: headers.collect(), body: body.into(), at: None }
}

/// Talks to an endpoint that knows these paths, and says `404` to all others.
fn talk(paths: &[(&str, Answer)]) -> (Verdict, Answers) {
    let mut answers = Answers::default();
    loop {
        match recognise(&answers) {
            Verdict::Ask(question) => {
                let known = paths.iter().find(|(path, _)| *path == question.path);
                let answer = known.map_or_else(|| said(404, &[], "Not Found"), |(_, answer)| answer.clone());
                answers.push(question, answer);
            }
            verdict => return (verdict, answers),
        }
    }
}

fn proven(paths: &[(&str, Answer)]) -> Sighting {
    match talk(paths) {
        (Verdict::Proof(sighting), _) => *sighting,
        (verdict, answers) => panic!("{verdict:?} after {answers:?}"),
    }
}

fn list(names: &[&str], owner: &str) -> Answer {
    let data: Vec<_> = names.iter().map(|id| json!({"id": id, "owned_by": owner})).collect();
    said(200, &[("content-type", "application/json")], json!({"object": "list", "data": data}).to_string())
}

#[test]
fn every_conversation_begins_with_the_root() {
    assert_eq!(recognise(&Answers::default()), Verdict::Ask(Question::get("/")));
}

#[test]
fn an_ollama_that_refuses_our_host_name_is_known_by_it() {
    let no = said(403, &[("date", "today"), ("content-length", "0")], "");
    let sighting = proven(&[("/", no.clone()), ("/api/version", no)]);
    assert_eq!((sighting.kind.as_str(), sighting.problem), ("ollama", Some(Problem::WrongHost)));
    let page = said(403, &[], "");
    assert_eq!(talk(&[("/", page)]).0, Verdict::No, "only its root is closed");
}

#[test]
fn an_ollama_behind_another_root_is_found_by_its_own_paths() {
    let tags = json!({"models": [{"name": "tiny:latest"}]}).to_string();
    let mut paths = vec![
        ("/api/version", said(200, &[], r#"{"version":"0.24.0"}"#)),
        ("/api/tags", said(200, &[], tags)),
    ];
    assert_eq!(proven(&paths).kind, "ollama");
    paths.push(("/v1/models", list(&["tiny:latest"], "library")));
    assert_eq!(proven(&paths).kind, "ollama");
    // With a page at the root and lists of its own it is a front end, or an imitator.
    paths.push(("/", said(200, &[("content-type", "text/html")], "<html>")));
    paths.retain(|(path, _)| *path != "/v1/models");
    assert_eq!(talk(&paths).0, Verdict::No);
}

#[test]
fn a_list_that_was_cut_is_not_the_end_of_the_matter() {
    let cut = said(200, &[], r#"{"object":"list","data":[{"id":"a"#);
    assert_eq!(talk(&[("/v1/models", cut.clone())]).0, Verdict::NotYet);
    let root = said(200, &[], "Ollama is running");
    let other = ("/v1/models", list(&["a"], "library"));
    assert_eq!(talk(&[("/", root), ("/api/tags", cut), other]).0, Verdict::NotYet, "it is no lesser kind");
}

#[test]
fn a_list_where_an_object_should_be_is_no_list_of_models() {
    let array = said(200, &[], "[]");
    let odd = said(200, &[], r#"{"error":"Unexpected endpoint or method. (GET /)"}"#);
    let paths = ["/api/v1/models", "/api/v0/models", "/v1/models"].map(|path| (path, array.clone()));
    assert_eq!(talk(&paths).0, Verdict::No);
    assert_eq!(talk(&[&paths[..], &[("/", odd)]].concat()).0, Verdict::No);
    let root = said(200, &[], "Ollama is running");
    assert_eq!(proven(&[("/", root), ("/api/tags", array)]).problem, Some(Problem::Unhealthy));
}

#[test]
fn a_server_that_fails_is_asked_again_later() {
    for status in [500, 502, 503] {
        assert_eq!(talk(&[("/", said(status, &[], ""))]).0, Verdict::NotYet);
        assert_eq!(talk(&[("/v1/models", said(status, &[], ""))]).0, Verdict::NotYet);
    }
    let marked = said(500, &[("server", "llama.cpp")], "");
    assert_eq!(proven(&[("/v1/models", marked)]).problem, Some(Problem::Unhealthy));
}

#[test]
fn an_old_llama_cpp_that_shows_its_list_without_a_key_still_wants_one() {
    let sighting = proven(&[("/v1/models", list(&["tiny"], "llamacpp")), ("/props", said(401, &[], "{}"))]);
    assert_eq!(sighting.problem, Some(Problem::NeedsKey));
    assert_eq!(sighting.models.len(), 1);
}

#[test]
fn a_router_that_passes_on_foreign_owners_is_no_vllm() {
    let data =
        json!({"object": "list", "data": [{"id": "a", "owned_by": "vllm"}, {"id": "b", "owned_by": "me"}]});
    assert_eq!(proven(&[("/v1/models", said(200, &[], data.to_string()))]).kind, "openai-compatible");
    assert_eq!(proven(&[("/v1/models", list(&["a"], "vllm"))]).kind, "vllm");
}

#[test]
fn only_who_asks_for_a_key_as_model_servers_do_is_one() {
    let ask = |body: &'static str| talk(&[("/v1/models", said(401, &[], body))]).0;
    for body in [
        r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error"}}"#,
        r#"{"error":{"message":"no","code":"invalid_api_key"}}"#,
        r#"{"error":"Unauthorized"}"#,
    ] {
        assert!(matches!(ask(body), Verdict::Proof(_)), "{body}");
    }
    for body in
        ["", "Unauthorized", r#"{"message":"Unauthorized"}"#, r#"{"error":{"message":"log in"}}"#, "<html>"]
    {
        assert_eq!(ask(body), Verdict::No, "{body}");
    }
}

#[test]
fn what_a_model_is_called_can_be_shown_and_sent() {
    let names = ["b", "a", "b", "", "x\r\nset-cookie: y", "\u{1b}[2J", &"z".repeat(600)];
    let sighting = proven(&[("/v1/models", list(&names, "me"))]);
    assert_eq!(sighting.models.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_simulated_server_is_marked_so() {
    let mut answer = list(&["a"], "vllm");
    assert!(!proven(&[("/v1/models", answer.clone())]).simulated);
    answer.headers.push(("x-lovable-simulated".into(), "1".into()));
    assert!(proven(&[("/v1/models", answer)]).simulated);
}

#[test]
fn an_unchanged_ollama_is_not_asked_about_each_model_again() {
    let tags = |digest: &str| {
        said(200, &[], json!({"models": [{"name": "a:latest", "digest": digest}]}).to_string())
    };
    let paths = |digest| [("/", said(200, &[], "Ollama is running")), ("/api/tags", tags(digest))];
    let (_, earlier) = talk(&paths("1"));
    let posts = |answers: &Answers| answers.iter().filter(|(it, _)| it.post.is_some()).count();
    assert_eq!(posts(&earlier), 1);
    for (digest, expected) in [("1", 1), ("2", 0)] {
        let (_, full) = talk(&paths(digest));
        let mut now = Answers::default();
        for (question, answer) in full.iter().filter(|(it, _)| it.post.is_none()) {
            now.push(question.clone(), answer.clone());
        }
        recall("ollama", &earlier, &mut now);
        assert_eq!(posts(&now), expected);
    }
}

#[test]
fn a_collection_of_any_size_is_looked_at_in_bounded_time() {
    let models: Vec<_> = (0..500).map(|n| json!({"name": format!("m{n}")})).collect();
    let (verdict, answers) = talk(&[
        ("/", said(200, &[], "Ollama is running")),
        ("/api/tags", said(200, &[], json!({"models": models}).to_string())),
    ]);
    let Verdict::Proof(sighting) = verdict else { panic!("{verdict:?}") };
    assert_eq!((sighting.models.len(), answers.len()), (500, 36));
}

#[test]
fn ports_are_asked_likeliest_first_and_once() {
    let ports = usual_ports();
    assert_eq!(ports[..4], [11434, 1234, 8080, 8000]);
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
}

#[test]
fn an_error_inside_an_answer_is_judged_by_its_own_status_and_words() {
    for (kind, body, expected) in [
        (
            "vllm",
            r#"{"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}"#,
            Cause::ErrorEvent,
        ),
        (
            "lmstudio",
            r#"{"error":{"message":"it is greater than the context length"}}"#,
            Cause::ContextOverflow,
        ),
        ("lmstudio", r#"{"error":"Unexpected endpoint or method. (POST /v1/x)"}"#, Cause::Unsupported),
        (
            "llamacpp",
            r#"{"error":{"code":400,"message":"no","type":"exceed_context_size_error"}}"#,
            Cause::ContextOverflow,
        ),
        (
            "openai-compatible",
            r#"{"error":{"message":"queue","code":429}}"#,
            Cause::Busy { retry_after: None },
        ),
        ("ollama", r#"{"error":"an error was encountered while running the model"}"#, Cause::ErrorEvent),
        ("no-such-kind", "not even JSON", Cause::ErrorEvent),
    ] {
        assert_eq!(classify_inside(kind, body.as_bytes()), expected, "{kind} {body}");
    }
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let real = [
        "Ollama is running",
        "",
        "<html>",
        "[]",
        "null",
        "{",
        r#""Ollama is running""#,
        r#"{"version":"0.9.0"}"#,
        r#"{"version":"0.24.0"}"#,
        r#"{"models":[{"name":"a"},{"name":"b"}]}"#,
        r#"{"models":[{"key":"a","loaded_instances":[{}]}]}"#,
        r#"{"models":[7]}"#,
        r#"{"object":"list","data":null}"#,
        r#"{"object":"list","data":[{"id":"a","owned_by":"vllm","max_model_len":-1}]}"#,
        r#"{"data":[{"id":"a","owned_by":"library"}]}"#,
        r#"{"data":[{"id":"a","owned_by":"llamacpp","status":{"value":"loaded","args":["--port"]}}]}"#,
        r#"{"data":[{"id":"a","owned_by":"organization_owner"}]}"#,
        r#"{"error":"Unexpected endpoint or method. (GET /)"}"#,
        r#"{"error":"Unauthorized"}"#,
        r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
        r#"{"error":{"type":"invalid_request","code":"invalid_api_key"}}"#,
    ];
    prop_oneof![
        8 => select(real.to_vec()).prop_map(|it| it.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let header = select(vec![
        None,
        Some(("server", "llama.cpp")),
        Some(("server", "uvicorn")),
        Some(("server", "lovable/1")),
        Some(("x-lovable-instance", "i")),
        Some(("content-type", "text/html")),
    ]);
    let status = select(vec![200, 200, 200, 302, 401, 403, 404, 500, 503]);
    (status, header, body()).prop_map(|(status, header, body)| said(status, header.as_slice(), body))
}

proptest! {
    #[test]
    fn whatever_is_answered_the_questions_are_few_and_harmless(
        script in proptest::collection::vec(any_answer(), MOST_QUESTIONS + 1),
    ) {
        let mut answers = Answers::default();
        for answer in script {
            let Verdict::Ask(question) = recognise(&answers) else { break };
            prop_assert!(answers.to(&question).is_none(), "{question:?} was asked before");
            if question.post.is_some() {
                // Two facts that are Ollama's were seen by then.
                prop_assert_eq!(&question.path, "/api/show");
                prop_assert!(answers.get("/api/tags").is_some_and(|it| it.status == 200));
                prop_assert!(answers.get("/api/ps").is_some());
            } else if question.path == "/health" {
                prop_assert!(answers.get("/v1/models").is_some_and(|it| it.body.windows(4).any(|it| it == b"vllm")));
            }
            answers.push(question, answer);
        }
        let decided = !matches!(recognise(&answers), Verdict::Ask(_));
        prop_assert!(decided, "asked {} questions", answers.len());
        let gets = answers.iter().filter(|(it, _)| it.post.is_none()).count();
        prop_assert!(gets <= 12, "asked {} GETs", gets);
    }

    #[test]
    fn no_refusal_is_too_odd_to_have_a_meaning(
        kind in select(KINDS.iter().map(|it| it.id()).collect::<Vec<_>>()),
        status in 300..600_u16,
        retry_after in any::<Option<u64>>(),
        body in body(),
    ) {
        let cause = classify(kind, Refusal { status, retry_after, body: &body });
        // Only a refusal of the request itself ends it.
        prop_assert!(cause != Cause::Malformed || matches!(status, 400 | 422 | 500));
        classify_inside(kind, &body);
    }
}
