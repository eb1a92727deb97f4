//! A service manager for the tests: starts what a unit says with the socket of its socket
//! unit, listens to `NOTIFY_SOCKET`, watches for signs of life, and starts again what died.
//!
//! It does what systemd documents, in the order in which systemd does it, and nothing else.

use std::{
    fs::{self, Permissions},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::UnixDatagram,
    process::Child,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::unit::{Places, Unit, words};
use crate::lifecycle::{Home, until};

/// After the watchdog's signal systemd waits as long as for a stop; a test need not.
const ABORT: Duration = Duration::from_millis(500);

/// A service that is kept running. Dropping it kills the service.
pub(crate) struct Supervisor {
    state: Arc<Mutex<State>>,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Every message of every life, as it came.
    told: Vec<String>,
    pid: Option<Pid>,
    /// How often it was started, and how often it said that it was ready.
    lives: usize,
    ready: usize,
    /// What became of it, if it is not started again.
    ended: Option<ExitStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Stop,
    Restart,
}

/// The units, and what they run with.
pub(crate) struct Setup<'a> {
    pub(crate) home: &'a Home,
    pub(crate) service: Unit,
    pub(crate) socket: Option<Unit>,
}

/// What a home's user manager takes specifiers for.
pub(crate) fn places(home: &Home) -> Places {
    Places { home: home.at("home"), run: home.at("run"), config: home.at("config") }
}

impl Supervisor {
    /// Starts the service.
    pub(crate) fn start(setup: Setup<'_>) -> Self {
        let Setup { home, service, socket } = setup;
        assert_eq!(service.get("Type"), Some("notify"));
        let notify = home.at("notify");
        let _ = fs::remove_file(&notify);
        let life = Life {
            listener: socket.as_ref().map(bind),
            service,
            notify: notify.clone(),
            log: home.at("log"),
            template: home.command("sh"),
        };
        let state = Arc::new(Mutex::new(State::default()));
        let (orders, ordered) = mpsc::channel(1);
        let heard = UnixDatagram::bind(notify).unwrap();
        let task = tokio::spawn(supervise(life, heard, state.clone(), ordered));
        Self { state, orders, task }
    }

    /// Every message so far.
    pub(crate) fn told(&self) -> Vec<String> {
        self.state.lock().unwrap().told.clone()
    }

    /// Every message so far but signs of life.
    pub(crate) fn said(&self) -> Vec<String> {
        self.told().into_iter().filter(|it| it != "WATCHDOG=1").collect()
    }

    /// The process of the service.
    pub(crate) fn pid(&self) -> Pid {
        self.state.lock().unwrap().pid.expect("it runs")
    }

    /// How often it was started.
    pub(crate) fn lives(&self) -> usize {
        self.state.lock().unwrap().lives
    }

    /// How it ended for good, if it did.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.state.lock().unwrap().ended
    }

    /// Waits until so many lives have become ready.
    pub(crate) async fn ready(&self, lives: usize) {
        until("the service is ready", async || {
            let state = self.state.lock().unwrap();
            assert!(state.ended.is_none(), "it ended with {:?}: {:?}", state.ended, state.told);
            (state.ready >= lives).then_some(())
        })
        .await;
    }

    /// Stops it, and does not start it again.
    pub(crate) async fn stop(&self) {
        self.order(Order::Stop).await;
    }

    /// Stops it and starts it again.
    pub(crate) async fn restart(&self) {
        self.order(Order::Restart).await;
    }

    async fn order(&self, order: Order) {
        let (done, is_done) = oneshot::channel();
        self.orders.send((order, done)).await.unwrap();
        is_done.await.unwrap();
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bind(socket: &Unit) -> UnixListener {
    let path = PathBuf::from(socket.get("ListenStream").unwrap());
    let mode = |name| Permissions::from_mode(u32::from_str_radix(socket.get(name).unwrap(), 8).unwrap());
    let parent = path.parent().unwrap();
    if !parent.exists() {
        fs::create_dir_all(parent).unwrap();
        fs::set_permissions(parent, mode("DirectoryMode")).unwrap();
    }
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, mode("SocketMode")).unwrap();
    listener
}

/// What each life of the service is started with.
struct Life {
    service: Unit,
    listener: Option<UnixListener>,
    notify: PathBuf,
    log: PathBuf,
    template: tokio::process::Command,
}

