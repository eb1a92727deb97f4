//! Outcomes as they are kept, and which of them are meant.
//!
//! A row is a version and what that version wrote; each version has a file of its own that
//! never changes again. Where rows are kept is not known here.

mod row_1;
mod row_2;
#[cfg(test)]
pub(crate) mod tests;

use crate::generate::Outcome;

/// What was read is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged outcome")]
pub struct Damaged;

/// The version of an outcome of which nobody saw how busy the machine was, and of all before
/// that was looked at.
const BARE: u8 = 1;
/// The version with that.
const MEASURED: u8 = 2;

/// An outcome as it is kept.
pub fn row(outcome: &Outcome) -> Vec<u8> {
    match outcome.load {
        None => row_1::write(BARE, outcome),
        Some(load) => row_2::write(MEASURED, outcome, load),
    }
}

/// The outcome that is kept so. A new version is a new arm here.
pub fn read(row: &[u8]) -> Result<Outcome, Damaged> {
    match row {
        [BARE, rest @ ..] => row_1::read(rest),
        [MEASURED, rest @ ..] => row_2::read(rest),
        _ => Err(Damaged),
    }
}

/// Whether a row is that of a request, without reading all of it.
pub fn is_of(row: &[u8], request_id: &str) -> bool {
    match row {
        // Both begin alike.
        [BARE | MEASURED, rest @ ..] => row_1::request_id(rest) == Some(request_id),
        _ => false,
    }
}

/// When the request of a row arrived, without reading all of it.
pub fn at_ms(row: &[u8]) -> Option<u64> {
    match row {
        [BARE | MEASURED, rest @ ..] => row_1::at_ms(rest),
        _ => None,
    }
}

/// Which outcomes are meant. Server and model are those that answered, or were asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Arrived at this time or later, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Arrived before this time.
    pub until_ms: Option<u64>,
    /// Of this server.
    pub server: Option<String>,
    /// Of this model.
    pub model: Option<String>,
    /// Of this program.
    pub caller: Option<String>,
    /// Of this user: who looks may see no others.
    pub uid: Option<u32>,
}

impl Filter {
    /// Whether this one is meant.
    pub fn lets(&self, it: &Outcome) -> bool {
        let last = it.attempts.last();
        let is = |wanted: &Option<String>, it: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| it == Some(wanted))
        };
        self.since_ms.is_none_or(|since| it.at_ms >= since)
            && self.until_ms.is_none_or(|until| it.at_ms < until)
            && is(&self.server, last.map(|it| it.server.as_str()))
            && is(&self.model, last.map(|it| it.model.as_str()))
            && is(&self.caller, it.caller.program.as_deref())
            && self.uid.is_none_or(|uid| it.caller.uid == Some(uid))
    }
}
