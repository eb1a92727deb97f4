//! Why a database does not take what it is sent, in our own words: its words may quote a row.

use std::fmt;

use tokio_postgres::error::{Error, SqlState};

use crate::store::ReadError;

/// Why nothing goes on just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens there, or nobody knows where that is.
    Unreachable,
    /// It takes too long.
    Slow,
    /// The connection ended, or what came on it is not PostgreSQL's.
    Broken,
    /// It is to be encrypted, and the other end cannot.
    NoTls,
    /// The other end does not prove who it is, or the file of who vouches for it cannot be read.
    Tls(String),
    /// It does not let this user in, or not with this password.
    Login,
    /// It has no such database.
    NoDatabase,
    /// This user may not do what is needed.
    NotAllowed,
    /// It takes nothing: a copy of another one.
    ReadOnly,
    /// It is starting or stopping, or has no room.
    Busy,
    /// A newer lovable made the tables, in this layout.
    Newer(i32),
    /// It does not take these rows as they are.
    Rows(String),
    /// Anything else that it has a code for.
    Other(String),
    /// What is to be sent cannot be read.
    Unread(ReadError),
}

impl Trouble {
    /// What programs call it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::NoTls => "no_tls",
            Self::Tls(_) => "tls",
            Self::Login => "login",
            Self::NoDatabase => "no_database",
            Self::NotAllowed => "not_allowed",
            Self::ReadOnly => "read_only",
            Self::Busy => "busy",
            Self::Newer(_) => "newer",
            Self::Rows(_) => "rows",
            Self::Other(_) => "other",
            Self::Unread(_) => "unread",
        }
    }

    /// What an error of the library means, once there is a connection.
    pub(super) fn of(error: &Error) -> Self {
        let Some(code) = error.code() else { return Self::Broken };
        let known = known(code);
        match code.code().get(..2) {
            _ if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly,
            _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::NotAllowed,
            Some("28") => Self::Login,
            Some("3D") => Self::NoDatabase,
            Some("22" | "23") => Self::Rows(known),
            Some("53" | "57") => Self::Busy,
            Some("08") => Self::Broken,
            _ => Self::Other(known),
        }
    }

    /// The same while it is asked to let us in: what has no code then is that it wants to be
    /// shown something else than we have.
    pub(super) fn of_login(error: &Error) -> Self {
        let is_io = std::error::Error::source(error).is_some_and(|it| it.is::<std::io::Error>());
        if error.code().is_none() && !is_io && !error.is_closed() { Self::Login } else { Self::of(error) }
    }
}

/// A code, if it is one: five letters and digits.
fn known(code: &SqlState) -> String {
    let code = code.code();
    let is_one = code.len() == 5 && code.bytes().all(|it| it.is_ascii_alphanumeric());
    if is_one { code.to_owned() } else { "?".to_owned() }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("it cannot be reached"),
            Self::Slow => f.write_str("it takes too long"),
            Self::Broken => f.write_str("the connection broke"),
            Self::NoTls => f.write_str("it does not encrypt connections"),
            Self::Tls(why) => write!(f, "it does not prove who it is: {why}"),
            Self::Login => f.write_str("it refuses the user or the password"),
            Self::NoDatabase => f.write_str("it has no such database"),
            Self::NotAllowed => f.write_str("the user lacks a right there"),
            Self::ReadOnly => f.write_str("it takes nothing: it is a read-only copy"),
            Self::Busy => f.write_str("it is starting, stopping or full"),
            Self::Newer(layout) => write!(f, "a newer lovable made its tables (layout {layout})"),
            Self::Rows(code) => write!(f, "it refuses a row (error {code})"),
            Self::Other(code) => write!(f, "it answers with error {code}"),
            Self::Unread(error) => error.fmt(f),
        }
    }
}
