//! The Unix socket: private from its first moment, taken over when stale, never
//! taken from a living daemon, removed only while it is still ours.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, Mode, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketType},
};

use super::users;
use crate::config::Scope;

/// Bytes of `sun_path`, one of which ends the text.
const PATH_LIMIT: usize = if cfg!(target_os = "linux") { 108 } else { 104 };

/// Connections that may wait to be accepted; the system cuts it to its own limit.
const BACKLOG: i32 = 1024;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon lives there.
    #[error("lovabled is already running; its socket is {}", path.display())]
    AlreadyRunning {
        /// Its socket.
        path: PathBuf,
    },
    /// The system takes no path of this length.
    #[error(
        "the socket path has {length} bytes, this system takes fewer than {PATH_LIMIT}: {}; choose a shorter one with --socket",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Something else is there.
    #[error("{} exists and is no socket; it is left alone", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Others could put their own socket into the directory.
    #[error("the socket's directory {} is not safe: {why}", path.display())]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The socket belongs to another user.
    #[error("{} belongs to another user's process; choose another with --socket", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// What was inherited cannot be used.
    #[error("the inherited socket cannot be used: {0}")]
    Inherited(String),
    /// The system refuses.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

fn fail(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError::Io { what, path: path.to_owned(), source }
}

/// Who the directory belongs to, and so how strict we are about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// Our own by its name: made if missing, and nobody else may be in it.
    Own,
    /// A place that the person chose: it must be safe, but it is left as it is.
    Chosen,
}

/// A bound, listening socket.
#[derive(Debug)]
pub struct Socket {
    /// Accepts connections; not blocking.
    pub listener: UnixListener,
    /// Its file.
    pub file: SocketFile,
}

/// The file of the socket. It is removed when this is dropped, unless the socket
/// was inherited or the file is somebody else's by now.
#[derive(Debug)]
#[must_use = "dropping it removes the socket"]
pub struct SocketFile {
    path: PathBuf,
    /// `None` when it was inherited: whoever made it removes it.
    identity: Option<Identity>,
}

