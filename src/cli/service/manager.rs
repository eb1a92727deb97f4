//! Speaks to the service manager by its own command.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{
    super::{Trouble, say},
    plan::{LABEL, SERVICE_UNIT, SOCKET_UNIT},
};

/// The manager of this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    Systemd,
    Launchd,
}

impl Manager {
    pub(super) fn of_this_system() -> Self {
        if cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }

    /// Has it read the files and start what is in them, now and with each session.
    pub(super) fn enable(self, agent: &Path, on_demand: bool) -> Result<(), Trouble> {
        match self {
            Self::Systemd => {
                systemctl(&["daemon-reload"])?;
                if on_demand {
                    systemctl(&["disable", SERVICE_UNIT])?;
                    return systemctl(&["enable", "--now", SOCKET_UNIT]).map(drop);
                }
                systemctl(&["enable", "--now", SOCKET_UNIT, SERVICE_UNIT]).map(drop)
            }
            Self::Launchd => {
                // Whatever was there under this name is replaced.
                let _ = launchctl(&["bootout", &target()]);
                launchctl(&["bootstrap", &domain(), &agent.display().to_string()]).map(drop)
            }
        }
    }

    /// Has a running daemon replaced by one of the new files.
    pub(super) fn restart(self) -> Result<(), Trouble> {
        match self {
            Self::Systemd => systemctl(&["try-restart", SERVICE_UNIT]).map(drop),
            // It was replaced as a whole.
            Self::Launchd => Ok(()),
        }
    }

    /// Has it stop and forget the service. One that it does not know is no trouble.
    pub(super) fn disable(self) -> Result<(), Trouble> {
        match self {
            Self::Systemd => systemctl(&["disable", "--now", SOCKET_UNIT, SERVICE_UNIT]).map(drop),
            Self::Launchd => {
                let _ = launchctl(&["bootout", &target()]);
                Ok(())
            }
        }
    }

    /// Has it notice that the files are gone.
    pub(super) fn forget(self) {
        if self == Self::Systemd {
            let _ = systemctl(&["daemon-reload"]);
            // Without a failure there is nothing to reset, which it calls an error.
            let _ = systemctl(&["reset-failed", SERVICE_UNIT]);
        }
    }

    pub(super) fn start(self, agent: &Path) -> Result<(), Trouble> {
        match self {
            Self::Systemd => systemctl(&["start", SOCKET_UNIT, SERVICE_UNIT]).map(drop),
            Self::Launchd => match launchctl(&["kickstart", &target()]) {
                Ok(_) => Ok(()),
                // It was stopped, which takes it out.
                Err(_) => launchctl(&["bootstrap", &domain(), &agent.display().to_string()]).map(drop),
            },
        }
    }

    pub(super) fn stop(self) -> Result<(), Trouble> {
        match self {
            // The socket too: the next request would start the service again.
            Self::Systemd => systemctl(&["stop", SOCKET_UNIT, SERVICE_UNIT]).map(drop),
            Self::Launchd => launchctl(&["bootout", &target()]).map(drop),
        }
    }

    /// What it calls the state of the service: `active`, `inactive`, `failed`.
    pub(super) fn state(self) -> String {
        match self {
            Self::Systemd => said(run("systemctl", &["--user", "is-active", SERVICE_UNIT])),
            Self::Launchd => match run("launchctl", &["print", &target()]) {
                Ok(output) if output.status.success() => "active".to_owned(),
                _ => "inactive".to_owned(),
            },
        }
    }

    /// Whether it starts with the session.
    pub(super) fn is_enabled(self) -> bool {
        match self {
            Self::Systemd => said(run("systemctl", &["--user", "is-enabled", SOCKET_UNIT])) == "enabled",
            Self::Launchd => self.state() == "active",
        }
    }

    /// Whether it goes on when the user logs out; `None` where nobody says.
    pub(super) fn lingers(self) -> Option<bool> {
        if self == Self::Launchd {
            return None;
        }
        let uid = rustix::process::geteuid().as_raw().to_string();
        match said(run("loginctl", &["show-user", &uid, "--property=Linger", "--value"])).as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }
}

fn said(output: io::Result<Output>) -> String {
    output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()).unwrap_or_default()
}

fn domain() -> String {
    format!("gui/{}", rustix::process::geteuid().as_raw())
}

fn target() -> String {
    format!("{}/{LABEL}", domain())
}

fn systemctl(args: &[&str]) -> Result<Output, Trouble> {
    asked("systemctl", &[&["--user"], args].concat())
}

fn launchctl(args: &[&str]) -> Result<Output, Trouble> {
    asked("launchctl", args)
}

fn asked(program: &str, args: &[&str]) -> Result<Output, Trouble> {
    let output = run(program, args).map_err(|error| {
        let instead = "without a service manager there is `lovabled --daemonize`";
        Trouble::Failed(format!("cannot run {program}: {error}; {instead}"))
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let mut text = format!("`{program} {}` failed: {}", args.join(" "), say::clean_lines(words.trim()));
    // A shell after `su` or in a container has no session of its own.
    if words.contains("connect to bus") || words.contains("XDG_RUNTIME_DIR") {
        text.push_str(
            "\nlog in as this user, or run `loginctl enable-linger` first, so that its manager runs",
        );
    }
    Err(Trouble::Failed(text))
}

fn run(program: &str, args: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(args);
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        let usual = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
        if usual.is_dir() {
            command.env("XDG_RUNTIME_DIR", usual);
        }
    }
    command.output()
}
