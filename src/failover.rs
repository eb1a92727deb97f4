//! The state machine of one request: send, wait, commit, give up.
use std::time::{Duration, Instant};

/// Four owners of patience, and when a waiting stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the first content of a server that has its model loaded.
    pub first_token: Duration,
    /// For the first content while the model is known to be loading, or not loaded.
    pub load: Duration,
    /// Between two pieces of content.
    pub gap: Duration,
    /// In all, until content comes.
    pub before_commit: Duration,
    /// Until a waiting stream gets its head and keep-alives.
    pub open_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_token: Duration::from_secs(60),
            load: Duration::from_secs(300),
            gap: Duration::from_secs(30),
            before_commit: Duration::from_secs(600),
            open_after: Duration::from_secs(5),
        }
    }
}