/// Tells our file from a later one at the same path. Systems give inode numbers
/// again, so the time of its making counts as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    made: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let facts = fs::symlink_metadata(path)?;
        Ok(Self { device: facts.dev(), inode: facts.ino(), made: (facts.mtime(), facts.mtime_nsec()) })
    }
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody else made it.
    pub fn is_inherited(&self) -> bool {
        self.identity.is_none()
    }

    /// Removes it now, if it is still ours; for those who leave without cleaning up.
    pub fn remove(&self) {
        let Some(identity) = self.identity else { return };
        let _lock = self.path.parent().and_then(|it| lock_directory(it).ok());
        if Identity::of(&self.path).is_ok_and(|it| it == identity) {
            // Nothing can be done about a failure, and a stale socket is taken over anyway.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Socket {
    /// Binds the socket at an absolute path.
    pub fn bind(path: &Path, scope: Scope, directory: Directory) -> Result<Self, SocketError> {
        let length = path.as_os_str().len();
        if length >= PATH_LIMIT {
            return Err(SocketError::TooLong { path: path.to_owned(), length });
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        prepare_directory(parent, scope, directory)?;
        // Two that start at once must not both find the old socket stale: the
        // slower one would remove the new socket of the faster.
        let _lock = lock_directory(parent).map_err(fail("lock the directory", parent))?;
        clear_the_way(path)?;
        let mode = match scope {
            Scope::User => 0o600,
            Scope::System => 0o660,
        };
        let listener = listen(path, mode).map_err(fail("listen on", path))?;
        let identity = Some(Identity::of(path).map_err(fail("find", path))?);
        let file = SocketFile { path: path.to_owned(), identity };
        if scope == Scope::System {
            give_to_group(path);
        }
        Ok(Self { listener, file })
    }
}

/// What was handed to us by systemd or the like (`LISTEN_FDS`), or by launchd.
#[derive(Debug, Default)]
pub struct Inherited {
    /// A Unix socket with a path.
    pub socket: Option<Socket>,
    /// A loopback TCP socket.
    pub tcp: Option<std::net::TcpListener>,
}

impl Inherited {
    /// Takes the sockets that this process was started with.
    pub fn take() -> Result<Self, SocketError> {
        let mut all = listenfd::ListenFd::from_env();
        let mut inherited = Self::default();
        #[cfg(target_os = "macos")]
        inherited.take_from_launchd()?;
        for at in 0..all.len() {
            if let Ok(Some(listener)) = all.take_unix_listener(at) {
                inherited.put(listener)?;
            } else if let Ok(Some(listener)) = all.take_tcp_listener(at) {
                let address = listener.local_addr().map_err(|it| refuse(it.to_string()))?;
                if !address.ip().to_canonical().is_loopback() {
                    return Err(refuse(format!("{address} can be reached from other machines")));
                }
                listener.set_nonblocking(true).map_err(|it| refuse(it.to_string()))?;
                if inherited.tcp.replace(listener).is_some() {
                    return Err(refuse("there is more than one TCP socket".into()));
                }
            } else {
                return Err(refuse(format!("number {at} is neither a Unix nor a TCP stream socket")));
            }
        }
        Ok(inherited)
    }

    fn put(&mut self, listener: UnixListener) -> Result<(), SocketError> {
        let address = listener.local_addr().map_err(|it| refuse(it.to_string()))?;
        let path = address.as_pathname().ok_or_else(|| refuse("it has no path in the file system".into()))?;
        listener.set_nonblocking(true).map_err(|it| refuse(it.to_string()))?;
        let file = SocketFile { path: path.to_owned(), identity: None };
        match self.socket.replace(Socket { listener, file }) {
            None => Ok(()),
            Some(_) => Err(refuse("there is more than one Unix socket".into())),
        }
    }

    /// Takes the socket of the agent's property list, where the list says its name.
    #[cfg(any(target_os = "macos", test))]
    fn take_from_launchd(&mut self) -> Result<(), SocketError> {
        let Ok(name) = std::env::var(super::launchd::VARIABLE) else { return Ok(()) };
        let sockets = super::launchd::sockets(&name).map_err(|it| refuse(format!("launchd: {it}")))?;
        sockets.into_iter().try_for_each(|it| self.put(UnixListener::from(it)))
    }
}

fn refuse(why: String) -> SocketError {
    SocketError::Inherited(why)
}

/// Makes the directory, or checks that nobody else can put a socket into it.
fn prepare_directory(path: &Path, scope: Scope, directory: Directory) -> Result<(), SocketError> {
    let mode = match scope {
        Scope::User => 0o700,
        Scope::System => 0o750,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .map_err(fail("make the directory", path))?;
            // Another user may have been faster: it is checked like any other.
            check_directory(path, scope, directory)?;
            // What the umask took away is given back.
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(fail("set the mode of", path))?;
            if scope == Scope::System {
                give_to_group(path);
            }
            Ok(())
        }
        Err(source) => Err(fail("look at", path)(source)),
        Ok(_) => check_directory(path, scope, directory),
    }
}

fn check_directory(path: &Path, scope: Scope, directory: Directory) -> Result<(), SocketError> {
    let refuse = |why: String| SocketError::UnsafeDirectory { path: path.to_owned(), why };
    let own = rustix::process::geteuid().as_raw();
    match directory {
        Directory::Own => {
            let facts = fs::symlink_metadata(path).map_err(fail("look at", path))?;
            let by_root = scope == Scope::System && facts.uid() == 0;
            if facts.is_symlink() {
                return Err(refuse("it is a symbolic link".into()));
            }
            if !facts.is_dir() {
                return Err(refuse("it is not a directory".into()));
            }
            if facts.uid() != own && !by_root {
                return Err(refuse(format!("it belongs to user {}, not to user {own}", facts.uid())));
            }
            let mode = facts.mode() & 0o7777;
            if mode & 0o022 != 0 || (scope == Scope::User && mode & 0o077 != 0 && is_in_tmp(path)) {
                return Err(refuse(format!("its mode is {mode:04o}, not 0700")));
            }
            // Only read by others: nobody can have put anything there.
            if scope == Scope::User && mode & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(0o700))
                    .map_err(fail("set the mode of", path))?;
            }
        }
        Directory::Chosen => {
            let facts = fs::metadata(path).map_err(fail("look at", path))?;
            if !facts.is_dir() {
                return Err(refuse("it is not a directory".into()));
            }
            if facts.uid() != own && facts.uid() != 0 {
                return Err(refuse(format!("it belongs to user {}", facts.uid())));
            }
            let mode = facts.mode();
            let sticky = mode & 0o1000 != 0;
            // Many systems give each user a group of its own and a umask of 002.
            let own_group = facts.gid() == rustix::process::getegid().as_raw();
            if !sticky && (mode & 0o002 != 0 || (mode & 0o020 != 0 && !own_group)) {
                return Err(refuse(format!("others may write to it (mode {:04o})", mode & 0o7777)));
            }
        }
    }
    Ok(())
}

