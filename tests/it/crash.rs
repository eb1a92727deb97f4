//! SIGKILL of the daemon at any moment, under load, while servers come and go.

use std::{collections::BTreeSet, time::Duration};

use lovable::simulate::{Offer, Script, Shape, Simulated};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    caller::chat,
    daemon::{Daemon, Options},
    proof::{Table, times},
};

fn script() -> Script {
    let between = Duration::from_millis(2);
    Script { models: vec![Offer::named("crash-sim")], words: 20, between, ..Script::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_confirmed_is_lost_when_the_daemon_is_killed() {
    let rounds = times(5, 50);
    let steady = Simulated::start(Shape::Vllm, script()).await.unwrap();
    let mut daemon = Options::alone().simulated(&steady, "steady", 0).start().await;
    let mut added: Vec<(Simulated, String)> = Vec::new();
    let mut drained = BTreeSet::new();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let load = tokio::spawn(hammer(daemon.caller()));
        let coming = tokio::spawn(come_and_go(daemon.caller()));
        // One server is confirmed in each round, and every other one drained.
        let server = Simulated::start(Shape::OpenAi, script()).await.unwrap();
        let id = add(&daemon, &server).await;
        if round % 2 == 0 {
            let answer = daemon.caller().post(&format!("/lovable/v1/servers/{id}/drain"), &json!({})).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            drained.insert(id.clone());
        }
        added.push((server, id));
        sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        daemon.kill().await;
        load.abort();
        coming.abort();

        let start = Instant::now();
        daemon.start_again();
        daemon.until_answering().await;
        slowest = slowest.max(start.elapsed());
        let servers = daemon.servers().await;
        let lost = missing(&servers, &added, &drained);
        assert!(lost.is_empty(), "round {round} lost {lost:?}; it has {servers:#?}\n{}", daemon.log());
        daemon.until_ready().await;
        let answer = daemon.caller().chat("crash-sim", false).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut table =
        Table::new("SIGKILL of the daemon", &["kills", "servers confirmed", "lost", "slowest start"]);
    table.row(&[&rounds, &added.len(), &0, &format!("{} ms", slowest.as_millis())]);
    table.show();
}

/// What was confirmed and is not there.
fn missing(servers: &[Value], added: &[(Simulated, String)], drained: &BTreeSet<String>) -> Vec<String> {
    let mut lost = Vec::new();
    for (server, id) in added {
        let url = server.endpoint().to_string();
        match servers.iter().find(|it| it["id"] == id.as_str()) {
            None => lost.push(format!("{id} is not known")),
            Some(it) if it["url"] != url.as_str() => lost.push(format!("{id} has the address {}", it["url"])),
            Some(it) if (it["admission"] == "draining") != drained.contains(id) => {
                lost.push(format!("{id} is {}", it["admission"]));
            }
            Some(_) => {}
        }
    }
    lost
}

/// Adds a server and waits until the daemon says which one it is.
async fn add(daemon: &Daemon, server: &Simulated) -> String {
    let url = server.endpoint().to_string();
    let answer = daemon.caller().post("/lovable/v1/servers", &json!({ "url": url })).await;
    assert!(matches!(answer.status, 200..=202), "{} {}", answer.status, answer.text());
    let servers = daemon
        .until("an added server is known", |servers| servers.iter().any(|it| it["url"] == url.as_str()))
        .await;
    let known = servers.iter().find(|it| it["url"] == url.as_str()).unwrap();
    known["id"].as_str().unwrap().to_owned()
}

/// Requests without end; what becomes of them does not matter here.
async fn hammer(caller: crate::caller::Caller) {
    let each = (0..4).map(|number| {
        let caller = caller.clone();
        async move {
            loop {
                let _ = caller.chat("crash-sim", number % 2 == 0).await;
                sleep(Duration::from_millis(1)).await;
            }
        }
    });
    futures_util::future::join_all(each).await;
}

/// Servers that are added and vanish again, so that the registry is always being written.
async fn come_and_go(caller: crate::caller::Caller) {
    loop {
        let server = Simulated::start(Shape::LlamaCpp, script()).await.unwrap();
        let url = server.endpoint().to_string();
        let _ = caller.try_post("/lovable/v1/servers", &json!({ "url": url })).await;
        sleep(Duration::from_millis(5)).await;
        server.kill().await;
    }
}

#[tokio::test]
async fn a_known_server_is_usable_at_once_after_a_restart() {
    let server = Simulated::start(Shape::Vllm, script()).await.unwrap();
    let mut daemon = Options::alone().simulated(&server, "known", 0).start().await;
    daemon.kill().await;
    daemon.start_again();
    daemon.until_answering().await;
    let answer =
        daemon.caller().post("/v1/chat/completions", &chat("crash-sim", false, "Count for me.")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
