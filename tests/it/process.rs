//! Simulated servers in processes of their own, which can be killed and frozen as real ones.
//!
//! Such a process is this test program once more, told to run one test only: the
//! one below, which is a server for as long as its parent lives.

use std::{io::Write as _, process::Stdio, time::Duration};

use lovable::{
    server::Endpoint,
    simulate::{At, Script, Shape, Simulated},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::real::odd_port;

/// Where it listens and what it is: its port, the number of its shape, its words and the
/// milliseconds before the first and between two of them.
const ORDERS: &str = "LOVABLE_TEST_SERVER";
/// What it says once it listens.
const READY: &str = "the server is ready";
/// How many requests it works on at once.
const SLOTS: u32 = 16;
/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) words: usize,
    pub(crate) before: Duration,
    pub(crate) between: Duration,
}

/// A simulated server in a process of its own; dropping it kills it.
pub(crate) struct Process {
    shape: Shape,
    pace: Pace,
    port: u16,
    child: Child,
}

impl Process {
    /// Starts it on a free port, which stays its own.
    pub(crate) async fn start(shape: Shape, pace: Pace) -> Self {
        let port = odd_port().await;
        Self { shape, pace, port, child: spawn(shape, pace, port).await }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("http://127.0.0.1:{}", self.port)).unwrap()
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again on the same port, after a kill.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(self.shape, self.pace, self.port).await;
    }

    /// Stops it with SIGSTOP: its connections stay open, new ones are taken by the system,
    /// and not a byte comes.
    pub(crate) fn freeze(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }
}

/// Sends a signal to a process that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

async fn spawn(shape: Shape, pace: Pace, port: u16) -> Child {
    let number = Shape::ALL.iter().position(|it| *it == shape).unwrap();
    let Pace { words, before, between } = pace;
    let orders = format!("{port} {number} {words} {} {}", before.as_millis(), between.as_millis());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::a_server_for_as_long_as_its_parent_lives", "--nocapture"]);
    command.env(ORDERS, orders).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.ends_with(READY) {
                return true;
            }
        }
        false
    };
    assert!(timeout(PATIENCE, ready).await.expect("it is ready in time"), "it ended before it was ready");
    // After a minute the test program says that it is slow, and must find somebody who listens.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

/// Run as a test among the others it is told nothing, and only shows that this is so.
#[tokio::test]
async fn a_server_for_as_long_as_its_parent_lives() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Vec<u64> = orders.split(' ').map(|it| it.parse().unwrap()).collect();
    let [port, shape, words, before, between] = orders[..] else { panic!("{orders:?}") };
    let script = Script {
        words: words as usize,
        before: Duration::from_millis(before),
        between: Duration::from_millis(between),
        slots: SLOTS,
        ..Script::default()
    };
    let shape = Shape::ALL[shape as usize];
    let _server = Simulated::start_at(shape, script, At::Port(port as u16)).await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "{READY}").unwrap();
    out.flush().unwrap();
    // The parent holds the other end for as long as it lives.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
}
