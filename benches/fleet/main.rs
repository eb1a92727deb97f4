//! What many servers cost: a table by size.
//!
//! ```text
//! cargo bench --bench fleet -- [--short] [SIZE...]
//! ```
//!
//! Each server has ten models of its own and one that all have. Deciding is measured in this
//! process, on the registry alone; lists, memory and idleness on a daemon that was told of that
//! many simulated servers. They are servers of a network, which are reached for as well as asked:
//! as root this runs in a network of its own (`unshare`). Without root they are on loopback, and
//! the table says so.
//!
//! It never fails for being slow: it prints what it is like.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a table is what it is run for")]

#[path = "../../tests/it/caller.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it belongs to the tests, which use more of it")]
mod caller;
#[path = "../../tests/it/daemon.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it belongs to the tests, which use more of it")]
mod daemon;
mod decide;
mod whole;

use std::{net::IpAddr, process::Command};

/// Models that only one server has, for each server.
pub(crate) const MODELS: usize = 10;

/// Set in the process that runs in a network of its own.
const INSIDE: &str = "LOVABLE_BENCH_INSIDE";

/// Where the servers of that network are.
const FLEET: [u8; 4] = [10, 88, 0, 1];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let inside = std::env::var_os(INSIDE).is_some();
    if !inside && rustix::process::geteuid().is_root() {
        let this = std::env::current_exe().expect("this program has a path");
        let run = Command::new("unshare").arg("--net").arg(this).args(&args).env(INSIDE, "1").status();
        if run.is_ok_and(|it| it.success()) {
            return;
        }
    }
    if inside {
        for words in [
            "link set lo up",
            "link add fleet type veth peer name fleet-end",
            "addr add 10.88.0.1/16 dev fleet",
            "link set fleet up",
            "link set fleet-end up",
        ] {
            let done = Command::new("/usr/sbin/ip").args(words.split(' ')).status();
            assert!(done.is_ok_and(|it| it.success()), "ip {words}");
        }
    }
    // A thousand servers are more than the usual thousand files.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = rustix::process::Rlimit { current: most, maximum: most };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let short = args.iter().any(|it| it == "--short");
    let sizes: Vec<usize> = args.iter().filter_map(|it| it.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![10, 100, 1000] } else { sizes };
    let at = IpAddr::from(if inside { FLEET } else { [127, 0, 0, 1] });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut columns = Vec::new();
    for servers in sizes {
        eprintln!("measuring {servers} servers …");
        let mut rows = decide::measure(servers);
        rows.extend(runtime.block_on(whole::measure(servers, at, short)));
        columns.push((servers, rows));
    }
    let place = if inside { "of a network" } else { "on loopback" };
    println!("servers {place}, each with {MODELS} models of its own and one that all have\n");
    print!("{:<58}", "servers");
    columns.iter().for_each(|(servers, _)| print!("{servers:>16}"));
    println!();
    let Some((_, first)) = columns.first() else { return };
    for (at, (name, _)) in first.iter().enumerate() {
        print!("{name:<58}");
        columns.iter().for_each(|(_, rows)| print!("{:>16}", rows[at].1));
        println!();
    }
}
