//! The lock file that says whose directory this is.
//!
//! sled has a lock too, but what it says when another daemon has it looks like
//! any other I/O error, and a database in use must never be taken for damaged.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

/// A directory that is ours for as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Why it is not ours.
#[derive(Debug)]
pub(super) enum Error {
    /// It is another's; this is its process.
    Held(Option<u32>),
    /// It cannot be used.
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Lock {
    /// Takes the directory, which is made if need be, for nobody else to read.
    pub(super) fn take(dir: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join("lock");
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // The other may be writing it this moment.
                let _ = file.read_to_string(&mut pid);
                return Err(Error::Held(pid.trim().parse().ok()));
            }
            Err(error) => return Err(Error::Io(error.into())),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}
