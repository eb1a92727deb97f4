//! The feed, `GET /lovable/v1/events`.

use std::time::Duration;

use lovable::simulate::{Script, Shape, Simulated};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::{Instant, timeout},
};

use super::quick;
use crate::daemon::{Daemon, Options};

/// One who listens.
struct Listener(BufReader<UnixStream>);

impl Listener {
    async fn start(daemon: &Daemon) -> Self {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream.write_all(b"GET /lovable/v1/events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        Self(BufReader::new(stream))
    }

    async fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = timeout(Duration::from_secs(20), self.0.read_line(&mut line)).await;
            assert!(read.expect("an event in time").unwrap() > 0, "the feed ended");
            if let Some(json) = line.trim_end().strip_prefix("data: ") {
                return serde_json::from_str(json).unwrap();
            }
        }
    }

    /// The next one of that name.
    async fn until(&mut self, name: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["event"] == name {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn the_feed_opens_with_all_there_is_and_tells_what_changes() {
    let script = Script { words: 40, between: Duration::from_millis(50), ..Script::default() };
    let slow = Simulated::start(Shape::Vllm, script).await.unwrap();
    let daemon = Options::alone().simulated(&slow, "slow", 0).start().await;
    let mut early = Listener::start(&daemon).await;
    let state = early.next().await;
    assert_eq!((&state["event"], &state["missed"]), (&"state".into(), &Value::Null));
    assert_eq!((&state["servers"][0]["id"], &state["models"][0]["name"]), (&"slow".into(), &"sim".into()));
    assert_eq!(state["requests"], serde_json::json!([]));

    let caller = daemon.caller();
    let asking = tokio::spawn(async move { caller.chat("sim", true).await.unwrap() });
    let begun = early.until("begun").await["request"].clone();
    assert_eq!((&begun["asked"], &begun["dialect"]), (&"sim".into(), &"openai".into()));
    let mut late = Listener::start(&daemon).await;
    assert_eq!(late.next().await["requests"][0], begun, "whoever comes later sees it run");
    let hardware = early.until("hardware").await;
    assert!(hardware["hardware"]["memory_used_bytes"].is_u64(), "{hardware}");
    let over = early.until("request").await["request"].clone();
    assert_eq!((&over["request_id"], &over["ending"]), (&begun["request_id"], &"delivered".into()));
    let id = asking.await.unwrap().header("x-lovable-request-id").unwrap().to_owned();
    assert_eq!(over["request_id"], id.as_str());

    assert_eq!(daemon.ctl(&["servers", "drain", "slow"]).await.status.code(), Some(0));
    let server = early.until("server").await;
    assert_eq!(server["server"]["admission"], "draining");
    assert_eq!(early.until("model_gone").await["name"], "sim", "nobody may be asked for it");
    assert_eq!(daemon.ctl(&["servers", "resume", "slow"]).await.status.code(), Some(0));
    assert_eq!(early.until("model").await["model"]["name"], "sim");
}

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_missed_and_sees_all_anew() {
    let server = quick(Shape::Vllm).await;
    let daemon = Options::alone().simulated(&server, "quick", 0).start().await;
    let mut listener = Listener::start(&daemon).await;
    assert_eq!(listener.next().await["event"], "state");
    // It reads nothing, until more has happened than is kept for it and than fits in between.
    let start = Instant::now();
    let mut asked = 0;
    while asked < 2_000 {
        let all = (0..20).map(|_| {
            let caller = daemon.caller();
            async move { caller.chat("nothing-of-that-name", false).await.unwrap() }
        });
        futures_util::future::join_all(all).await;
        asked += 20;
    }
    let mut heard = 0_u64;
    let again = loop {
        let event = listener.next().await;
        match event["event"].as_str().unwrap() {
            "state" => break event,
            "begun" | "request" => heard += 1,
            _ => {}
        }
    };
    let missed = again["missed"].as_u64().unwrap();
    assert!(missed > 0 && heard < 2 * asked, "{heard} heard, {missed} missed in {:?}", start.elapsed());
    assert_eq!(again["servers"][0]["id"], "quick");
}
