//! Reads the configuration again and puts it into force while requests run.
//!
//! One that is broken changes nothing: what was in force stays so, and people are told once
//! what is wrong, until it is mended.

use crate::{
    config::{Flags, Loaded, Reading, Surroundings, read_again},
    daemon::settings::{Rooms, pending},
    service::log::Log,
};

/// What is in force, and how to read it again.
pub(super) struct Reload {
    pub(super) rooms: Rooms,
    pub(super) log: Log,
    pub(super) flags: Flags,
    /// As it was at the start.
    pub(super) started: Loaded,
    /// As it is.
    pub(super) now: Loaded,
    /// What is wrong with the file, if anything is.
    pub(super) broken: Option<String>,
    /// Whether nothing was in the file when it was read last.
    pub(super) was_empty: bool,
}

impl Reload {
    /// Begins with what the daemon started with.
    pub(super) fn new(rooms: Rooms, log: Log, flags: Flags, started: Loaded) -> Self {
        let (now, was_empty) = (started.clone(), started.file.is_none());
        Self { rooms, log, flags, started, now, broken: None, was_empty }
    }

    /// Reads it from where it was found at the start; the files may be on a slow disk.
    pub(super) async fn read(&self) -> Reading {
        let (paths, flags) = (self.started.paths.clone(), self.flags.clone());
        let reading =
            tokio::task::spawn_blocking(move || read_again(paths, &flags, &Surroundings::of_process()));
        match reading.await {
            Ok(reading) => reading,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Puts it into force, or keeps what is.
    pub(super) fn take(&mut self, reading: Reading) {
        self.was_empty = reading.is_empty;
        let said = match reading.loaded {
            Ok(loaded) => return self.apply(loaded),
            Err(error) => error.to_string(),
        };
        if self.broken.as_ref() != Some(&said) {
            tracing::error!("the configuration is broken, what was in force stays so: {}", one_line(&said));
        }
        let note = format!("the configuration is broken, an earlier one is in force: {}", one_line(&said));
        self.rooms.tell(&self.started, &self.now, Some(note));
        self.broken = Some(said);
    }

    fn apply(&mut self, loaded: Loaded) {
        let is_new = loaded.settings != self.now.settings || loaded.config != self.now.config;
        let is_mended = self.broken.take().is_some();
        if is_mended {
            tracing::info!("the configuration is mended");
        }
        if !is_new && !is_mended {
            // Of an authority only its file is known here, which may say something else.
            if loaded.config.servers.iter().any(|it| it.ca.is_some()) {
                self.rooms.authorities(&loaded);
            }
            return;
        }
        self.rooms.apply(&self.started, &loaded);
        if is_new {
            tracing::info!("the configuration has changed and is in force");
            for warning in loaded.warnings.iter().filter(|it| !self.now.warnings.contains(it)) {
                tracing::warn!("{warning}");
            }
            let before = pending(&self.started, &self.now);
            for waits in pending(&self.started, &loaded).iter().filter(|it| !before.contains(it)) {
                tracing::warn!("{waits}");
            }
            if let Err(error) = self.log.set_level(&loaded.config.log) {
                tracing::error!("{error}");
            }
        }
        self.now = loaded;
    }
}

/// Problems as one sentence.
fn one_line(problems: &str) -> String {
    problems.lines().collect::<Vec<_>>().join("; ")
}
