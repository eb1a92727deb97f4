//! Every fault of the script, with one faulty and one good server.

use std::time::Duration;

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated, Strikes};

use tokio::time::{Instant, sleep};

use crate::{
    caller::{Answer, Verdict, chat},
    daemon::Options,
    load::{Load, Tally},
    proof::{Table, times},
};

const WORDS: usize = 8;

/// Short patiences, so that a stall costs little; the rules are the same.
const PATIENCE: &str = "[patience]\nfirst_token = \"1s\"\nload = \"1s\"\ngap = \"1s\"\n";

struct Row {
    streamed: Tally,
    plain: Tally,
    struck: u64,
    served_by_faulty: u64,
    served_by_good: u64,
    received_by_good: u64,
}

async fn run(fault: Fault, after: usize, requests: usize, plan: Plan) -> Row {
    run_beside(Shape::OpenAi, fault, after, requests, plan).await
}

/// The good one is of this shape.
async fn run_beside(shape: Shape, fault: Fault, after: usize, requests: usize, plan: Plan) -> Row {
    let script = || Script { words: WORDS, after, slow: Duration::from_millis(50), ..Script::default() };
    let faulty = Simulated::start(Shape::Vllm, script()).await.unwrap();
    let good = Simulated::start(shape, script()).await.unwrap();
    // The faulty one is asked first, as long as it is thought to be well.
    let mut daemon = Options::alone()
        .config(PATIENCE)
        .simulated(&faulty, "faulty", 0)
        .simulated(&good, "good", 10)
        .start()
        .await;
    faulty.change(|script| script.plan = plan);
    let load = |stream| Load {
        caller: daemon.caller(),
        body: chat("sim", stream, "Count for me."),
        requests,
        at_once: 8,
        words: Some(WORDS),
        judge: Answer::verdict,
    };
    let (streamed, plain) = (load(true).run().await, load(false).run().await);
    // The last answer reaches its caller before its server has counted it.
    let begun = Instant::now();
    while good.counts().served < good.counts().received && begun.elapsed() < Duration::from_secs(2) {
        sleep(Duration::from_millis(5)).await;
    }
    let row = Row {
        streamed,
        plain,
        struck: faulty.counts().received,
        served_by_faulty: faulty.counts().served,
        served_by_good: good.counts().served,
        received_by_good: good.counts().received,
    };
    assert!(daemon.stop().await.success(), "{fault}: {}", daemon.log());
    row
}

