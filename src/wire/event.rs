//! The live feed: `GET /lovable/v1/events`, one JSON object per server-sent event.
//!
//! It opens with `state`, the whole of it; then come changes. A reader that
//! falls behind gets `state` again in place of what it missed, so whoever
//! applies each event to what it holds is right again at once.

use serde::{Deserialize, Serialize};

use super::{RequestView, ServerView};
use crate::server::ServerId;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventView {
    /// Everything, as it is now; what the reader held before is void.
    State {
        /// When.
        at: String,
        /// All servers.
        servers: Vec<ServerView>,
    },
    /// A server is new, or something of it changed.
    Server {
        /// When.
        at: String,
        /// As it is now.
        server: Box<ServerView>,
    },
    /// A server is gone for good.
    Forgotten {
        /// When.
        at: String,
        /// Its id, which is never given again.
        id: ServerId,
    },
    /// A request is over.
    Request {
        /// When.
        at: String,
        /// The request.
        request: Box<RequestView>,
    },
}

impl EventView {
    /// When it was.
    pub fn at(&self) -> &str {
        match self {
            Self::State { at, .. }
            | Self::Server { at, .. }
            | Self::Forgotten { at, .. }
            | Self::Request { at, .. } => at,
        }
    }
}
