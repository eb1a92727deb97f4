//! From the command line to a running daemon, in the one order that works:
//! configuration, log, socket, fork, and only then whatever starts threads.

use std::{
    fs::{self, DirBuilder},
    io,
    net::TcpListener,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::fs::Mode;

use super::{
    background::{self, BackgroundError, PidFile, Side},
    log::{Log, LogError},
    readiness::Readiness,
    socket::{Directory, Inherited, Socket, SocketError, SocketFile},
};
use crate::config::{
    self, ConfigError, Flags, ListenAddress, Loaded, Origin, PathError, Scope, Surroundings,
};

/// What the command line wants.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// What belongs to the configuration.
    pub flags: Flags,
    /// To the background.
    pub background: Option<Background>,
    /// With simulated servers, and nothing kept.
    pub demo: bool,
}

/// How to go to the background.
#[derive(Clone, Debug, Default)]
pub struct Background {
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--log-file`.
    pub log_file: Option<PathBuf>,
}

/// Everything that a daemon needs to run: decided, opened and checked.
#[derive(Debug)]
pub struct Plan {
    /// The configuration, and how it came to be.
    pub loaded: Loaded,
    /// What the command line said of it.
    pub flags: Flags,
    /// The socket.
    pub socket: Socket,
    /// The TCP door; not blocking.
    pub tcp: Option<TcpListener>,
    /// Whether simulated servers are wanted.
    pub demo: bool,
    /// For when the log file was moved away.
    pub log: Log,
    /// Whom to tell when requests are answered.
    pub readiness: Readiness,
}

/// Why a daemon that was launched did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another daemon holds what this one needs; the text says which and where.
    #[error("{0}")]
    AlreadyRunning(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TCP door cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is not in the background.
    #[error(transparent)]
    Background(#[from] BackgroundError),
    /// There is no place for what a demo keeps while it runs.
    #[error("cannot make a directory in {}: {source}", path.display())]
    Demo {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It ran, and failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl LaunchError {
    /// The exit code of the contract.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Log(LogError::Filter { .. }) => 2,
            Self::Socket(SocketError::AlreadyRunning { .. }) | Self::Run(RunError::AlreadyRunning(_)) => 5,
            Self::Socket(SocketError::TooLong { .. }) => 2,
            Self::Background(BackgroundError::PidFileHeld { .. }) => 5,
            Self::Background(BackgroundError::Ended { code, .. }) => *code,
            Self::Log(_)
            | Self::Socket(_)
            | Self::Tcp { .. }
            | Self::Background(_)
            | Self::Demo { .. }
            | Self::Run(_) => 1,
        }
    }
}

/// How a launch ended well.
#[derive(Debug)]
pub enum Launched {
    /// We were the daemon, and were told to stop.
    Stopped,
    /// We are the parent of a daemon that answers.
    Answers {
        /// Its socket.
        socket: PathBuf,
    },
}

/// Loads the configuration as a launch would, and checks what can be checked without starting.
pub fn check(flags: &Flags, around: &Surroundings<'_>) -> Result<Loaded, LaunchError> {
    let loaded = config::load(flags, around, None)?;
    Log::check(&loaded.config.log)?;
    Ok(loaded)
}

/// Launches the daemon; `run` serves until it is told to stop.
pub fn launch(
    mut wishes: Wishes,
    around: &Surroundings<'_>,
    run: impl FnOnce(Plan) -> Result<(), RunError>,
) -> Result<Launched, LaunchError> {
    let mut inherited = Inherited::take()?;
    let inherited_path = inherited.socket.as_ref().map(|it| it.file.path().to_owned());
    if wishes.demo {
        wishes.flags.paths.demo = Some(demo_dir());
    }
    let loaded = config::load(&wishes.flags, around, inherited_path.as_deref())?;
    let umask = umask_of(loaded.paths.scope);
    // What we write is nobody else's, however we were started.
    rustix::process::umask(Mode::from_raw_mode(umask as _));
    let background =
        wishes.background.take().map(Background::absolute).transpose().map_err(ConfigError::from)?;
    let log = match background.as_ref().and_then(|it| it.log_file.as_deref()) {
        Some(path) => Log::to_file(path)?,
        None => Log::to_stderr(),
    };
    log.install(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // The socket before the pid file: of two daemons in each other's way, it says where the other is.
    let socket = match inherited.socket.take() {
        Some(socket) => socket,
        None => bind(&loaded)?,
    };
    let mut pid_file =
        background.as_ref().and_then(|it| it.pid_file.as_deref()).map(PidFile::take).transpose()?;
    let tcp = open_door(inherited.tcp.take(), loaded.config.listen.address)?;
    let mut last_words = None;
    if background.is_some() {
        match background::go(&log, umask)? {
            Side::Parent(parent) => return wait_for_daemon(parent, socket, pid_file),
            Side::Daemon(words) => last_words = Some(words),
        }
    }
    let outcome = pid_file.as_mut().map_or(Ok(()), PidFile::write).map_err(LaunchError::from).and_then(|()| {
        let readiness = Readiness::new(around.var("NOTIFY_SOCKET").as_deref());
        let _demo = wishes.demo.then(|| DemoDir::make(&loaded.paths.state.path)).transpose()?;
        tracing::info!(socket = %socket.file.path().display(), "lovabled {} listens", env!("CARGO_PKG_VERSION"));
        let Wishes { flags, demo, .. } = wishes;
        Ok(run(Plan { loaded, flags, socket, tcp, demo, log: log.clone(), readiness })?)
    });
    // Nothing of it is left when the parent hears of the end and tells.
    drop(pid_file);
    if let (Err(error), Some(words)) = (&outcome, last_words) {
        tracing::error!("{error}");
        words.say(error.exit_code(), &error.to_string());
    }
    outcome.map(|()| Launched::Stopped)
}

impl Background {
    /// The daemon lives in `/`: its files are named from there.
    fn absolute(self) -> Result<Self, PathError> {
        let absolute = |path: Option<PathBuf>| {
            path.map(|path| std::path::absolute(&path).map_err(|source| PathError::Relative { path, source }))
                .transpose()
        };
        Ok(Self { pid_file: absolute(self.pid_file)?, log_file: absolute(self.log_file)? })
    }
}

fn bind(loaded: &Loaded) -> Result<Socket, SocketError> {
    let place = &loaded.paths.socket;
    let own = place.from == Origin::Default || loaded.paths.scope == Scope::System;
    let directory = if own { Directory::Own } else { Directory::Chosen };
    Socket::bind(&place.path, loaded.paths.scope, directory)
}

fn open_door(
    inherited: Option<TcpListener>,
    configured: Option<ListenAddress>,
) -> Result<Option<TcpListener>, LaunchError> {
    match (inherited, configured) {
        (Some(listener), _) => Ok(Some(listener)),
        (None, Some(ListenAddress(address))) => {
            let open = || {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            open().map(Some).map_err(|source| LaunchError::Tcp { address, source })
        }
        (None, None) => Ok(None),
    }
}

fn umask_of(scope: Scope) -> u32 {
    match scope {
        Scope::User => 0o077,
        Scope::System => 0o027,
    }
}

/// The parent has copies of what is the daemon's now: they are let go of, not cleaned up.
fn wait_for_daemon(
    parent: background::Parent,
    socket: Socket,
    pid_file: Option<PidFile>,
) -> Result<Launched, LaunchError> {
    let Socket { listener, file } = socket;
    // Closed, so that a daemon which ends leaves nobody listening.
    drop(listener);
    let path = file.path().to_owned();
    std::mem::forget::<SocketFile>(file);
    std::mem::forget(pid_file);
    parent.wait(&path)?;
    Ok(Launched::Answers { socket: path })
}

/// A place for what a demo keeps while it runs.
fn demo_dir() -> PathBuf {
    std::env::temp_dir().join(format!("lovable-demo-{:016x}", fastrand::u64(..)))
}

/// The directory of a demo; gone when this is dropped.
struct DemoDir(PathBuf);

impl DemoDir {
    fn make(path: &Path) -> Result<Self, LaunchError> {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(|source| LaunchError::Demo { path: path.to_owned(), source })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for DemoDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "cannot remove what the demo kept");
        }
    }
}