/// Faults that another server can make good.
fn recoverable() -> impl Iterator<Item = Fault> {
    Fault::ALL.iter().copied().filter(|it| *it != Fault::EndlessWords && !it.blames_the_request())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_caller_sees_a_fault_that_comes_before_the_first_content() {
    let requests = times(25, 1000);
    let mut table = Table::new(
        "Faults before the first content",
        &["fault", "streamed ok", "plain ok", "failures", "hit the faulty one", "sent to the good one"],
    );
    let mut bad = Vec::new();
    for fault in recoverable() {
        let row = run(fault, 0, requests, Plan::Always(fault)).await;
        let failures = row.streamed.failures() + row.plain.failures() + row.streamed.broken_off;
        table.row(&[
            &fault,
            &row.streamed.whole,
            &row.plain.whole,
            &failures,
            &row.struck,
            &row.received_by_good,
        ]);
        // SlowBytes is a right answer; a server that is only slow may also be waited for.
        let all = 2 * requests as u64;
        let once = row.received_by_good == row.served_by_good
            && (row.received_by_good == all || (fault == Fault::SlowBytes && row.received_by_good <= all));
        if failures > 0 || !once {
            let (received, served) = (row.received_by_good, row.served_by_good);
            bad.push(format!("{fault}: {:?} {:?}, good: {received} {served}", row.streamed, row.plain));
        }
        if row.struck == 0 && fault != Fault::Refuse {
            bad.push(format!("{fault}: the faulty server was never asked"));
        }
    }
    table.show();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// A server that is never wrong long enough to be left alone is met again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_now_and_then_costs_no_caller_an_answer() {
    let requests = times(25, 1000);
    let mut table = Table::new(
        "Faults before the first content in every third answer",
        &[
            "fault",
            "streamed ok",
            "plain ok",
            "failures",
            "hit the fault",
            "answered by it",
            "by the good one",
        ],
    );
    let mut bad = Vec::new();
    for fault in recoverable().filter(|it| !matches!(it, Fault::Refuse | Fault::SlowBytes)) {
        let plan = Plan::Sometimes { fault, probability: 1.0 / 3.0, seed: 7 };
        let row = run(fault, 0, requests, plan).await;
        let failures = row.streamed.failures() + row.plain.failures() + row.streamed.broken_off;
        let hit = row.struck - row.served_by_faulty;
        table.row(&[
            &fault,
            &row.streamed.whole,
            &row.plain.whole,
            &failures,
            &hit,
            &row.served_by_faulty,
            &row.served_by_good,
        ]);
        // Each request was answered once, and the good one saw none twice.
        let answers = row.served_by_faulty + row.served_by_good;
        if failures > 0 || answers != 2 * requests as u64 || row.received_by_good != row.served_by_good {
            bad.push(format!("{fault}: {answers} answers, {:?} {:?}", row.streamed, row.plain));
        }
    }
    table.show();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_caller_sees_a_fault_in_the_middle_of_an_answer() {
    let requests = times(25, 1000);
    let mut table = Table::new(
        "Faults after three words",
        &["fault", "beside", "streamed ok", "plain ok", "failures", "hit the faulty one"],
    );
    let mut bad = Vec::new();
    // One that goes on where the answer ended, and one that can only be asked from the start.
    let beside = [(Shape::LlamaCpp, "llama.cpp"), (Shape::OpenAi, "another")];
    let faults = recoverable().filter(|it| it.strikes() == Strikes::Body);
    for (fault, (shape, name)) in faults.flat_map(|fault| beside.map(|it| (fault, it))) {
        let row = run_beside(shape, fault, 3, requests, Plan::Always(fault)).await;
        let whole = row.streamed.whole + row.plain.whole;
        let failures = 2 * requests - whole;
        table.row(&[&fault, &name, &row.streamed.whole, &row.plain.whole, &failures, &row.struck]);
        if failures > 0 || row.struck == 0 {
            bad.push(format!("{fault} {name}: {:?} {:?}", row.streamed, row.plain));
        }
    }
    table.show();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_can_go_on_with_ends_in_an_error() {
    let cuts = [Fault::DieMidStream, Fault::ErrorThenDone, Fault::TruncatedJson, Fault::DoneWithoutFinish];
    for fault in cuts {
        // After it the server is there and refuses.
        let faults = [fault].into_iter().chain([Fault::ServerError; 7]).collect();
        let script = Script { words: WORDS, plan: Plan::InTurn(faults), ..Script::default() };
        let alone = Simulated::start(Shape::Vllm, script).await.unwrap();
        let daemon = Options::alone().config(PATIENCE).simulated(&alone, "alone", 0).start().await;
        let answer = daemon.caller().chat("sim", true).await.unwrap();
        assert_eq!(answer.verdict(), Verdict::BrokenOff(3), "{fault}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_refusal_that_blames_the_request_is_passed_on_and_asked_of_nobody_else() {
    for (fault, status) in [(Fault::BadRequest, 400), (Fault::Unprocessable, 422)] {
        let strict = Simulated::start(Shape::Vllm, Script { plan: Plan::Always(fault), ..Script::default() })
            .await
            .unwrap();
        let other = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
        let daemon =
            Options::alone().simulated(&strict, "strict", 0).simulated(&other, "other", 10).start().await;
        for stream in [true, false] {
            let answer = daemon.caller().chat("sim", stream).await.unwrap();
            assert_eq!(answer.status, status, "{}", answer.text());
            assert!(answer.text().contains("Count for me."), "the server's own words: {}", answer.text());
        }
        assert_eq!((strict.counts().received, other.counts().received), (2, 0));
    }
}
