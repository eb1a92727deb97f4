//! The life of the daemon as a process: how it starts, who may speak to it, how
//! it stops, and what it remembers.
//!
//! Each test has a [`Home`] of its own in which every path is a default one, so
//! that what is tested is what people get. What needs root is left out without it.

mod background;
mod command;
mod door;
mod settings;
mod signals;
mod socket;
mod store;
pub(crate) mod upgrade;

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use lovable::{kind::usual_ports, simulate::Simulated};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{caller::Caller, daemon::clean};

/// Waiting longer than this is a failed test. Shorter than running answers are
/// given at the end, so that a daemon which waits for nobody is noticed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

pub(crate) const LOVABLED: &str = env!("CARGO_BIN_EXE_lovabled");
pub(crate) const LOVABLECTL: &str = env!("CARGO_BIN_EXE_lovablectl");

/// The directories of one user.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    /// Whose daemon finds no server but those it is told of.
    pub(crate) fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for name in ["home", "run", "state", "config/lovable"] {
            fs::create_dir_all(home.at(name)).unwrap();
        }
        fs::set_permissions(home.at("run"), Permissions::from_mode(0o700)).unwrap();
        home.configure("");
        home
    }

    /// The same, with a server.
    pub(crate) fn with(server: &Simulated) -> Self {
        let home = Self::new();
        home.configure(&entry(server));
        home
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, lines: &str) {
        let alone =
            format!("[discovery]\nmdns = false\nsocket_table = false\nskip_ports = {:?}\n", usual_ports());
        fs::write(self.at("config/lovable/config.toml"), alone + lines).unwrap();
    }

    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where the socket is unless somebody says otherwise.
    pub(crate) fn socket(&self) -> PathBuf {
        self.at("run/lovable/lovabled.sock")
    }

    /// Where the state is unless somebody says otherwise.
    pub(crate) fn state(&self) -> PathBuf {
        self.at("state/lovable")
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::unix(self.socket())
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.at("log")).unwrap_or_default()).into_owned()
    }

    /// A program that sees this home and nothing else of the machine.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = clean(Path::new(program.as_ref()), self.0.path());
        command.env("XDG_STATE_HOME", self.at("state")).env("XDG_CONFIG_HOME", self.at("config"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn lovabled(&self, args: &[&str]) -> Command {
        let mut command = self.command(LOVABLED);
        command.args(args);
        command
    }

    /// Runs `lovablectl` to its end.
    pub(crate) async fn ctl(&self, args: &[&str]) -> Output {
        let mut command = self.command(LOVABLECTL);
        command.args(args);
        output(command).await
    }

    /// Starts a daemon and waits until it answers on the usual socket.
    pub(crate) async fn start(&self, args: &[&str]) -> Running {
        let running = self.spawn(self.lovabled(args));
        self.answering(running, &self.socket()).await
    }

    /// Starts what ends as a daemon; what it says goes to the log of this home.
    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        let log = File::options().create(true).append(true).open(self.at("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    /// Waits until a daemon answers on a socket.
    pub(crate) async fn answering(&self, mut running: Running, socket: &Path) -> Running {
        let caller = Caller::unix(socket);
        until("lovabled answers", async || {
            if let Some(status) = running.0.try_wait().unwrap() {
                panic!("lovabled ended with {status}:\n{}", self.log());
            }
            caller.try_get("/healthz").await.ok().filter(|it| it.status == 200)
        })
        .await;
        running
    }

    /// Waits until a server is usable.
    pub(crate) async fn ready(&self) {
        until("a server is up", async || {
            let servers = self.caller().get("/lovable/v1/servers").await.json();
            let servers = servers["servers"].as_array().unwrap().clone();
            servers.iter().any(|it| it["standing"] == "up").then_some(())
        })
        .await;
    }

    pub(crate) async fn status(&self) -> Value {
        self.caller().get("/lovable/v1/status").await.json()
    }
}

/// A daemon in the foreground; dropping it kills it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().unwrap() as i32).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// How it ends.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.0.wait()).await.expect("lovabled ends in time").unwrap()
    }

    /// Stops it as a service manager would.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended().await.code(), Some(0));
    }

    /// Kills it without a warning.
    pub(crate) async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }
}

/// A server for the configuration.
pub(crate) fn entry(server: &Simulated) -> String {
    format!("[[servers]]\nurl = \"{}\"\n", server.endpoint())
}

/// Runs a program to its end.
pub(crate) async fn output(mut command: Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap()
}

/// Asserts how a program ended, and that what it said mentions something.
#[track_caller]
pub(crate) fn check(output: &Output, code: i32, says: &[&str]) {
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert_eq!(output.status.code(), Some(code), "{said}");
    for words in says {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }
}

/// Waits until there is something.
pub(crate) async fn until<T>(what: &str, mut is: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = is().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Whether we may do what only root may. A test that needs it says that it was left out.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("left out: it needs root");
    }
    root
}

/// `curl` as another user.
pub(crate) fn curl_as_nobody(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-sS", "-m", "20"]);
    command.args(args);
    command
}
