//! The live feed: `GET /lovable/v1/events`, one JSON object per server-sent event.
//!
//! It opens with `state`, the whole of it; then come changes. A reader that
//! falls behind gets `state` again in place of what it missed, with how much that
//! was, so whoever applies each event to what it holds is right again at once.

use serde::{Deserialize, Serialize};

use super::{HardwareView, ModelView, RequestView, ServerView};
use crate::{
    generate::Operation,
    server::{ModelName, ServerId},
};

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventView {
    /// Everything, as it is now; what the reader held before is void.
    State {
        /// When.
        at: String,
        /// How many changes the reader was too slow for; `null` at the beginning.
        #[serde(default)]
        missed: Option<u64>,
        /// All servers.
        servers: Vec<ServerView>,
        /// All models.
        #[serde(default)]
        models: Vec<ModelView>,
        /// The requests that run.
        #[serde(default)]
        requests: Vec<BegunView>,
        /// How busy the machine is; `null` until measured, which begins now.
        #[serde(default)]
        hardware: Option<HardwareView>,
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
    /// A model is new, or something of it changed.
    Model {
        /// When.
        at: String,
        /// As it is now.
        model: Box<ModelView>,
    },
    /// No server has this model any more.
    ModelGone {
        /// When.
        at: String,
        /// Its name.
        name: ModelName,
    },
    /// A request has begun.
    Begun {
        /// When.
        at: String,
        /// The request.
        request: Box<BegunView>,
    },
    /// A request is over.
    Request {
        /// When.
        at: String,
        /// The request.
        request: Box<RequestView>,
    },
    /// How busy the machine is: once a second for as long as somebody listens.
    Hardware {
        /// When.
        at: String,
        /// What was seen.
        hardware: HardwareView,
    },
}

/// A request that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunView {
    /// The id that the caller gets in `x-lovable-request-id`.
    pub request_id: String,
    /// When it arrived.
    pub at: String,
    /// The program that asks, by its own word.
    pub caller: Option<String>,
    /// The user that it runs as, where it came over the socket.
    pub uid: Option<u32>,
    /// The language of the caller.
    pub dialect: String,
    /// What is wanted.
    pub operation: Operation,
    /// The model as the caller wrote it.
    pub asked: String,
    /// Whether the caller wants a stream.
    pub stream: bool,
}

impl EventView {
    /// When it was.
    pub fn at(&self) -> &str {
        match self {
            Self::State { at, .. }
            | Self::Server { at, .. }
            | Self::Forgotten { at, .. }
            | Self::Model { at, .. }
            | Self::ModelGone { at, .. }
            | Self::Begun { at, .. }
            | Self::Request { at, .. }
            | Self::Hardware { at, .. } => at,
        }
    }
}
