//! A program on a terminal of its own, and a person who types.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Terminal {
    keys: File,
    shown: mpsc::UnboundedReceiver<Vec<u8>>,
    /// What was shown and not yet waited for.
    unread: String,
    child: Child,
}

impl Terminal {
    /// Starts a program on a new terminal, which is the one that its signals come from. `setsid`
    /// makes it so; only unsafe code could do the same here.
    pub(crate) fn start(program: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = || open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let program = program.as_std();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        command.env_clear().env("TERM", "xterm");
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.stdin(Stdio::from(slave())).stdout(Stdio::from(slave())).stderr(Stdio::from(slave()));
        let child = command.kill_on_drop(true).spawn().unwrap();
        let (sender, shown) = mpsc::unbounded_channel();
        let keys = File::from(master);
        let mut screen = File::from(OwnedFd::from(keys.try_clone().unwrap()));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal that nobody holds any more is an error, not an end.
            while let Ok(read) = screen.read(&mut buffer) {
                if read == 0 || sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { keys, shown, unread: String::new(), child }
    }

    /// Types.
    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown, and gives what was shown before it since the last time.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let seen = async {
            loop {
                if let Some(at) = self.unread.find(text) {
                    let rest = self.unread.split_off(at + text.len());
                    return Some(std::mem::replace(&mut self.unread, rest));
                }
                let more = self.shown.recv().await?;
                self.unread.push_str(&String::from_utf8_lossy(&more));
            }
        };
        let seen = timeout(PATIENCE, seen).await;
        seen.ok().flatten().unwrap_or_else(|| panic!("{text:?} is not shown, but {:?}", self.unread))
    }

    /// Types after a prompt has come.
    pub(crate) async fn answers(&mut self, prompt: &str, keys: &str) {
        self.until(prompt).await;
        self.types(keys);
    }

    /// How the program ends.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it goes on; shown: {:?}", self.unread)).unwrap()
    }
}
