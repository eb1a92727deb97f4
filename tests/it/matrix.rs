//! Every fault of a simulated server, at every place of an answer, however it is asked, and
//! whoever stands beside it.
//!
//! Each combination has servers and a model of its own, so that nothing of one is in the way
//! of another, and many share a daemon. The table says what the caller saw, how many requests
//! the faulty server and the one beside it got, and how long it took.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use futures_util::future::join_all;
use http_body_util::BodyExt;
use lovable::simulate::{Fault, Offer, Plan, Script, Shape, Simulated, Strikes};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    caller::{Verdict, request},
    daemon::{Daemon, Options},
    language::verdict,
    proof::{Table, is_full},
    resume::{PATHS, question},
};

const WORDS: usize = 8;
/// A short patience, so that a stall costs little; the rules are the same. Where nobody else can
/// be hurt by it it is shorter still, because there it is lost several times. A waiting stream is
/// opened after all that a server that fails at once is given, and before a stall is given up.
fn patience(beside: Beside) -> String {
    let seconds = if beside == Beside::Nobody { 1 } else { 3 };
    format!(
        "[patience]\nfirst_token = \"{seconds}s\"\nload = \"{seconds}s\"\ngap = \"{seconds}s\"\n\
         open_after = \"4500ms\"\nbefore_commit = \"12s\"\n"
    )
}
/// One is asked after the other, so that a machine with two cores keeps up.
const APART: Duration = Duration::from_millis(20);
/// So many that stand alone share a daemon: each is sent several times, and what a daemon
/// sends again in all is bounded.
const ALONE: usize = 24;
/// So many of the others.
const BESIDE: usize = 40;
/// So many daemons run at once.
const AT_ONCE: usize = 4;

/// Who stands beside the faulty server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Beside {
    Nobody,
    /// One with the same model.
    Twin,
    /// One with the same model under another name.
    Equivalent,
    /// One with another model, which the configuration names.
    Alternative,
}

const BESIDES: [Beside; 4] = [Beside::Nobody, Beside::Twin, Beside::Equivalent, Beside::Alternative];

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Streamed,
    /// Whole, which a server is asked for as a stream.
    Whole,
    /// Whole and short, which a server is asked for whole.
    Short,
}

/// One combination, but for who stands beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    fault: Option<Fault>,
    /// After how many words it strikes, if it strikes inside an answer.
    after: usize,
    path: &'static str,
    asked: Asked,
}

impl Case {
    fn place(&self) -> &'static str {
        match (self.fault.map(Fault::strikes), self.asked, self.after) {
            (None | Some(Strikes::Never), _, _) => "",
            (Some(Strikes::Head), _, _) => "before the head",
            (Some(Strikes::Body), Asked::Short, _) => "in the body",
            (Some(Strikes::Body), _, 0) => "before content",
            (Some(Strikes::Body), _, 4) => "in the middle",
            (Some(Strikes::Body), _, WORDS) => "after all words",
            (Some(Strikes::Body), _, _) => "near the end",
        }
    }
}

impl Case {
    /// Those that flood the machine with bytes are left out of the short run, but for one place.
    fn is_left_out(&self) -> bool {
        let floods = matches!(self.fault, Some(Fault::EndlessFrame | Fault::GiantHead));
        let kept = self.place() == "in the middle" || self.place() == "before the head";
        floods && !(kept && self.asked == Asked::Streamed)
    }
}

