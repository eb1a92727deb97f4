//! Servers that are silent for a good reason are waited for, and others are left, through the
//! whole daemon.

use std::time::Duration;

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    caller::{Answer, Verdict, chat, request},
    daemon::{Daemon, Options},
};

const CHAT: &str = "/v1/chat/completions";
const MS: Duration = Duration::from_millis(1);
/// Less than anything here takes, so that only what is seen of a server explains the wait.
const SHORT: &str = "[patience]\nfirst_token = \"1s\"\nload = \"20s\"";

async fn daemon(servers: &[&Simulated], config: &str) -> Daemon {
    let mut options = Options::alone().config(config);
    for (at, server) in servers.iter().enumerate() {
        options = options.simulated(server, ["first", "second"][at], at as i32);
    }
    options.start().await
}

async fn ask(daemon: &Daemon, stream: bool, headers: &[(&str, &str)]) -> (Answer, Duration) {
    let begun = Instant::now();
    let body = chat("sim", stream, "Count for me.").to_string();
    let answer = daemon.caller().send(request("POST", CHAT, body.into(), headers)).await.unwrap();
    (answer, begun.elapsed())
}

async fn attempts(daemon: &Daemon, answer: &Answer) -> Value {
    let id = answer.header("x-lovable-request-id").unwrap().to_owned();
    loop {
        let told = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await;
        if told.status == 200 {
            return told.json()["attempts"].clone();
        }
        sleep(5 * MS).await;
    }
}

fn who(answer: &Answer) -> Option<&str> {
    answer.header("x-lovable-server")
}

