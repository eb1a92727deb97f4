//! Starts the built `lovabled` on a directory of its own and stops it again.
//!
//! Nothing of the machine's own configuration, environment or state is seen by
//! it. Dropping a `Daemon` kills it.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use lovable::{kind, server::Endpoint, simulate::Simulated};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::caller::Caller;

/// Waiting longer than this for anything that a daemon does is a failed test.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    config: String,
    servers: usize,
    env: Vec<(String, String)>,
    args: Vec<String>,
    under: Vec<String>,
    state: Option<PathBuf>,
}

impl Options {
    /// A daemon that knows of no server but those it is told of, whatever else listens on this machine.
    pub(crate) fn alone() -> Self {
        Self::default().config(&format!(
            "[discovery]\nmdns = false\nsocket_table = false\nskip_ports = {:?}\n",
            kind::usual_ports()
        ))
    }

    /// A daemon that looks at all of this machine, and says nothing to the network.
    pub(crate) fn looking() -> Self {
        Self::default().config("[discovery]\nmdns = false\n")
    }

    /// A daemon that knows of no server but those that are announced in the network. They have the
    /// ports that servers usually have, so no port is skipped.
    pub(crate) fn listening() -> Self {
        Self::default().config("[discovery]\nmdns = true\nsocket_table = false\n")
    }

    /// The same, and it asks the network who announces itself.
    pub(crate) fn hears_network(mut self) -> Self {
        self.config = self.config.replace("mdns = false", "mdns = true");
        self
    }

    /// Adds lines to the configuration; tables come in any order.
    pub(crate) fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Adds lines to `[discovery]`.
    pub(crate) fn discovery(mut self, lines: &str) -> Self {
        if !self.config.contains("[discovery]\n") {
            self.config.push_str("[discovery]\n");
        }
        self.config = self.config.replacen("[discovery]\n", &format!("[discovery]\n{lines}"), 1);
        self
    }

    /// Adds a configured server; lower priorities are asked first.
    pub(crate) fn server(mut self, endpoint: &Endpoint, name: &str, priority: i32) -> Self {
        self.servers += 1;
        let _ = write!(
            self.config,
            "[[servers]]\nurl = \"{endpoint}\"\nname = \"{name}\"\npriority = {priority}\n"
        );
        self
    }

    /// Adds a simulated server.
    pub(crate) fn simulated(self, server: &Simulated, name: &str, priority: i32) -> Self {
        self.server(&server.endpoint(), name, priority)
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument.
    #[allow(dead_code, reason = "the load program needs it, the tests do not")]
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Runs it under another command: `taskset -c 0`.
    #[allow(dead_code, reason = "the load program pins the daemon, the tests do not")]
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|it| (*it).to_owned()).collect();
        self
    }

    /// Gives it this state, which is moved away from there.
    #[allow(dead_code, reason = "the tests need it, the load program does not")]
    pub(crate) fn state(mut self, from: &Path) -> Self {
        self.state = Some(from.to_owned());
        self
    }

    /// The text of its configuration.
    #[allow(dead_code, reason = "the tests need it, the load program does not")]
    pub(crate) fn text(&self) -> String {
        self.config.clone()
    }

    /// Starts it and waits until it answers and has seen every configured server.
    pub(crate) async fn start(self) -> Daemon {
        Daemon::start(self).await
    }
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    options: Options,
    child: Child,
}

impl Daemon {
    async fn start(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "run", "state"] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        if let Some(state) = &options.state {
            fs::remove_dir(directory.path().join("state")).unwrap();
            fs::rename(state, directory.path().join("state")).unwrap();
        }
        fs::write(directory.path().join("config.toml"), &options.config).unwrap();
        let child = spawn(directory.path(), &options);
        let mut daemon = Self { directory, options, child };
        daemon.until_ready().await;
        daemon
    }

    /// Waits until it answers and every configured server is up.
    pub(crate) async fn until_ready(&mut self) {
        self.until_answering().await;
        let wanted = self.options.servers;
        self.until("every configured server is up", |servers| {
            servers.iter().filter(|it| it["standing"] == "up").count() >= wanted
        })
        .await;
    }

    /// Waits until it answers at all.
    pub(crate) async fn until_answering(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("lovabled ended with {status}:\n{}", self.log());
            }
            if let Ok(answer) = self.caller().try_get("/healthz").await
                && answer.status == 200
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "lovabled does not answer:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the list of servers is as wanted, and returns it.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let servers = self.servers().await;
            if is(&servers) {
                return servers;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not in time: {what}; servers: {servers:#?}\nlog:\n{}",
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the control API says of the servers.
    pub(crate) async fn servers(&self) -> Vec<Value> {
        let body = self.caller().get("/lovable/v1/servers").await.json();
        body["servers"].as_array().unwrap_or_else(|| panic!("no list of servers in {body}")).clone()
    }

    /// Where its socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/lovabled.sock")
    }

    /// Its configuration file.
    #[allow(dead_code, reason = "the tests need it, the load program does not")]
    pub(crate) fn configuration(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    /// The home of its user.
    #[allow(dead_code, reason = "the tests need it, the load program does not")]
    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Where its state is.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A client of its socket.
    pub(crate) fn caller(&self) -> Caller {
        Caller::unix(self.socket())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Runs `lovablectl` against it.
    pub(crate) async fn ctl(&self, args: &[&str]) -> Output {
        self.ctl_within(PATIENCE, args).await
    }

    /// The same with another patience.
    pub(crate) async fn ctl_within(&self, patience: Duration, args: &[&str]) -> Output {
        let mut command = clean(Path::new(env!("CARGO_BIN_EXE_lovablectl")), self.directory.path());
        command.arg("--socket").arg(self.socket()).args(args).stdin(Stdio::null());
        timeout(patience, command.output()).await.expect("lovablectl ends in time").unwrap()
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again in the same directory, after a kill; does not wait.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.directory.path(), &self.options);
    }

    /// Stops it as a service manager would.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        timeout(PATIENCE, self.child.wait()).await.expect("lovabled stops in time").unwrap()
    }
}

fn spawn(directory: &Path, options: &Options) -> Child {
    let log = fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_lovabled"));
    let mut command = match options.under.split_first() {
        None => clean(binary, directory),
        Some((program, args)) => {
            let mut command = clean(Path::new(program), directory);
            command.args(args).arg(binary);
            command
        }
    };
    command.arg("--config").arg(directory.join("config.toml"));
    command.arg("--socket").arg(directory.join("run/lovabled.sock"));
    command.arg("--state-dir").arg(directory.join("state"));
    command.args(&options.args).envs(options.env.iter().cloned());
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// A command that inherits nothing but the way to programs.
pub(crate) fn clean(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", directory.join("home")).env("XDG_RUNTIME_DIR", directory.join("run"));
    command.env("NO_COLOR", "1").current_dir(directory).kill_on_drop(true);
    command
}
