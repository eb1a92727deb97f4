//! The live feed: opens with the whole state, then says what changes.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use super::Started;
use crate::{generate::Outcome, hardware::Hardware, registry::Change};

/// What a follower is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Look at everything anew: at the beginning, and after having lagged behind.
    Everything {
        /// How many changes were missed; `None` at the beginning.
        missed: Option<u64>,
    },
    /// Something about servers changed.
    Change(Change),
    /// A request has begun.
    Begun(Arc<Started>),
    /// A request is over.
    Request(Arc<Outcome>),
    /// The machine is this busy.
    Hardware(Arc<Hardware>),
}

/// One follower's place in the feed.
pub struct Follow {
    feed: broadcast::Receiver<Arc<Event>>,
    anew: bool,
}

impl Follow {
    pub(super) fn new(feed: broadcast::Receiver<Arc<Event>>) -> Self {
        Self { feed, anew: true }
    }

    /// Waits for the next event. Safe to drop while waiting.
    pub async fn next(&mut self) -> Arc<Event> {
        if std::mem::take(&mut self.anew) {
            return Arc::new(Event::Everything { missed: None });
        }
        match self.feed.recv().await {
            Ok(event) => event,
            // What was missed is in the state, which is told again.
            Err(RecvError::Lagged(missed)) => Arc::new(Event::Everything { missed: Some(missed) }),
            // The house is gone, and the connection goes with it.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
