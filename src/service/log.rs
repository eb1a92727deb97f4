//! The log: stderr or a file, lines for people or for machines.
//!
//! No prompt and no key is ever in it. We do not write any; but libraries write
//! what passes through them when they are asked for everything, so below `info`
//! only our own code is heard, whatever the filter says.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::FilterFn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    reload::{self, Handle},
    util::SubscriberInitExt,
};

use crate::config;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Neither a level nor a filter.
    #[error("`{text}` is no log filter ({source}); write for example `debug` or `lovable::scan=trace,info`")]
    Filter {
        /// What was given.
        text: String,
        /// What is wrong.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The file cannot be opened.
    #[error("cannot open the log file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Where log lines go. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log {
    target: Arc<Target>,
    /// What may still be changed once it is the log of the process.
    level: Arc<OnceLock<Handle<EnvFilter, Registry>>>,
}

#[derive(Debug)]
enum Target {
    Stderr,
    File { path: PathBuf, file: Mutex<File> },
}

impl Log {
    /// Logs to stderr.
    pub fn to_stderr() -> Self {
        Self::to(Target::Stderr)
    }

    /// Appends to a file, which only its owner may read.
    pub fn to_file(path: &Path) -> Result<Self, LogError> {
        let file = open(path).map_err(|source| LogError::File { path: path.to_owned(), source })?;
        Ok(Self::to(Target::File { path: path.to_owned(), file: Mutex::new(file) }))
    }

    fn to(target: Target) -> Self {
        Self { target: Arc::new(target), level: Arc::default() }
    }

    /// Opens the file again under its name, after somebody moved the old one away.
    pub fn reopen(&self) {
        let Target::File { path, file } = &*self.target else { return };
        match open(path) {
            Ok(fresh) => *file.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
            // The old file is better than none.
            Err(error) => tracing::error!(%error, path = %path.display(), "cannot reopen the log file"),
        }
    }

    /// The file, for what is written past the log.
    pub(super) fn file(&self) -> io::Result<Option<File>> {
        match &*self.target {
            Target::Stderr => Ok(None),
            Target::File { file, .. } => {
                file.lock().unwrap_or_else(PoisonError::into_inner).try_clone().map(Some)
            }
        }
    }

    /// Makes this the log of the process, and has panics written to it.
    pub fn install(&self, settings: &config::Log) -> Result<(), LogError> {
        let subscriber = self.subscriber(settings)?;
        // Only a test that shares its process has installed one already.
        let _ = subscriber.try_init();
        std::panic::set_hook(Box::new(log_panic));
        Ok(())
    }

    /// Logs more or less from now on.
    pub fn set_level(&self, settings: &config::Log) -> Result<(), LogError> {
        let filter = filter(settings)?;
        if let Some(level) = self.level.get() {
            // An error means that the log is gone, as in a test that has another one.
            let _ = level.reload(filter);
        }
        Ok(())
    }

    /// Whether these settings make a log.
    pub fn check(settings: &config::Log) -> Result<(), LogError> {
        Self::to_stderr().subscriber(settings).map(drop)
    }

    fn subscriber(
        &self,
        settings: &config::Log,
    ) -> Result<impl tracing::Subscriber + Send + Sync + use<>, LogError> {
        let (filter, level) = reload::Layer::new(filter(settings)?);
        // Only the first is the log of the process.
        let _ = self.level.set(level);
        let lines = fmt::layer().with_writer(self.clone());
        let lines = match settings.format {
            config::LogFormat::Text => lines.boxed(),
            config::LogFormat::Json => lines.json().boxed(),
        };
        Ok(tracing_subscriber::registry().with(filter).with(FilterFn::new(may_be_heard)).with(lines))
    }
}

fn filter(settings: &config::Log) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(&settings.level)
        .map_err(|source| LogError::Filter { text: settings.level.clone(), source })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Whether a line of this sort can be free of what passes through a library.
fn may_be_heard(line: &Metadata<'_>) -> bool {
    let room = line.target().split("::").next().unwrap_or_default();
    *line.level() <= Level::INFO || matches!(room, "lovable" | "lovabled")
}

/// Says where, and what only if the text was in the source: a message put together
/// at run time may quote a prompt (slicing a text in the middle of a character does).
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let what = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    tracing::error!(target: "lovable", %place, thread = name, "panic: {what}");
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.target {
            Target::Stderr => io::stderr().lock().write(bytes),
            Target::File { file, .. } => file.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    fn logged(level: &str, format: config::LogFormat, act: impl FnOnce(&Log)) -> String {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let log = Log::to_file(&path).unwrap();
        let settings = config::Log { format, level: level.to_owned() };
        tracing::subscriber::with_default(log.subscriber(&settings).unwrap(), || act(&log));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn libraries_are_not_heard_below_info_whatever_the_filter_says() {
        for level in ["trace", "hyper=trace", "trace,hyper=trace,reqwest=debug", "[x]=trace"] {
            let text = logged(level, config::LogFormat::Text, |_| {
                tracing::trace!(target: "hyper::proto", "a prompt");
                tracing::debug!(target: "reqwest", "a prompt");
                tracing::debug!(target: "lovable_evil", "a prompt");
                tracing::info!(target: "hyper", "hello");
            });
            assert!(!text.contains("prompt"), "{level}: {text}");
        }
        let text = logged("trace", config::LogFormat::Text, |_| {
            tracing::trace!(target: "lovable::scan", "ours");
            tracing::trace!(target: "lovabled", "ours too");
        });
        assert_eq!(text.matches("ours").count(), 2, "{text}");
    }

    #[test]
    fn the_level_can_be_changed_while_it_runs() {
        let text = logged("info", config::LogFormat::Text, |log| {
            tracing::debug!(target: "lovable", "before");
            let settings = config::Log { level: "debug".to_owned(), ..config::Log::default() };
            log.set_level(&settings).unwrap();
            tracing::debug!(target: "lovable", "after");
        });
        assert!(text.contains("after") && !text.contains("before"), "{text}");
    }

    #[test]
    fn json_lines_are_json() {
        let text = logged("info", config::LogFormat::Json, |_| tracing::info!(port = 7, "a\nb"));
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["fields"]["port"], 7);
    }

    #[test]
    fn a_moved_file_is_opened_again() {
        let home = tempfile::tempdir().unwrap();
        let (path, moved) = (home.path().join("log"), home.path().join("log.1"));
        let mut log = Log::to_file(&path).unwrap();
        log.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        log.write_all(b"two\n").unwrap();
        log.reopen();
        log.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "three\n");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let settings = config::Log { level: "lovable=loud".to_owned(), ..config::Log::default() };
        let error = Log::to_stderr().subscriber(&settings).err().unwrap().to_string();
        assert!(error.starts_with("`lovable=loud` is no log filter"), "{error}");
    }
}
