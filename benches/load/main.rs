//! What lovable adds, with HAProxy as the yardstick.
//!
//! ```text
//! cargo bench --bench load -- [--short] [--tcp] [--only WORD]
//! ```
//!
//! Simulated servers run in a process of their own. Each measure goes direct,
//! through HAProxy (where it is installed, as a plain proxy with one thread) and
//! through `lovabled`, in slices that take turns, so that what the machine does
//! meanwhile hits all three alike. The proxies share core 0 and have it to
//! themselves, since only one is busy at a time; core 1 has servers and client.
//! Callers come over Unix sockets, or with `--tcp` over loopback for all.
//! On a machine with one core nothing is pinned, and the table says so.
//!
//! It never fails for being slow: it prints what was met and what was missed.

#![expect(clippy::print_stdout, reason = "a table is what it is run for")]

#[path = "../../tests/it/caller.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it belongs to the tests, which use more of it")]
mod caller;
mod client;
#[path = "../../tests/it/daemon.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it belongs to the tests, which use more of it")]
mod daemon;
mod measure;
mod process;
mod table;
mod translation;

use std::{collections::BTreeMap, time::Duration};

use lovable::server::Endpoint;

use self::{
    client::Door,
    daemon::{Daemon, Options},
    process::{Cores, Process},
    table::Report,
};

/// A way from the client to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Direct,
    HaProxy,
    Lovable,
}

/// Everything that is running.
pub(crate) struct Scene {
    pub(crate) short: bool,
    ports: BTreeMap<String, u16>,
    doors: Option<BTreeMap<String, u16>>,
    listen: u16,
    directory: tempfile::TempDir,
    pub(crate) cores: Option<Cores>,
    pub(crate) haproxy: Option<Process>,
    pub(crate) daemon: Daemon,
    _servers: Process,
}

impl Scene {
    /// How a client gets to `server` by `way`.
    pub(crate) fn door(&self, way: Way, server: &str) -> Door {
        match (way, &self.doors) {
            (Way::Direct, _) => Door::Tcp(self.ports[server]),
            (Way::HaProxy, None) => Door::Unix(self.directory.path().join(format!("{server}.sock"))),
            (Way::HaProxy, Some(doors)) => Door::Tcp(doors[server]),
            (Way::Lovable, None) => Door::Unix(self.daemon.socket()),
            (Way::Lovable, Some(_)) => Door::Tcp(self.listen),
        }
    }

    /// The ways there are, in the order of their first slice.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let all = [Way::Direct, Way::HaProxy, Way::Lovable];
        all.into_iter().filter(|way| *way != Way::HaProxy || self.haproxy.is_some()).collect()
    }

    pub(crate) fn pid(&self, way: Way) -> Option<u32> {
        match way {
            Way::Direct => None,
            Way::HaProxy => self.haproxy.as_ref().map(Process::id),
            Way::Lovable => Some(self.daemon.pid()),
        }
    }

    /// One of two lengths.
    pub(crate) fn pick<T>(&self, short: T, full: T) -> T {
        if self.short { short } else { full }
    }

    /// The servers as configured for a daemon.
    pub(crate) fn known(&self, options: Options) -> Options {
        known(options, &self.ports)
    }
}

fn known(options: Options, ports: &BTreeMap<String, u16>) -> Options {
    ports.iter().fold(options, |options, (name, port)| {
        options.server(&Endpoint::tcp([127, 0, 0, 1].into(), *port), name, 0)
    })
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if has("simulate") {
        return runtime().block_on(process::simulate());
    }
    // A thousand open streams are more than the usual thousand files.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = rustix::process::Rlimit { current: most, maximum: most };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let several = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let cores = (several && process::pin_self(1)).then_some(Cores { proxy: 0, rest: 1 });
    let only = args.iter().position(|arg| arg == "--only").and_then(|at| args.get(at + 1)).cloned();
    runtime().block_on(run(has("--short"), has("--tcp"), cores, only));
}

async fn run(short: bool, tcp: bool, cores: Option<Cores>, only: Option<String>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (servers, ports) = process::servers(cores);
    let doors: Option<BTreeMap<String, u16>> =
        tcp.then(|| ports.keys().map(|name| (name.clone(), free_port())).collect());
    let haproxy = process::haproxy(directory.path(), &ports, doors.as_ref(), cores);
    let listen = free_port();
    let mut options = known(Options::alone(), &ports);
    if tcp {
        options = options.arg("--listen").arg(&format!("127.0.0.1:{listen}"));
    }
    let pin = cores.map(|it| it.proxy.to_string());
    if let Some(core) = &pin {
        options = options.under(&["taskset", "-c", core]);
    }
    let daemon = options.start().await;
    let scene = Scene { short, ports, doors, listen, directory, cores, haproxy, daemon, _servers: servers };
    let mut report = Report::new(&scene, tcp);
    for (name, measure) in measure::ALL {
        if only.as_ref().is_none_or(|word| name.contains(word.as_str())) {
            eprintln_progress(name);
            measure(&scene, &mut report).await;
        }
    }
    println!("{report}");
    // The daemon stops before its servers, so that its log stays quiet.
    let Scene { mut daemon, _servers, .. } = scene;
    let _ = tokio::time::timeout(Duration::from_secs(5), daemon.stop()).await;
}

#[expect(clippy::print_stderr, reason = "a run takes minutes")]
fn eprintln_progress(name: &str) {
    eprintln!("measuring {name} …");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    listener.local_addr().expect("it is bound").port()
}