impl Life {
    fn begin(&mut self) -> Child {
        let command = &mut self.template;
        // Only the process itself knows its number before it runs.
        let script = match self.listener {
            Some(_) => "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 WATCHDOG_PID=$$; exec \"$@\"",
            None => "export WATCHDOG_PID=$$; exec \"$@\" </dev/null",
        };
        let mut fresh = tokio::process::Command::new("sh");
        fresh.env_clear().kill_on_drop(true);
        for (name, value) in command.as_std().get_envs() {
            if let Some(value) = value {
                fresh.env(name, value);
            }
        }
        fresh.args(["-c", script, "sh"]).args(words(self.service.get("ExecStart").unwrap()));
        fresh.env("NOTIFY_SOCKET", &self.notify);
        if let Some(seconds) = self.service.seconds("WatchdogSec") {
            fresh.env("WATCHDOG_USEC", (seconds * 1_000_000).to_string());
        }
        for file in self.service.all("EnvironmentFile") {
            let text = match file.strip_prefix('-') {
                Some(file) => fs::read_to_string(file).unwrap_or_default(),
                None => fs::read_to_string(file).unwrap(),
            };
            let lines = text.lines().filter(|it| !it.starts_with('#') && !it.is_empty());
            for (name, value) in lines.filter_map(|it| it.split_once('=')) {
                fresh.env(name, words(value).concat());
            }
        }
        let stdin = self.listener.as_ref().map(|it| Stdio::from(OwnedFd::from(it.try_clone().unwrap())));
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        fresh.stdin(stdin.unwrap_or_else(Stdio::null)).stdout(log.try_clone().unwrap()).stderr(log);
        fresh.spawn().unwrap()
    }

    /// Whether it is started again after it has ended like this.
    fn goes_on(&self, status: ExitStatus) -> bool {
        assert_eq!(self.service.get("Restart"), Some("on-failure"));
        let prevented = self.service.get("RestartPreventExitStatus").unwrap_or_default();
        let prevented =
            prevented.split(' ').any(|it| Some(it) == status.code().map(|it| it.to_string()).as_deref());
        !status.success() && !prevented
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.service.seconds(name).unwrap())
    }
}

async fn supervise(
    mut life: Life,
    heard: UnixDatagram,
    state: Arc<Mutex<State>>,
    mut orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
) {
    loop {
        let mut child = life.begin();
        let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
        {
            let mut state = state.lock().unwrap();
            state.pid = Some(pid);
            state.lives += 1;
        }
        let mut dead_at: Option<Instant> = None;
        let mut buffer = [0; 4096];
        let ended = loop {
            let dies = async {
                match dead_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                length = heard.recv(&mut buffer) => {
                    let text = String::from_utf8(buffer[..length.unwrap()].to_vec()).unwrap();
                    let next = life.service.seconds("WatchdogSec").map(|it| Instant::now() + Duration::from_secs(it));
                    let mut state = state.lock().unwrap();
                    for line in text.lines() {
                        match line.split_once('=').unwrap_or_else(|| panic!("no assignment: {text:?}")) {
                            ("READY", "1") => {
                                state.ready += 1;
                                dead_at = next;
                            }
                            ("WATCHDOG", "1") => dead_at = dead_at.and(next),
                            ("STOPPING", "1") => dead_at = None,
                            ("STATUS", _) => {}
                            other => panic!("a message that nobody knows: {other:?}"),
                        }
                    }
                    state.told.push(text);
                }
                ended = child.wait() => break ended.unwrap(),
                () = dies => {
                    state.lock().unwrap().told.push("(no sign of life)".to_owned());
                    let _ = kill_process(pid, Signal::ABORT);
                    let _ = kill_process(pid, Signal::CONT);
                    if tokio::time::timeout(ABORT, child.wait()).await.is_err() {
                        let _ = kill_process(pid, Signal::KILL);
                    }
                    dead_at = None;
                }
                Some((order, done)) = orders.recv() => {
                    let _ = kill_process(pid, Signal::TERM);
                    let ended = tokio::time::timeout(life.seconds("TimeoutStopSec"), child.wait()).await;
                    let ended = ended.expect("it stops before it would be killed").unwrap();
                    while let Ok(length) = heard.try_recv(&mut buffer) {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        state.lock().unwrap().told.push(text);
                    }
                    let _ = done.send(());
                    if order == Order::Stop {
                        state.lock().unwrap().ended = Some(ended);
                        return;
                    }
                    break ended;
                }
            }
        };
        if !life.goes_on(ended) && !ended.success() {
            let mut state = state.lock().unwrap();
            state.ended = Some(ended);
            state.pid = None;
            return;
        }
        if !ended.success() {
            sleep(life.seconds("RestartSec")).await;
        }
    }
}
