//! How it stops, and what does not stop it.

use std::{process::Stdio, time::Duration};

use lovable::simulate::{Script, Shape, Simulated};
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::{
    caller::{Answer, Verdict, exchange, request},
    lifecycle::{Home, Running, check, until},
};

/// A daemon with a server that takes its time, and a stream that runs.
async fn streaming(words: usize, between: Duration) -> (Home, Running, Stream) {
    let script = Script { words, between, ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let home = Home::with(&server);
    let running = home.start(&[]).await;
    home.ready().await;
    let caller = home.caller();
    let answer = tokio::spawn(async move {
        let answer = caller.chat("sim", true).await;
        // The server lives as long as its answer.
        drop(server);
        answer
    });
    until("the stream runs", async || (home.status().await["requests"]["in_flight"] == 1).then_some(()))
        .await;
    (home, running, answer)
}

type Stream = tokio::task::JoinHandle<std::io::Result<Answer>>;

async fn refused(home: &Home) {
    until("nothing new is taken", async || UnixStream::connect(home.socket()).await.err()).await;
}

#[tokio::test]
async fn running_answers_end_whole_before_it_leaves_and_nothing_new_is_taken() {
    let (home, mut running, stream) = streaming(40, Duration::from_millis(40)).await;
    // None of these has anything that it could finish.
    let _fresh = UnixStream::connect(home.socket()).await.unwrap();
    let mut idle = home.caller().connect().await.unwrap();
    exchange(&mut idle, request("GET", "/healthz", bytes::Bytes::new(), &[])).await.unwrap();
    let follower = tokio::spawn({
        let caller = home.caller();
        async move { caller.get("/lovable/v1/events").await }
    });
    let mut reader = home.command(super::LOVABLECTL);
    reader.arg("events").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reader = reader.spawn().unwrap();
    let mut said = BufReader::new(reader.stdout.take().unwrap()).lines();
    let follows = async {
        while !said.next_line().await.unwrap().expect("it follows the feed").contains("is up: vllm") {}
    };
    timeout(super::PATIENCE, follows).await.unwrap();
    until("the feed is followed by the caller too", async || (connections(&home) >= 5).then_some(())).await;

    running.signal(Signal::TERM);
    refused(&home).await;
    assert!(!stream.is_finished());
    let answer = stream.await.unwrap().unwrap();
    assert_eq!(answer.verdict(), Verdict::Whole(40), "{}", answer.text());
    assert_eq!(running.ended().await.code(), Some(0), "{}", home.log());
    assert!(!home.socket().exists());
    assert!(!home.log().contains("were cut"), "{}", home.log());
    let feed = follower.await.unwrap();
    assert!(feed.clean && feed.text().starts_with("data: {"), "{feed:?}");
    let output = timeout(super::PATIENCE, reader.wait_with_output()).await.unwrap().unwrap();
    check(&output, 1, &["ended the feed"]);
}

/// Connections of the daemon's socket that are open, as the system counts them.
fn connections(home: &Home) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = home.socket().display().to_string();
    // 03 is a connected socket; the listening one is 01.
    table.lines().filter(|it| it.ends_with(&path) && it.split_whitespace().nth(5) == Some("03")).count()
}

#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let (home, mut running, stream) = streaming(1000, Duration::from_secs(1)).await;
    running.signal(Signal::INT);
    refused(&home).await;
    assert!(!stream.is_finished());
    running.signal(Signal::TERM);
    assert_eq!(running.ended().await.code(), Some(0), "{}", home.log());
    assert!(!home.socket().exists());
    // The cut answer must not look whole.
    if let Ok(answer) = stream.await.unwrap() {
        assert!(!matches!(answer.verdict(), Verdict::Whole(_)), "{}", answer.text());
    }
}

#[tokio::test]
async fn other_signals_do_not_stop_it() {
    let home = Home::new();
    let running = home.start(&[]).await;
    for signal in [Signal::HUP, Signal::USR1, Signal::HUP] {
        running.signal(signal);
    }
    until("the signals have come", async || {
        (home.log().matches("told to read the configuration again").count() > 0).then_some(())
    })
    .await;
    assert_eq!(home.caller().get("/healthz").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let home = Home::new();
    let mut command = home.lovabled(&["-v"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let running = home.answering(Running(child), &home.socket()).await;
    for _ in 0..3 {
        running.signal(Signal::HUP);
        assert_eq!(home.caller().get("/healthz").await.status, 200);
    }
    running.stop().await;
}
