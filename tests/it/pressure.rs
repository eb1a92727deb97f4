//! Limits, the queue and who is next, through the whole daemon.

use std::time::Duration;

use lovable::simulate::{Script, Shape, Simulated};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    caller::{Answer, Verdict, chat, request},
    daemon::{Daemon, Options},
};

const CHAT: &str = "/v1/chat/completions";
const MS: Duration = Duration::from_millis(1);

/// A server whose answers take that long.
async fn server(shape: Shape, takes: Duration) -> Simulated {
    Simulated::start(shape, Script { before: takes, ..Script::default() }).await.unwrap()
}

/// A daemon with servers that may have so many requests at once.
async fn daemon(servers: &[(&Simulated, u32)], config: &str) -> Daemon {
    let mut options = Options::alone().config(config);
    for (at, (server, limit)) in servers.iter().enumerate() {
        options = options.simulated(server, ["a", "b", "c"][at], at as i32);
        options = options.config(&format!("limit = {limit}"));
    }
    options.start().await
}

fn ask(daemon: &Daemon, stream: bool, headers: &[(&str, &str)]) -> JoinHandle<(Answer, Instant)> {
    let caller = daemon.caller();
    let body = chat("sim", stream, "Count for me.").to_string();
    let request = request("POST", CHAT, body.into(), headers);
    tokio::spawn(async move { (caller.send(request).await.unwrap(), Instant::now()) })
}

async fn queued(daemon: &Daemon) -> (u64, u64, u64) {
    let status = daemon.caller().get("/lovable/v1/status").await.json();
    let of_server = |it: &Value| it["queued"].as_u64().unwrap();
    let requests = &status["requests"];
    (
        requests["in_flight"].as_u64().unwrap(),
        requests["queued"].as_u64().unwrap(),
        daemon.servers().await.iter().map(of_server).sum(),
    )
}

/// Waits until so many are being answered and so many wait.
async fn until(daemon: &Daemon, in_flight: u64, waiting: u64) {
    let begun = Instant::now();
    loop {
        let now = queued(daemon).await;
        if now == (in_flight, waiting, waiting) {
            return;
        }
        assert!(begun.elapsed() < 10_000 * MS, "{now:?} and not {in_flight}, {waiting}\n{}", daemon.log());
        sleep(5 * MS).await;
    }
}

#[tokio::test]
async fn a_server_with_a_limit_of_one_serves_three_callers_one_after_the_other() {
    let server = server(Shape::Vllm, 200 * MS).await;
    let daemon = daemon(&[(&server, 1)], "").await;
    let callers: Vec<_> = [true, false, true].map(|stream| ask(&daemon, stream, &[])).into();
    until(&daemon, 1, 2).await;
    for caller in callers {
        assert_eq!(caller.await.unwrap().0.verdict(), Verdict::Whole(8));
    }
    assert_eq!(server.counts().most_in_flight, 1);
    until(&daemon, 0, 0).await;
}

#[tokio::test]
async fn slots_that_a_server_tells_of_are_its_limit() {
    let server =
        Simulated::start(Shape::LlamaCpp, Script { before: 150 * MS, slots: 2, ..Script::default() });
    let server = server.await.unwrap();
    let daemon = Options::alone().simulated(&server, "a", 0).start().await;
    assert_eq!(daemon.servers().await[0]["limit"], 2);
    let callers: Vec<_> = (0..5).map(|_| ask(&daemon, true, &[])).collect();
    until(&daemon, 2, 3).await;
    for caller in callers {
        assert_eq!(caller.await.unwrap().0.verdict(), Verdict::Whole(8));
    }
    assert_eq!(server.counts().most_in_flight, 2);
}