fn is_in_tmp(path: &Path) -> bool {
    path.parent() == Some(Path::new("/tmp"))
}

/// Holds everybody else who binds in this directory, for a moment. Whoever sits
/// on the lock (anybody can, in `/tmp`) delays us and cannot stop us: it only
/// guards against two starts at the same moment.
fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = OpenOptions::new().read(true).open(path)?;
    for _ in 0..100 {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    Ok(directory)
}

/// Removes a socket that nobody listens on, and nothing else.
fn clear_the_way(path: &Path) -> Result<(), SocketError> {
    let facts = match fs::symlink_metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(fail("look at", path)(source)),
    };
    if !facts.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match knock(path) {
        // A full queue is a daemon that lives, however busy.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
            Err(SocketError::AlreadyRunning { path: path.to_owned() })
        }
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(SocketError::Foreign { path: path.to_owned() })
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(fail("remove the stale socket", path)(error))
            }
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ACCESS | Errno::PERM) => Err(SocketError::Foreign { path: path.to_owned() }),
        // A socket of another type.
        Err(Errno::PROTOTYPE) => Err(SocketError::NotASocket { path: path.to_owned() }),
        Err(other) => Err(fail("connect to", path)(other.into())),
    }
}

/// Connects without waiting: a stopped daemon with a full queue would hold us for ever.
fn knock(path: &Path) -> Result<(), Errno> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

/// Binds and listens. Linux takes the mode of the new file from the socket, so it
/// is never more open than it should be; elsewhere the directory keeps others out
/// until the mode is set.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    if cfg!(target_os = "linux") {
        rustix::fs::fchmod(socket.as_fd(), Mode::from_raw_mode(mode as _))?;
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // The umask may have taken too much.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Without the group, or without the right, only root and the daemon's own user get in.
fn give_to_group(path: &Path) {
    if let Some(gid) = users::group_id(users::GROUP)
        && let Err(error) = std::os::unix::fs::chown(path, None, Some(gid))
    {
        tracing::warn!(path = %path.display(), %error, "cannot give this to group {}", users::GROUP);
    }
}