/// One whose model leaves memory without anybody being told, and takes that long to come back.
async fn cold(shape: Shape, load: Duration) -> Simulated {
    Simulated::start(shape, Script { load, ..Script::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_loads_is_waited_for_and_its_caller_kept_alive() {
    for shape in [Shape::Ollama, Shape::LmStudio, Shape::LlamaCpp] {
        let server = cold(shape, 3500 * MS).await;
        let daemon = daemon(&[&server], SHORT).await;
        let loads = async {
            server.change(|it| it.models[0].loaded = false);
            if shape == Shape::LlamaCpp {
                // It says 503 to everything meanwhile.
                server.change(|it| (it.loading, it.load) = (true, Duration::ZERO));
                sleep(3500 * MS).await;
                server.change(|it| it.loading = false);
            }
        };
        let asked = ask(&daemon, true, &[("x-lovable-open-after-ms", "500")]);
        let ((), (answer, took)) = tokio::join!(loads, asked);
        assert_eq!(answer.verdict(), Verdict::Whole(8), "{shape:?}: {}", answer.text());
        assert!(took > 3000 * MS && took < 8000 * MS, "{shape:?}: {took:?}");
        assert!(answer.text().starts_with(':'), "{shape:?}: {}", answer.text());
        assert_eq!(server.counts().served, 1, "{shape:?}");
        assert_eq!(daemon.servers().await[0]["standing"], "up", "{shape:?}: no fault of its");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_turns_out_to_have_to_be_loaded_is_asked_of_who_has_it() {
    for shape in [Shape::Ollama, Shape::LmStudio] {
        let (first, second) = (cold(shape, 20_000 * MS).await, cold(Shape::Vllm, Duration::ZERO).await);
        let daemon = daemon(&[&first, &second], "").await;
        first.change(|it| it.models[0].loaded = false);
        let (answer, took) = ask(&daemon, true, &[]).await;
        assert_eq!((answer.verdict(), who(&answer)), (Verdict::Whole(8), Some("second")));
        assert!(took < 3000 * MS, "{shape:?}: {took:?}");
        let attempts = attempts(&daemon, &answer).await;
        assert_eq!(attempts[0]["fault"]["cause"], "loading", "{attempts}");
        let servers = daemon.servers().await;
        let first = servers.iter().find(|it| it["id"] == "first").unwrap();
        assert_eq!(first["standing"], "up", "{first}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_and_loads_nothing_is_left_within_seconds() {
    for fault in [Fault::StallBeforeHead, Fault::StallAfterHead, Fault::StallInMiddle] {
        for stream in [true, false] {
            let script = Script { plan: Plan::Always(fault), ..Script::default() };
            let first = Simulated::start(Shape::LlamaCpp, script).await.unwrap();
            let second = Simulated::start(Shape::LlamaCpp, Script::default()).await.unwrap();
            let daemon = daemon(&[&first, &second], "").await;
            let (answer, took) = ask(&daemon, stream, &[]).await;
            assert_eq!(answer.verdict(), Verdict::Whole(8), "{fault}: {}", answer.text());
            // In the middle it takes a second look to see that nothing moves.
            let most = if fault == Fault::StallInMiddle { 3500 * MS } else { 3000 * MS };
            assert!(took < most, "{fault} stream {stream}: {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_reads_a_long_prompt_is_waited_for() {
    for shape in [Shape::LlamaCpp, Shape::Vllm] {
        let script = Script { before: 4000 * MS, ..Script::default() };
        let first = Simulated::start(shape, script).await.unwrap();
        let second = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
        for daemon in [daemon(&[&first], SHORT).await, daemon(&[&first, &second], SHORT).await] {
            let (answer, _) = ask(&daemon, true, &[]).await;
            assert_eq!((answer.verdict(), who(&answer)), (Verdict::Whole(8), Some("first")), "{shape:?}");
        }
        assert_eq!((first.counts().received, second.counts().received), (2, 0), "{shape:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_own_patience_holds_whatever_the_server_does() {
    let script = Script { before: 10_000 * MS, ..Script::default() };
    let server = Simulated::start(Shape::LlamaCpp, script).await.unwrap();
    let daemon = daemon(&[&server], "").await;
    for stream in [true, false] {
        let (answer, took) = ask(&daemon, stream, &[("x-lovable-timeout-ms", "1500")]).await;
        assert_eq!(answer.status, 504, "{}", answer.text());
        assert!(took > 1400 * MS && took < 2500 * MS, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_of_itself_is_left_when_it_was_quicker_before() {
    for shape in [Shape::Ollama, Shape::OpenAi] {
        let first = Simulated::start(shape, Script::default()).await.unwrap();
        let second = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
        let daemon = daemon(&[&first, &second], "").await;
        for _ in 0..3 {
            assert_eq!(who(&ask(&daemon, true, &[]).await.0), Some("first"));
        }
        first.change(|it| it.plan = Plan::Always(Fault::StallBeforeHead));
        let (answer, took) = ask(&daemon, true, &[]).await;
        // Its head was out before anybody knew who answers.
        assert_eq!((answer.verdict(), second.counts().served), (Verdict::Whole(8), 1));
        assert!(took > 4500 * MS && took < 7500 * MS, "{shape:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_to_wait_behind_a_prompt_whose_caller_left() {
    let script = Script { before: 2500 * MS, slots: 1, ..Script::default() };
    let server = Simulated::start(Shape::Ollama, script).await.unwrap();
    let daemon = Options::alone().simulated(&server, "first", 0).config("limit = 1").start().await;
    // A prompt that is taken to be read in three seconds.
    let body = chat("sim", true, &"word ".repeat(240)).to_string();
    let caller = daemon.caller();
    let leaves = tokio::spawn({
        let request = request("POST", CHAT, body.into(), &[]);
        async move { caller.send(request).await }
    });
    while server.counts().in_flight == 0 {
        sleep(5 * MS).await;
    }
    leaves.abort();
    sleep(200 * MS).await;
    assert_eq!(daemon.servers().await[0]["in_flight"], 0, "nobody waits for it");
    let second = ask(&daemon, true, &[]);
    tokio::pin!(second);
    assert!(tokio::time::timeout(1500 * MS, &mut second).await.is_err());
    assert_eq!(server.counts().received, 1, "it waits here and may go elsewhere");
    let (answer, _) = second.await;
    assert_eq!(answer.verdict(), Verdict::Whole(8));
    assert_eq!((server.counts().received, server.counts().most_in_flight), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_turns_requests_away_gets_as_many_as_it_takes() {
    let script = Script { before: 100 * MS, slots: 2, turns_away: true, ..Script::default() };
    let server = Simulated::start(Shape::OpenAi, script).await.unwrap();
    let daemon = daemon(&[&server], "").await;
    let callers = (0..6).map(|_| ask(&daemon, true, &[]));
    for (answer, _) in futures_util::future::join_all(callers).await {
        assert_eq!(answer.verdict(), Verdict::Whole(8));
    }
    assert_eq!(daemon.servers().await[0]["limit"], 2);
    let before = server.counts().refused;
    let callers = (0..12).map(|_| ask(&daemon, true, &[]));
    for (answer, _) in futures_util::future::join_all(callers).await {
        assert_eq!(answer.verdict(), Verdict::Whole(8));
    }
    assert_eq!((server.counts().refused, server.counts().served), (before, 18));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_that_got_lost_among_others_is_asked_of_somebody_else() {
    for shape in [Shape::Vllm, Shape::Ollama] {
        let first = Simulated::start(shape, Script { between: 20 * MS, ..Script::default() }).await.unwrap();
        let second = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
        let daemon = daemon(&[&first, &second], "").await;
        for _ in 0..3 {
            assert_eq!(who(&ask(&daemon, true, &[]).await.0), Some("first"));
        }
        first.change(|it| it.plan = Plan::At([(4, Fault::StallBeforeHead)].into()));
        let others = async {
            sleep(100 * MS).await;
            for _ in 0..40 {
                assert_eq!(ask(&daemon, true, &[]).await.0.verdict(), Verdict::Whole(8));
            }
        };
        let ((answer, took), ()) = tokio::join!(ask(&daemon, true, &[]), others);
        assert_eq!(answer.verdict(), Verdict::Whole(8), "{shape:?}: {}", answer.text());
        assert!(took < 9000 * MS, "{shape:?}: {took:?}");
    }
}