#[tokio::test]
async fn who_comes_to_a_full_queue_is_told_when_to_come_back() {
    let server = server(Shape::Vllm, 400 * MS).await;
    let daemon = daemon(&[(&server, 1)], "[queue]\nsize = 1").await;
    let first = ask(&daemon, true, &[]);
    until(&daemon, 1, 0).await;
    let second = ask(&daemon, true, &[]);
    until(&daemon, 1, 1).await;
    let (third, _) = ask(&daemon, true, &[]).await.unwrap();
    assert_eq!((third.status, third.header("retry-after")), (429, Some("2")), "{}", third.text());
    assert_eq!(third.json()["error"]["code"], "busy");
    for caller in [first, second] {
        assert_eq!(caller.await.unwrap().0.verdict(), Verdict::Whole(8));
    }
}

#[tokio::test]
async fn without_a_queue_nobody_waits() {
    let server = server(Shape::Vllm, 400 * MS).await;
    let daemon = daemon(&[(&server, 1)], "[queue]\nsize = 0").await;
    let first = ask(&daemon, false, &[]);
    until(&daemon, 1, 0).await;
    assert_eq!(ask(&daemon, false, &[]).await.unwrap().0.status, 429);
    assert_eq!(first.await.unwrap().0.verdict(), Verdict::Whole(8));
}

#[tokio::test]
async fn a_caller_that_leaves_is_out_of_the_queue_at_once() {
    let server = server(Shape::Vllm, 3000 * MS).await;
    let daemon = daemon(&[(&server, 1)], "").await;
    let first = ask(&daemon, true, &[]);
    until(&daemon, 1, 0).await;
    let mut socket = UnixStream::connect(daemon.socket()).await.unwrap();
    let body = chat("sim", true, "x").to_string();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    socket.write_all(head.as_bytes()).await.unwrap();
    until(&daemon, 1, 1).await;
    drop(socket);
    let left = Instant::now();
    until(&daemon, 1, 0).await;
    assert!(left.elapsed() < 500 * MS, "{:?}", left.elapsed());
    first.abort();
    let _ = first.await;
    until(&daemon, 0, 0).await;
    assert_eq!(server.counts().received, 1, "it never had the second");
    assert_eq!(daemon.servers().await[0]["standing"], "up", "no fault of its");
}

#[tokio::test]
async fn people_go_before_batch_work_that_came_earlier() {
    let server = server(Shape::Vllm, 150 * MS).await;
    let daemon = daemon(&[(&server, 1)], "").await;
    let first = ask(&daemon, true, &[]);
    until(&daemon, 1, 0).await;
    let batch = ask(&daemon, true, &[("x-lovable-priority", "batch")]);
    until(&daemon, 1, 1).await;
    let person = ask(&daemon, true, &[("x-lovable-priority", "interactive")]);
    let ((_, batch), (_, person)) = (batch.await.unwrap(), person.await.unwrap());
    assert!(person < batch);
    first.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_waits_in_the_queue_is_kept_alive() {
    let server = server(Shape::Vllm, 700 * MS).await;
    let daemon = daemon(&[(&server, 1)], "").await;
    let first = ask(&daemon, true, &[]);
    until(&daemon, 1, 0).await;
    let (second, _) = ask(&daemon, true, &[("x-lovable-open-after-ms", "100")]).await.unwrap();
    assert_eq!(second.verdict(), Verdict::Whole(8));
    assert!(second.text().starts_with(": "), "{}", second.text());
    first.await.unwrap();
}

#[tokio::test]
async fn who_waits_in_vain_is_told_that_all_are_busy() {
    let server = server(Shape::Vllm, 3000 * MS).await;
    let daemon = daemon(&[(&server, 1)], "").await;
    let first = ask(&daemon, true, &[]);
    until(&daemon, 1, 0).await;
    let begun = Instant::now();
    let (second, at) = ask(&daemon, false, &[("x-lovable-timeout-ms", "1500")]).await.unwrap();
    assert_eq!(second.status, 429, "{}", second.text());
    assert!(second.header("retry-after").is_some());
    assert!((at - begun) > 1300 * MS && (at - begun) < 2500 * MS, "{:?}", at - begun);
    first.abort();
}

#[tokio::test]
async fn a_free_server_is_asked_before_anybody_waits_and_all_places_are_used() {
    let (one, other) = (server(Shape::Vllm, 200 * MS).await, server(Shape::LmStudio, 200 * MS).await);
    let daemon = daemon(&[(&one, 2), (&other, 1)], "").await;
    let callers: Vec<_> = (0..12).map(|at| ask(&daemon, at % 2 == 0, &[])).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().0.verdict(), Verdict::Whole(8));
    }
    assert_eq!((one.counts().most_in_flight, other.counts().most_in_flight), (2, 1));
    assert!((3..=5).contains(&other.counts().served), "{:?}", other.counts());
}

