//! Servers of other machines: this one and another one, each with a network of its own and a
//! cable between them.
//!
//! A test runs once more in a network of its own (`unshare`), which is what this machine is
//! then; there it starts one more process in a second network, which is the other machine.
//! None of it has a name, so nothing is left behind whatever happens, and nothing of it reaches
//! a real interface. It takes root; without it the tests say that they were left out.
#![cfg(target_os = "linux")]

mod cost;
pub(crate) mod far;
mod forged;
mod journey;
mod lovables;
mod packet;
mod times;

use std::{future::Future, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::process::Command;

use self::far::Far;
use crate::daemon::{Daemon, Options};

/// Set in the process that runs inside.
const INSIDE: &str = "LOVABLE_TEST_AT_HOME";

/// This machine, and the other one.
const HOME: &str = "10.77.0.1";
const FAR: &str = "10.77.0.2";

/// Runs the test of this name in a network of its own.
async fn at_home(name: &str, test: impl Future<Output = ()>) {
    in_own_network(&format!("network::{name}"), test).await;
}

/// The same of a test with this whole name.
pub(crate) async fn in_own_network(name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        return test.await;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: {name}: a network of its own needs root");
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--include-ignored"]);
    command.env(INSIDE, "1").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.expect("unshare of util-linux is there");
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    // Tables are for whoever runs the suite.
    eprintln!("{said}");
}

/// Two machines with a cable between them.
pub(crate) async fn cabled() -> Far {
    ip("link set lo up").await;
    ip("link add home type veth peer name cable").await;
    let far = Far::start().await;
    ip(&format!("link set cable netns {}", far.pid())).await;
    ip(&format!("addr add {HOME}/24 dev home")).await;
    ip("link set home up").await;
    // A switch stands between the cable and the other machine: what is pulled out there is not
    // seen here.
    far.ip("link set lo up").await;
    far.ip("link add lan type bridge").await;
    far.ip(&format!("addr add {FAR}/24 dev lan")).await;
    far.ip("link set lan up").await;
    far.ip("link set cable up").await;
    far.plug().await;
    far
}

/// A daemon that knows of no server but those that are announced.
fn listening() -> Options {
    Options::listening().env("LOVABLE_LOG", "lovable=debug")
}

async fn ip(args: &str) {
    run(Command::new("ip"), args).await;
}

async fn run(mut command: Command, args: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.args(args.split(' ')).env("PATH", path);
    let output = command.output().await.expect("ip of iproute2 is there");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

fn url(ip: &str, port: u16) -> String {
    format!("http://{ip}:{port}")
}

fn at<'a>(servers: &'a [Value], url: &str) -> Option<&'a Value> {
    servers.iter().find(|it| it["url"] == url)
}

/// Waits until the server at `url` is as wanted.
async fn until(daemon: &Daemon, url: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let servers = daemon.until(&format!("{url} {what}"), |servers| at(servers, url).is_some_and(&is)).await;
    at(&servers, url).expect("it was there").clone()
}

/// Longer than anything that follows from what was announced takes.
const FOR_SURE: Duration = Duration::from_secs(3);
