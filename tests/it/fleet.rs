//! Fleets that a real DNS server lists: dnsmasq, on the other machine of two.
//!
//! Its fifty vLLM servers are simulated, each behind an address of its own. What other resolvers
//! do wrong is done here by hand.
#![cfg(target_os = "linux")]

mod dns;
mod edits;
mod fifty;
mod trouble;

use std::{future::Future, time::Duration};

use lovable::simulate::Shape;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use self::dns::{Dns, Srv};
use crate::{
    daemon::{Daemon, Options},
    network::{cabled, far::Far, in_own_network},
};

/// Where the resolver is, and what it is asked for.
const RESOLVER: &str = "10.77.0.2";
const SERVICE: &str = "_vllm._tcp.fleet.test";

/// Waiting longer than this for anything that follows from an answer is a failed test. A name
/// that is gone is believed to be so after half a minute.
const PATIENCE: Duration = Duration::from_secs(50);

async fn in_fleet(name: &str, test: impl Future<Output = ()>) {
    if std::process::Command::new("/usr/sbin/dnsmasq").arg("--version").output().is_err() {
        eprintln!("left out: {name}: there is no dnsmasq");
        return;
    }
    in_own_network(&format!("fleet::{name}"), test).await;
}

/// The address of a server of the fleet, by its number.
fn ip(number: usize) -> String {
    format!("10.77.0.{}", 100 + number)
}

fn port(number: usize) -> u16 {
    8000 + number as u16
}

fn url(number: usize) -> String {
    format!("http://{}:{}", ip(number), port(number))
}

/// The other machine with so many servers, each of which pauses so long between two words.
async fn with_servers(many: usize, pause: Duration) -> Far {
    let far = cabled().await;
    for number in 0..many {
        far.ip(&format!("addr add {}/24 dev lan", ip(number))).await;
        far.serve_slowly(Shape::Vllm, port(number), pause).await;
    }
    far
}

/// A daemon that knows what DNS lists and nothing else.
fn listing(lookup: &str) -> Options {
    Options::looking()
        .discovery("socket_table = false\ntrust = []\n")
        .config(&format!("[[discovery.dns]]\n{lookup}\n"))
}

fn lookup() -> String {
    format!("name = \"{SERVICE}\"\nresolver = \"{RESOLVER}\"\nttl_min = \"1s\"\n")
}

/// Changes the configuration while the daemon runs.
fn edit(daemon: &Daemon, from: &str, to: &str) {
    let file = daemon.configuration();
    let config = std::fs::read_to_string(&file).unwrap();
    assert!(config.contains(from), "no {from} in {config}");
    std::fs::write(file, config.replacen(from, to, 1)).unwrap();
}

fn trust(daemon: &Daemon) {
    edit(daemon, "trust = []", "trust = [\"*.fleet.test\"]");
}

/// Waits until so many servers are in use, and returns all.
async fn until_open(daemon: &Daemon, many: usize) -> Vec<Value> {
    until(daemon, &format!("{many} are in use"), |servers| {
        let open = servers.iter().filter(|it| it["admission"] == "open" && it["standing"] == "up");
        open.count() == many && servers.len() == many
    })
    .await
}

async fn until(daemon: &Daemon, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let servers = daemon.servers().await;
        if is(&servers) {
            return servers;
        }
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}: {servers:#?}\n{}", daemon.log());
        sleep(Duration::from_millis(50)).await;
    }
}

/// How the first lookup stands.
async fn lookup_of(daemon: &Daemon) -> Value {
    daemon.caller().get("/lovable/v1/status").await.json()["lookups"][0].clone()
}

/// Waits until something is wrong with the lookup that is said in these words; `None`: until
/// nothing is.
async fn until_said(daemon: &Daemon, words: Option<&str>) -> Value {
    let begun = Instant::now();
    loop {
        let lookup = lookup_of(daemon).await;
        let trouble = lookup["trouble"].as_str();
        if trouble.is_none() == words.is_none() && words.is_none_or(|it| trouble.unwrap_or("").contains(it)) {
            return lookup;
        }
        assert!(begun.elapsed() < PATIENCE, "{words:?} is not said: {lookup}\n{}", daemon.log());
        sleep(Duration::from_millis(50)).await;
    }
}