#[tokio::test]
async fn who_waits_for_a_server_that_dies_is_served_by_another() {
    let (one, other) = (server(Shape::Vllm, 2000 * MS).await, server(Shape::Vllm, MS).await);
    other.kill().await;
    let mut options = Options::alone().simulated(&one, "a", 0).config("limit = 1");
    options = options.config(&format!("[[servers]]\nurl = \"{}\"\nname = \"b\"", other.endpoint()));
    let daemon = options.start().await;
    let first = ask(&daemon, true, &[]);
    until(&daemon, 1, 0).await;
    let second = ask(&daemon, true, &[]);
    until(&daemon, 1, 1).await;
    one.kill().await;
    other.revive().await;
    for caller in [first, second] {
        let (answer, _) = caller.await.unwrap();
        assert_eq!((answer.verdict(), answer.header("x-lovable-server")), (Verdict::Whole(8), Some("b")));
    }
}

/// Two equal servers, and a daemon that knows no more of them.
async fn twins() -> ([Simulated; 2], Daemon) {
    let twins = [server(Shape::Vllm, MS).await, server(Shape::Vllm, MS).await];
    let daemon = Options::alone().simulated(&twins[0], "a", 0).simulated(&twins[1], "b", 0).start().await;
    (twins, daemon)
}

async fn who(daemon: &Daemon, path: &str, body: Value, session: Option<&str>) -> String {
    let headers: Vec<_> = session.map(|it| ("x-lovable-session", it)).into_iter().collect();
    let answer =
        daemon.caller().send(request("POST", path, body.to_string().into(), &headers)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-lovable-server").unwrap().to_owned()
}

#[tokio::test]
async fn a_conversation_stays_with_its_server_and_conversations_spread() {
    let (_twins, daemon) = twins().await;
    let mut homes = std::collections::BTreeSet::new();
    for number in 0..12 {
        let first = json!({"role": "user", "content": format!("conversation {number}")});
        let mut turns = vec![json!({"role": "system", "content": "be brief"}), first.clone()];
        let home = who(&daemon, CHAT, json!({"model": "sim", "messages": turns}), None).await;
        for turn in 0..4 {
            turns.push(json!({"role": "assistant", "content": "w1 w2"}));
            turns.push(json!({"role": "user", "content": format!("and {turn}")}));
            let again = who(&daemon, CHAT, json!({"model": "sim", "messages": turns}), None).await;
            assert_eq!(again, home, "turn {turn} of {number}");
        }
        let theirs = json!({"model": "sim", "max_tokens": 9, "system": "be brief", "messages": [first]});
        assert_eq!(who(&daemon, "/v1/messages", theirs, None).await, home, "in whatever language");
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2);
}

#[tokio::test]
async fn a_session_stays_together_and_leaves_a_server_that_died() {
    let (twins, daemon) = twins().await;
    let ask =
        |number: usize| who(&daemon, CHAT, chat("sim", false, &format!("question {number}")), Some("mine"));
    let home = ask(0).await;
    for number in 1..10 {
        assert_eq!(ask(number).await, home);
    }
    twins[usize::from(home == "b")].kill().await;
    let other = ask(10).await;
    assert_ne!(other, home);
    twins[usize::from(home == "b")].revive().await;
    daemon.until("both are up", |servers| servers.iter().all(|it| it["standing"] == "up")).await;
    for number in 11..20 {
        assert_eq!(ask(number).await, other, "that one has it now");
    }
}