/// Whether a peer of the Unix socket may be served. As a service of the system
/// the mode and group of the socket have already decided.
pub fn peer_allowed(peer_uid: u32, own_uid: u32, scope: Scope) -> bool {
    match scope {
        Scope::User => peer_uid == own_uid || peer_uid == 0,
        Scope::System => true,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    /// A directory that only we can enter, whatever the umask.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        home
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn bind(path: &Path) -> Result<Socket, SocketError> {
        Socket::bind(path, Scope::User, Directory::Own)
    }

    fn error(path: &Path) -> String {
        bind(path).unwrap_err().to_string()
    }

    #[test]
    fn the_socket_and_its_directory_are_private() {
        let home = home();
        let path = home.path().join("lovable/lovabled.sock");
        let socket = bind(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn the_systems_socket_is_for_the_group() {
        let home = home();
        let path = home.path().join("lovable/lovabled.sock");
        let _socket = Socket::bind(&path, Scope::System, Directory::Own).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o750));
    }

    #[test]
    fn a_stale_socket_is_taken_over() {
        let home = home();
        let path = home.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_living_daemon_keeps_its_socket() {
        let home = home();
        let path = home.path().join("s");
        let _first = bind(&path).unwrap();
        assert_eq!(error(&path), format!("lovabled is already running; its socket is {}", path.display()));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_daemon_with_a_full_queue_is_alive() {
        let home = home();
        let path = home.path().join("s");
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(error(&path).starts_with("lovabled is already running"));
    }

    #[test]
    fn of_many_that_start_at_once_one_wins() {
        let home = home();
        let path = home.path().join("s");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let all: Vec<_> = thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| bind(&path))).collect();
                starts.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert_eq!(all.iter().filter(|it| it.is_ok()).count(), 1);
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let home = home();
        let (file, link) = (home.path().join("file"), home.path().join("link"));
        fs::write(&file, "precious").unwrap();
        assert!(error(&file).ends_with("exists and is no socket; it is left alone"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(error(&link).ends_with("exists and is no socket; it is left alone"));
        let datagram = home.path().join("datagram");
        let _other = UnixDatagram::bind(&datagram).unwrap();
        assert!(error(&datagram).ends_with("it is left alone"));
        assert!(datagram.exists());
    }

    #[test]
    fn a_path_too_long_is_refused_with_the_limit() {
        let path = Path::new("/tmp").join("x".repeat(120));
        let error = error(&path);
        assert!(error.contains("has 125 bytes"), "{error}");
        assert!(error.contains(&format!("fewer than {PATH_LIMIT}")), "{error}");
        let home = home();
        let room = PATH_LIMIT - 1 - home.path().as_os_str().len() - 1;
        assert!(bind(&home.path().join("x".repeat(room))).is_ok());
        assert!(bind(&home.path().join("x".repeat(room + 1))).is_err());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let home = home();
        for (name, mode) in [("a", 0o777), ("b", 0o770), ("c", 0o1777)] {
            let directory = home.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
            let error = error(&directory.join("s"));
            assert!(error.contains("is not safe: its mode is"), "{error}");
        }
    }

    #[test]
    fn a_directory_that_others_can_only_read_is_closed() {
        let home = home();
        let directory = home.path().join("d");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let _socket = bind(&directory.join("s")).unwrap();
        assert_eq!(mode(&directory), 0o700);
    }

    #[test]
    fn a_linked_directory_is_refused() {
        let home = home();
        let (real, link) = (home.path().join("real"), home.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(error(&link.join("s")).contains("it is a symbolic link"));
    }

    #[test]
    fn a_chosen_directory_is_left_as_it_is_unless_others_could_replace_the_socket() {
        let home = home();
        for (mode_given, fine) in [(0o755, true), (0o1777, true), (0o700, true), (0o777, false)] {
            let directory = home.path().join(format!("{mode_given:o}"));
            fs::create_dir(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(mode_given)).unwrap();
            let bound = Socket::bind(&directory.join("s"), Scope::User, Directory::Chosen);
            assert_eq!(bound.is_ok(), fine, "{mode_given:o}");
            assert_eq!(mode(&directory), mode_given);
            if let Ok(socket) = &bound {
                assert_eq!(mode(socket.file.path()), 0o600);
            }
        }
    }

    #[test]
    fn a_socket_of_somebody_else_is_not_removed_on_exit() {
        let home = home();
        let path = home.path().join("s");
        let first = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn an_inherited_socket_is_never_removed() {
        let home = home();
        let path = home.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let file = SocketFile { path: path.clone(), identity: None };
        assert!(file.is_inherited());
        file.remove();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn without_its_variable_nothing_is_asked_of_launchd() {
        let mut inherited = Inherited::default();
        inherited.take_from_launchd().unwrap();
        assert!(inherited.socket.is_none());
    }

    #[test]
    fn peers_of_a_user_are_the_user_and_root() {
        for (peer, allowed) in [(1000, true), (0, true), (1001, false), (65534, false)] {
            assert_eq!(peer_allowed(peer, 1000, Scope::User), allowed, "{peer}");
        }
        assert!(peer_allowed(1001, 990, Scope::System));
    }
}
