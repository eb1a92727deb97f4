//! What is changed while it runs: the configuration, however it is written, and the models
//! that servers keep on the disk.

mod edit;
mod models;
mod proof;

use std::{fs, path::PathBuf, time::Duration};

use lovable::simulate::{Script, Shape, Simulated};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::daemon::{Daemon, Options};

/// An edit is in force long before that, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(15);

/// A server that says numbered words for a model of this name.
async fn server(model: &str) -> Simulated {
    let script = Script { models: vec![lovable::simulate::Offer::named(model)], ..Script::default() };
    Simulated::start(Shape::Vllm, script).await.unwrap()
}

fn entry(server: &Simulated, more: &str) -> String {
    format!("[[servers]]\nurl = \"{}\"\n{more}\n", server.endpoint())
}

/// A daemon with these lines in its configuration, which has seen the servers in them.
async fn with(lines: &str) -> Daemon {
    let daemon = Options::alone().config(lines).start().await;
    let named = lines.matches("[[servers]]").count();
    let are_up = |servers: &[Value]| servers.iter().filter(|it| it["standing"] == "up").count() == named;
    daemon.until("the servers are up", are_up).await;
    daemon
}

/// The configuration of a daemon that finds nothing by itself, with these lines.
fn configuration(lines: &str) -> String {
    Options::alone().config(lines).text()
}

/// Writes it as a shell does: cut off, then written.
fn write(daemon: &Daemon, lines: &str) {
    fs::write(daemon.configuration(), configuration(lines)).unwrap();
}

/// Puts it in the place of the old one, as editors do.
fn replace(daemon: &Daemon, lines: &str) {
    let new: PathBuf = daemon.configuration().with_extension("new");
    fs::write(&new, configuration(lines)).unwrap();
    fs::rename(new, daemon.configuration()).unwrap();
}

/// A setting as the daemon says that it is in force.
async fn setting(daemon: &Daemon, key: &str) -> Option<Value> {
    let view = daemon.caller().get("/lovable/v1/config").await.json();
    let found = view["settings"].as_array().unwrap().iter().find(|it| it["key"] == key).cloned();
    found.map(|it| it["value"].clone())
}

async fn reasons(daemon: &Daemon) -> Vec<String> {
    let status = daemon.caller().get("/lovable/v1/status").await.json();
    status["reasons"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// Waits until it is so.
async fn until(what: &str, daemon: &Daemon, mut is: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}\n{}", daemon.log());
        sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

async fn until_setting(daemon: &Daemon, key: &str, value: Value) -> Duration {
    until(&format!("{key} is {value}"), daemon, async || setting(daemon, key).await == Some(value.clone()))
        .await
}

async fn until_reason(daemon: &Daemon, words: &[&str]) {
    let all = |it: &String| words.iter().all(|word| it.contains(word));
    until(&format!("{words:?}"), daemon, async || reasons(daemon).await.iter().any(all)).await;
}

/// The server of that name as the daemon shows it.
async fn shown(daemon: &Daemon, name: &str) -> Option<Value> {
    daemon.servers().await.into_iter().find(|it| it["name"] == name || it["id"] == name)
}