/// Every combination at these paths.
fn cases(paths: &[&'static str]) -> Vec<Case> {
    // Words without end are no fault that can be seen from what comes; the last test has them.
    let faults = Fault::ALL.iter().copied().filter(|it| *it != Fault::EndlessWords).map(Some);
    let mut cases = Vec::new();
    for fault in [None].into_iter().chain(faults) {
        let inside = fault.is_some_and(|it| it.strikes() == Strikes::Body);
        for path in paths {
            for asked in [Asked::Streamed, Asked::Whole, Asked::Short] {
                let places: &[usize] =
                    if inside && asked != Asked::Short { &[0, 4, WORDS - 1, WORDS] } else { &[0] };
                let places = places.iter().map(|after| Case { fault, after: *after, path, asked });
                cases.extend(places.filter(|it| is_full() || !it.is_left_out()));
            }
        }
    }
    cases
}

/// What became of one combination.
#[derive(Clone, Debug)]
struct Came {
    saw: Verdict,
    to_faulty: u64,
    to_other: u64,
    took: Duration,
    answer: String,
}

impl Came {
    /// For the table that must not change: without times, and without numbers that depend on them.
    fn text(&self) -> String {
        let saw = match &self.saw {
            Verdict::Whole(_) => "whole".to_owned(),
            Verdict::BrokenOff(words) => format!("broken off after {words}"),
            Verdict::Refused(status) => status.to_string(),
            Verdict::Wrong(why) => format!("WRONG {why}"),
        };
        let count = |count: u64| if count > 1 { "several".to_owned() } else { count.to_string() };
        format!("{saw} {}+{}", count(self.to_faulty), count(self.to_other))
    }
}

/// A name of letters, so that no part of it is taken for a version or a size.
fn stem(number: usize) -> String {
    let letter = |it: usize| char::from(b'a' + (it % 26) as u8);
    format!("model{}{}{}", letter(number / 676), letter(number / 26), letter(number))
}

/// The servers of one combination.
struct Pair {
    case: Case,
    model: String,
    faulty: Simulated,
    other: Option<Simulated>,
}

impl Pair {
    async fn start(number: usize, case: Case, beside: Beside) -> Self {
        let (model, stem) = (format!("{}:8b-instruct", stem(number)), stem(number));
        let script = |name: &str, size: &str| Script {
            words: WORDS,
            after: case.after,
            slow: Duration::from_millis(1),
            models: vec![Offer { parameters: size.to_owned(), family: stem.clone(), ..Offer::named(name) }],
            ..Script::default()
        };
        let faulty = Simulated::start(Shape::Vllm, script(&model, "8.2B")).await.unwrap();
        let other = match beside {
            Beside::Nobody => None,
            Beside::Twin => Some(script(&model, "8.2B")),
            Beside::Equivalent => Some(script(&format!("{stem}-8b-instruct-q4_k_m"), "8.2B")),
            Beside::Alternative => Some(script(&format!("other{stem}-14b"), "14.8B")),
        };
        let other = match other {
            Some(script) => Some(Simulated::start(Shape::LlamaCpp, script).await.unwrap()),
            None => None,
        };
        Self { case, model, faulty, other }
    }

    async fn ask(&self, daemon: &Daemon) -> Came {
        let Case { fault, path, asked, .. } = self.case;
        self.faulty.change(|script| script.plan = fault.map_or(Plan::Never, Plan::Always));
        if fault == Some(Fault::Refuse) {
            self.faulty.until_listening(false).await;
        }
        let more = if asked == Asked::Short { json!({"max_tokens": 50}) } else { Value::Null };
        let mut body = question(path, asked == Asked::Streamed, &more);
        body["model"] = self.model.as_str().into();
        let begun = Instant::now();
        let answer = daemon.caller().send(request("POST", path, body.to_string().into(), &[])).await;
        let took = begun.elapsed();
        let (saw, answer) = match answer {
            Ok(answer) => (verdict(path, &answer), answer.text()),
            Err(error) => (Verdict::Wrong(format!("no end of the answer: {error}")), String::new()),
        };
        let other = self.other.as_ref().map(|it| it.counts().received);
        Came { saw, to_faulty: self.faulty.counts().received, to_other: other.unwrap_or(0), took, answer }
    }
}

/// Runs some combinations with a daemon of their own.
async fn run(first: usize, cases: &[Case], beside: Beside) -> Vec<(Case, Beside, Came)> {
    let pairs = join_all(cases.iter().zip(first..).map(|(case, at)| Pair::start(at, *case, beside))).await;
    let mut options = Options::alone().config(&patience(beside));
    let mut chains = String::new();
    for pair in &pairs {
        let stem = pair.model.trim_end_matches(":8b-instruct");
        // The faulty one is asked first.
        options = options.simulated(&pair.faulty, &format!("{stem}-faulty"), 0);
        if let Some(other) = &pair.other {
            options = options.simulated(other, &format!("{stem}-other"), 10);
        }
        let _ = write!(chains, "\"{}\" = [\"other{stem}-14b\"], ", pair.model);
    }
    if beside == Beside::Alternative {
        let chains = chains.trim_end_matches(", ");
        options = options.config(&format!("[fallback]\ndefault = \"local\"\nchains = {{ {chains} }}\n"));
    }
    let mut daemon = options.start().await;
    let asked = pairs.iter().zip(0..).map(|(pair, nth)| {
        let daemon = &daemon;
        async move {
            sleep(APART * nth).await;
            pair.ask(daemon).await
        }
    });
    let came = join_all(asked).await;
    assert!(daemon.stop().await.success(), "{}", daemon.log());
    cases.iter().zip(came).map(|(case, came)| (*case, beside, came)).collect()
}

/// What came of all of them.
async fn all(paths: &[&'static str]) -> BTreeMap<Case, BTreeMap<Beside, Came>> {
    let cases = cases(paths);
    let mut batches = Vec::new();
    for beside in BESIDES {
        let sharing = if beside == Beside::Nobody { ALONE } else { BESIDE };
        batches.extend(cases.chunks(sharing).map(|some| (some.to_vec(), beside)));
    }
    let mut all: BTreeMap<Case, BTreeMap<Beside, Came>> = BTreeMap::new();
    for (round, some) in batches.chunks(AT_ONCE).enumerate() {
        let runs = some.iter().enumerate().map(|(at, (cases, beside))| {
            let (cases, beside) = (cases.clone(), *beside);
            tokio::spawn(async move { run((round * AT_ONCE + at) * BESIDE, &cases, beside).await })
        });
        for run in join_all(runs.collect::<Vec<_>>()).await {
            for (case, beside, came) in run.unwrap() {
                all.entry(case).or_default().insert(beside, came);
            }
        }
    }
    all
}

/// What is wrong with what came, if anything.
fn judge(case: &Case, beside: Beside, came: &Came) -> Option<&'static str> {
    let blames_the_request = case.fault.is_some_and(Fault::blames_the_request);
    let nothing_went_out = case.asked != Asked::Streamed || case.after == 0;
    match (&came.saw, beside) {
        (Verdict::Wrong(_), _) => Some("corrupted"),
        (Verdict::Whole(WORDS), _) => None,
        (Verdict::Whole(_), _) => Some("too few words, or too many"),
        (Verdict::Refused(400 | 422), _) if blames_the_request => None,
        (_, Beside::Twin | Beside::Equivalent) => Some("a failure beside one that could answer"),
        (_, Beside::Alternative) if nothing_went_out => Some("a failure beside one that could stand in"),
        (Verdict::Refused(_) | Verdict::BrokenOff(_), Beside::Nobody | Beside::Alternative) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_corrupted_and_beside_a_twin_none_fails() {
    let all = all(if is_full() { &PATHS } else { &PATHS[..1] }).await;
    let columns = ["fault", "place", "asked", "at", "alone", "twin", "equivalent", "alternative"];
    let mut table = Table::new("Every fault at every place", &columns);
    let (mut bad, mut fixed) = (Vec::new(), String::new());
    for (case, beside) in &all {
        let undisturbed = Case { fault: None, after: 0, ..*case };
        let mut cells = Vec::new();
        let name = case.fault.map_or("none", Fault::name);
        let asked = format!("{:?}", case.asked).to_lowercase();
        let _ = write!(fixed, "{name:<18} {:<15} {asked:<8}", case.place());
        for (beside, came) in beside {
            let lost = came.took.saturating_sub(all[&undisturbed][beside].took);
            cells.push(format!("{} {} ms", came.text(), lost.as_millis()));
            // Whether its bytes come in time is luck.
            let shown = if case.fault == Some(Fault::SlowBytes) { "-".to_owned() } else { came.text() };
            let _ = write!(fixed, " | {shown}");
            if let Some(why) = judge(case, *beside, came) {
                bad.push(format!("{case:?} {beside:?}: {why}: {}\n{}", came.text(), came.answer));
            }
        }
        fixed.push('\n');
        let [alone, twin, equivalent, alternative] = &cells[..] else { panic!("{cells:?}") };
        table.row(&[&name, &case.place(), &asked, &case.path, alone, twin, equivalent, alternative]);
    }
    table.show();
    assert!(bad.is_empty(), "{} of {}: {:#?}", bad.len(), all.len() * 4, &bad[..bad.len().min(20)]);
    if !is_full() {
        insta::assert_snapshot!("matrix", fixed);
    }
}

#[tokio::test]
async fn words_without_end_go_on_until_the_caller_leaves() {
    let plan = Plan::Always(Fault::EndlessWords);
    let script = Script { plan, between: Duration::from_millis(1), ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let daemon = Options::alone().simulated(&server, "endless", 0).start().await;
    let mut connection = daemon.caller().connect().await.unwrap();
    let body = question(PATHS[0], true, &Value::Null).to_string();
    let mut answer = connection.send_request(request("POST", PATHS[0], body.into(), &[])).await.unwrap();
    let mut text = Vec::new();
    while memchr::memmem::find(&text, b"w50\"").is_none() {
        let frame = answer.frame().await.unwrap().unwrap();
        text.extend_from_slice(frame.data_ref().unwrap());
    }
    drop((answer, connection));
    let left = Instant::now();
    while server.counts().cancelled == 0 {
        assert!(left.elapsed() < Duration::from_secs(2), "{:?}", server.counts());
        sleep(Duration::from_millis(5)).await;
    }
}
