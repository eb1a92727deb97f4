//! Into the background, with a parent that stays until it is known how it went.
//!
//! The parent ends with success only when the daemon answers `GET /healthz`; if
//! the daemon ends before that, the parent says what the daemon had to say. The
//! two share a pipe: the daemon writes its last words into it, and its end
//! closing is how the parent learns that it is gone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use daemonize::{Daemonize, Outcome, Stdio};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::log::Log;

/// How long the daemon may take to answer. Opening a large store after a crash
/// takes seconds; a minute without an answer means that something hangs.
const PATIENCE_TRIES: u32 = 3000;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Why the daemon is not in the background.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// The pid file cannot be used.
    #[error("cannot use the pid file {}: {source}", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process holds the pid file.
    #[error("another daemon holds the pid file {}", path.display())]
    PidFileHeld {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses to fork.
    #[error("cannot go to the background: {0}")]
    Fork(String),
    /// The daemon ended before it answered.
    #[error("{text}")]
    Ended {
        /// Its exit code.
        code: u8,
        /// Its last words.
        text: String,
    },
    /// The daemon lives and does not answer.
    #[error("the daemon was started and does not answer on {}", socket.display())]
    Silent {
        /// Its socket.
        socket: PathBuf,
    },
}

/// Who we are after the fork.
#[derive(Debug)]
pub enum Side {
    /// The one who was started: waits and ends.
    Parent(Parent),
    /// The daemon.
    Daemon(LastWords),
}

/// Waits for the daemon to answer.
#[derive(Debug)]
pub struct Parent(PipeReader);

/// Takes the daemon's reason to end to the parent, if it still waits.
#[derive(Debug)]
pub struct LastWords(PipeWriter);

/// Forks. There must be no other thread, and nothing relative must be left.
pub fn go(log: &Log, umask: u32) -> Result<Side, BackgroundError> {
    let fork = |error: &dyn std::fmt::Display| BackgroundError::Fork(error.to_string());
    let (reader, writer) = io::pipe().map_err(|it| fork(&it))?;
    let stdio = |file: Option<File>| file.map_or_else(Stdio::devnull, Stdio::from);
    let daemonize = Daemonize::new()
        .umask(umask)
        .stdout(stdio(log.file().map_err(|it| fork(&it))?))
        .stderr(stdio(log.file().map_err(|it| fork(&it))?));
    match daemonize.execute() {
        Outcome::Parent(Ok(_)) => Ok(Side::Parent(Parent(reader))),
        Outcome::Parent(Err(error)) => Err(fork(&error)),
        Outcome::Child(Ok(_)) => Ok(Side::Daemon(LastWords(writer))),
        Outcome::Child(Err(error)) => {
            LastWords(writer).say(1, &fork(&error).to_string());
            process::exit(1);
        }
    }
}

impl Parent {
    /// Waits until the daemon answers on its socket, or has ended.
    pub fn wait(self, socket: &Path) -> Result<(), BackgroundError> {
        let (sender, ended) = mpsc::channel();
        let mut pipe = self.0;
        thread::spawn(move || {
            let mut words = Vec::new();
            // A broken pipe ends like a closed one.
            let _ = pipe.read_to_end(&mut words);
            let _ = sender.send(words);
        });
        for _ in 0..PATIENCE_TRIES {
            match ended.recv_timeout(BETWEEN_TRIES) {
                Err(RecvTimeoutError::Timeout) if is_healthy(socket) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(words) => return Err(ended_with(&words)),
                Err(RecvTimeoutError::Disconnected) => return Err(ended_with(&[])),
            }
        }
        Err(BackgroundError::Silent { socket: socket.to_owned() })
    }
}

fn ended_with(words: &[u8]) -> BackgroundError {
    match words.split_first() {
        Some((code, text)) => {
            BackgroundError::Ended { code: *code, text: String::from_utf8_lossy(text).into_owned() }
        }
        None => {
            let text = "the daemon ended without a word before it answered; its log may say why".to_owned();
            BackgroundError::Ended { code: 1, text }
        }
    }
}

impl LastWords {
    /// Says with which code the daemon ends, and why.
    pub fn say(mut self, code: u8, text: &str) {
        let mut words = vec![code];
        words.extend_from_slice(text.as_bytes());
        // The parent may have left long ago.
        let _ = self.0.write_all(&words);
    }
}

/// Whether `GET /healthz` is answered with 200.
pub fn is_healthy(socket: &Path) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// A file with the daemon's number in it, held as long as the daemon lives.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Takes the file, unless another process holds it. The hold outlives a fork.
    pub fn take(path: &Path) -> Result<Self, BackgroundError> {
        let fail = |source: io::Error| BackgroundError::PidFile { path: path.to_owned(), source };
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(path)
                .map_err(fail)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, path).map_err(fail)? => {
                    return Ok(Self { path: path.to_owned(), file });
                }
                // Who held it left and took the file along, after we had opened it.
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(BackgroundError::PidFileHeld { path: path.to_owned() }),
                Err(error) => return Err(fail(error.into())),
            }
        }
    }

    /// Writes our number into it.
    pub fn write(&mut self) -> Result<(), BackgroundError> {
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all(format!("{}\n", process::id()).as_bytes()));
        written.map_err(|source| BackgroundError::PidFile { path: self.path.clone(), source })
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Held until here, so nobody else can have written it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_pid_file_is_held_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pid");
        fs::write(&path, "99999999 old and longer\n").unwrap();
        let mut file = PidFile::take(&path).unwrap();
        file.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        assert!(matches!(PidFile::take(&path), Err(BackgroundError::PidFileHeld { .. })));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_removed_after_it_was_opened_holds_nobody() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pid");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let _other = PidFile::take(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }

    #[test]
    fn the_parent_says_what_the_daemon_said() {
        let (reader, writer) = io::pipe().unwrap();
        LastWords(writer).say(5, "the store is held");
        let error = Parent(reader).wait(Path::new("/nowhere")).unwrap_err();
        assert!(matches!(&error, BackgroundError::Ended { code: 5, .. }), "{error:?}");
        assert_eq!(error.to_string(), "the store is held");
    }

    #[test]
    fn a_daemon_that_vanishes_is_noticed() {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let error = Parent(reader).wait(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("without a word"), "{error}");
    }

    #[test]
    fn the_parent_leaves_when_the_daemon_answers() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let daemon = thread::spawn(move || {
            for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                assert!(request[..length].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Parent(reader).wait(&path).unwrap();
        daemon.join().unwrap();
    }
}
