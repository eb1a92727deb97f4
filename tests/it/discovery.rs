//! How servers are found on this machine, and what is left alone, with the real
//! daemon and listeners of the tests' own.
//!
//! Other tests and other people's servers listen on this machine too: every
//! sentence is about one address.
#![cfg(target_os = "linux")]

mod found;
mod harmless;
pub(crate) mod idle;
mod listener;
mod named;
mod trust;

use std::net::TcpListener;

use lovable::kind;
use serde_json::Value;

use crate::daemon::{Daemon, Options};

/// A daemon that looks at all of this machine, and says what it makes of it.
fn looking() -> Options {
    Options::looking().env("LOVABLE_LOG", "lovable=debug")
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn at<'a>(servers: &'a [Value], url: &str) -> Option<&'a Value> {
    servers.iter().find(|it| it["url"] == url)
}

/// Waits until the server at `url` is as wanted.
async fn until(daemon: &Daemon, url: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let servers = daemon.until(&format!("{url} {what}"), |servers| at(servers, url).is_some_and(&is)).await;
    at(&servers, url).expect("it was there").clone()
}

async fn until_up(daemon: &Daemon, url: &str) -> Value {
    until(daemon, url, "is up", |it| it["standing"] == "up").await
}

/// Waits until the daemon has said this of an address: `recognised`, `something else`, `no answer`.
async fn until_said(daemon: &Daemon, url: &str, word: &str) {
    let end = format!("endpoint={url}");
    daemon
        .until(&format!("{word} of {url}"), |_| {
            daemon.log().lines().any(|it| it.contains(word) && it.split(' ').any(|part| part == end))
        })
        .await;
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A listener on the first free port of some kind's usual ones.
fn usual_port() -> TcpListener {
    let free = kind::usual_ports().into_iter().find_map(|it| TcpListener::bind(("127.0.0.1", it)).ok());
    free.expect("some usual port is free")
}
