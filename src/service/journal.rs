//! Writes log lines into systemd's journal with their fields, in its own
//! protocol: one datagram for each line, a variable and its value a line.
//!
//! Under systemd stderr is the journal as well, but there a line is only text.
//! `JOURNAL_STREAM` says which stream that is; when it is our stderr, the
//! journal is written to directly, and `journalctl LOVABLE_SERVER=ollama` finds
//! the requests of a server.

use std::{
    ffi::OsStr,
    fmt::{self, Write as _},
    io,
    os::unix::net::UnixDatagram,
    path::Path,
};

use rustix::fs::fstat;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Beyond this the system may not take a datagram; no line of ours is near it.
const LONGEST: usize = 64 << 10;

/// The layer that writes to the journal.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal, if our stderr is a stream of it.
    pub(super) fn behind_stderr(stream: Option<&OsStr>) -> Option<Self> {
        let file = fstat(io::stderr()).ok()?;
        is_stream(stream?.to_str()?, file.st_dev as u64, file.st_ino as u64)
            .then(|| Self::at(Path::new(SOCKET)).ok())
            .flatten()
    }

    fn at(socket: &Path) -> io::Result<Self> {
        let journal = UnixDatagram::unbound()?;
        journal.connect(socket)?;
        // A journal that hangs must not hold up a request.
        journal.set_nonblocking(true)?;
        Ok(Self(journal))
    }
}

/// Whether `DEVICE:INODE` names this file.
fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    let number = |it: Option<&str>| it.and_then(|it| it.parse().ok());
    let mut parts = stream.split(':');
    number(parts.next()) == Some(device) && number(parts.next()) == Some(inode)
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let mut entry = Entry::default();
        entry.put("PRIORITY", priority(*about.level()));
        entry.put("SYSLOG_IDENTIFIER", "lovabled");
        entry.put("TARGET", about.target());
        event.record(&mut entry);
        let message = entry.message();
        entry.put("MESSAGE", &message);
        entry.bytes.truncate(LONGEST);
        // Nobody is left to be told that the log is full.
        let _ = self.0.send(&entry.bytes);
    }
}

/// syslog's numbers.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// An entry of the journal.
#[derive(Debug, Default)]
struct Entry {
    bytes: Vec<u8>,
    text: String,
    /// The fields as text, for those who read only the message.
    fields: String,
}

impl Entry {
    fn put(&mut self, name: &str, value: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            // A value with line feeds comes with its length.
            self.bytes.push(b'\n');
            self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }

    fn field(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.text);
            return;
        }
        let upper = field.name().to_ascii_uppercase();
        let name: String =
            upper.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' }).collect();
        self.put(&format!("LOVABLE_{name}"), value);
        let _ = write!(self.fields, " {}={value}", field.name());
    }

    fn message(&self) -> String {
        format!("{}{}", self.text, self.fields)
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn written(act: impl FnOnce()) -> String {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal");
        let listener = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::at(&path).unwrap());
        tracing::subscriber::with_default(subscriber, act);
        let mut buffer = [0; 1024];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_line_is_an_entry_with_fields() {
        let entry = written(|| tracing::info!(server = "ollama", total_ms = 7, "answered"));
        for line in [
            "PRIORITY=6\n",
            "SYSLOG_IDENTIFIER=lovabled\n",
            "LOVABLE_SERVER=ollama\n",
            "LOVABLE_TOTAL_MS=7\n",
            "MESSAGE=answered server=ollama total_ms=7\n",
        ] {
            assert!(entry.contains(line), "{line:?} in {entry:?}");
        }
    }

    #[test]
    fn a_line_feed_begins_no_other_field() {
        let entry = written(|| tracing::warn!(server = "a\nPRIORITY=0", "b"));
        assert!(entry.contains("LOVABLE_SERVER\n\u{c}\0\0\0\0\0\0\0a\nPRIORITY=0\n"), "{entry:?}");
    }

    #[test]
    fn only_the_stream_that_is_named_is_the_journal() {
        for (stream, is) in [("8:15", true), ("8:16", false), ("9:15", false), ("", false), ("8", false)] {
            assert_eq!(is_stream(stream, 8, 15), is, "{stream}");
        }
        assert!(Journal::behind_stderr(None).is_none());
        assert!(Journal::behind_stderr(Some(OsStr::new("1:1"))).is_none());
    }
}
