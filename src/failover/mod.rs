//! The state machine of one request: send, wait, commit, resume, give up.
//!
//! Reports go in (`on_*`), `poll` hands out steps until it has
//! none, and `poll_timeout` says when to poll again if nothing is reported before.
//! The edge obeys: it answers `Choose` from the current ranking, carries out
//! `Send`, and reports what became of it. Nothing here knows HTTP, a dialect or
//! an address; a server is only an id, and chance is the seed.
//!
//! The rules, each of them a property in `properties`:
//!
//! 1. Never two attempts alive at once.
//! 2. After `Commit` something is sent only to go on with an answer whose server
//!    failed, never once `Choose` was answered with `Never`, and each time the
//!    caller's wait for more has a deadline of its own.
//! 3. No server twice, except after a rest: one that was alone in failing with
//!    the request in its hands, failed when content had gone to the caller, died
//!    as all others did (once), did not listen, said that it is loading, or is no
//!    longer busy. No rest is longer than ten seconds.
//! 4. Never more sends than `Policy::sends`. A server that says it is loading has
//!    not worked on the request, so that send is given back; the rests between
//!    such sends and the deadline bound them.
//! 5. After a fault that is the caller's, or our own, nothing is sent any more.
//! 6. Exactly one `Finish` and nothing after it; a live attempt is aborted first.
//! 7. Until content comes everything is over by the deadline. Its clock stands
//!    still while content comes, sent on or held; then only the gap counts. While
//!    it runs, `poll_timeout` never points past it.
//! 8. Reports about an attempt that is no longer current change nothing.
//! 9. Same inputs, same steps.
//! 10. When two or more servers, and every one tried, gave the same server error
//!     after they had the request, its prompt is suspected (`is_poison`).
//!
//! Three phases say what is still free. *Silent*: nothing has gone to the caller,
//! any status can be sent. *Opened*: a waiting stream has its head and
//! keep-alives; servers may still be changed. *Committed*: content is out. A
//! stream is committed by its first content. A plain answer is committed when it
//! is whole, so a fault in its middle is still mended by the next candidate; one
//! that outgrows what may be held is committed early (`on_bound_reached`).
//!
//! An attempt is over when it is reported so (`on_end`, `on_fault`), or by
//! `Abort`; an attempt that was reported over is not aborted.

mod budget;
mod machine;
mod pace;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use self::{budget::Budget, machine::Failover, pace::Paces};
use crate::{fault::Fault, generate::Ending, server::ServerId};

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

/// How far one request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long each thing is waited for.
    pub patience: Patience,
    /// The caller's own patience before the first content, if it said so.
    pub caller: Option<Duration>,
    /// Whether the caller takes the answer as it comes.
    pub stream: bool,
    /// The most sends; the first is always made.
    pub sends: u32,
    /// How often servers may be tried again after faults of their own, where the
    /// request itself is not suspected.
    pub rests: u32,
    /// The first such rest; each further one is twice as long, less some jitter.
    pub rest: Duration,
}

impl Default for Policy {
    /// Four rests are about three seconds: a server that is restarted is back by
    /// then, and a person still waits. Eight sends let those rests happen and
    /// pass over a few dead servers that nobody has noticed yet.
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            caller: None,
            stream: true,
            sends: 8,
            rests: 4,
            rest: Duration::from_millis(200),
        }
    }
}

/// One attempt of a request; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNo(pub u32);

/// The answer to `Step::Choose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// This one, which is not among `Failover::tried`.
    Server {
        /// Its id.
        server: ServerId,
        /// Whether its model is known to be loading, or not loaded.
        loading: bool,
    },
    /// Nobody now; somebody may be free at that time.
    Later(Instant),
    /// Nobody.
    Nobody,
    /// Nobody, ever: what has gone to the caller cannot be gone on with.
    Never,
}

/// What the edge has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a step has to be carried out"]
pub enum Step {
    /// Choose a server that is not among `Failover::tried`, and say so with `on_chosen`.
    Choose,
    /// Send the request to the server that was chosen.
    Send(AttemptNo),
    /// Drop the connection of this attempt.
    Abort {
        /// The attempt.
        attempt: AttemptNo,
        /// What the server did wrong when its own patience ran out; `None` when
        /// the caller left or the deadline passed, which is not its fault.
        fault: Option<Fault>,
    },
    /// Give the waiting stream its head and keep-alives.
    Open,
    /// Let what is held, and all that comes, go to the caller.
    Commit,
    /// The request is over.
    Finish(Ending),
}

/// What has gone to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing; any status can be sent.
    Silent,
    /// A head and keep-alives.
    Opened,
    /// Content.
    Committed,
}
