//! What a server may cost others, and what it may not be blamed for, through the whole daemon.

use std::time::Duration;

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    caller::{Answer, Verdict, chat, request},
    daemon::{Daemon, Options},
};

const MS: Duration = Duration::from_millis(1);

/// Two equal servers; the first is asked first.
async fn twins(script: impl Fn() -> Script) -> (Simulated, Simulated, Daemon) {
    let first = Simulated::start(Shape::Vllm, script()).await.unwrap();
    let second = Simulated::start(Shape::Vllm, script()).await.unwrap();
    let daemon = Options::alone().simulated(&first, "first", 0).simulated(&second, "second", 1).start().await;
    (first, second, daemon)
}

async fn ask(daemon: &Daemon) -> Answer {
    let body = chat("sim", true, "Count for me.").to_string();
    daemon.caller().send(request("POST", "/v1/chat/completions", body.into(), &[])).await.unwrap()
}

async fn first(daemon: &Daemon) -> serde_json::Value {
    daemon.servers().await.into_iter().find(|it| it["id"] == "first").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_back_after_half_a_second_serves_again_within_two() {
    let (server, _other, daemon) = twins(Script::default).await;
    assert_eq!(ask(&daemon).await.header("x-lovable-server"), Some("first"));
    server.kill().await;
    let died = Instant::now();
    let mut lost = 0;
    while died.elapsed() < 500 * MS {
        let answer = ask(&daemon).await;
        assert_eq!(answer.verdict(), Verdict::Whole(8), "{}", answer.text());
        lost += 1;
    }
    assert!(lost > 5);
    server.revive().await;
    let back = Instant::now();
    while ask(&daemon).await.header("x-lovable-server") != Some("first") {
        assert!(back.elapsed() < 2000 * MS, "{}", first(&daemon).await);
        sleep(20 * MS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_are_no_fault_of_a_server() {
    let (server, _other, daemon) =
        twins(|| Script { before: 200 * MS, between: 20 * MS, ..Script::default() }).await;
    for round in 0..12 {
        // Before the first word, and in the middle of the answer.
        let patience = if round % 2 == 0 { 100 * MS } else { 280 * MS };
        assert!(timeout(patience, ask(&daemon)).await.is_err());
    }
    let answer = ask(&daemon).await;
    assert_eq!((answer.verdict(), answer.header("x-lovable-server")), (Verdict::Whole(8), Some("first")));
    let seen = first(&daemon).await;
    assert_eq!((&seen["standing"], &seen["last_fault"]), (&"up".into(), &serde_json::Value::Null), "{seen}");
    assert_eq!(server.counts().cancelled, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_breaks_every_server_downs_none() {
    let (one, other, daemon) = twins(Script::default).await;
    for _ in 0..3 {
        for server in [&one, &other] {
            server.change(|it| it.plan = Plan::Always(Fault::ServerError));
        }
        assert_eq!(ask(&daemon).await.status, 502);
        for server in [&one, &other] {
            server.change(|it| it.plan = Plan::Never);
        }
        let begun = Instant::now();
        assert_eq!(ask(&daemon).await.verdict(), Verdict::Whole(8));
        assert!(begun.elapsed() < 500 * MS, "{:?}", begun.elapsed());
    }
    for server in daemon.servers().await {
        assert!(server["standing"] == "up" || server["standing"] == "suspect", "{server}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_to_be_left_alone_for_a_second_is() {
    let (server, _other, daemon) = twins(Script::default).await;
    server.change(|it| it.plan = Plan::At([(1, Fault::TooManyHint)].into()));
    let begun = Instant::now();
    while begun.elapsed() < 900 * MS {
        let answer = ask(&daemon).await;
        assert_eq!(
            (answer.verdict(), answer.header("x-lovable-server")),
            (Verdict::Whole(8), Some("second"))
        );
    }
    assert_eq!(server.counts().received, 1);
    sleep(300 * MS).await;
    assert_eq!(ask(&daemon).await.header("x-lovable-server"), Some("first"));
    assert_eq!(first(&daemon).await["standing"], "up", "busy is no fault");
}
