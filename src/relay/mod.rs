//! Carries out one request: obeys `failover`, moves bytes.
//!
//! It knows no policy and no ranking: the machine says when to choose, send,
//! open, commit and finish; `route` says whom; the dialects say what a frame means
//! and how it is said to a caller who speaks another language. What is left here is
//! to do it, to tell the truth about it in headers and in the outcome, and to clean
//! up by dropping.

mod answer;
mod aside;
mod asking;
mod before;
mod conduit;
mod ending;
mod hearing;
mod keeping;
mod live;
mod paying;
mod record;
mod resuming;
mod telling;
mod translation;
mod turn;
mod watch;
mod work;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{HeaderMap, Response};
use tokio::time::Instant;

use self::{conduit::Conduit, watch::Looks, work::work};
use crate::{
    dialect::Request,
    failover::{Budget, Patience},
    fault::Failure,
    generate::Caller,
    housekeeping::Housekeeping,
    queue::Priority,
    route::{Fallback, Readings},
    upstream::Upstream,
};

pub use self::{
    answer::{Shape, refusal},
    aside::Counting,
};

/// A body of any answer of ours.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is known whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What the relay is told by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The four patiences.
    pub patience: Patience,
    /// Names that stand for others.
    pub aliases: BTreeMap<String, String>,
    /// For names, the models that stand in for them, in this order.
    pub chains: BTreeMap<String, Vec<String>>,
    /// How far a stand-in may be when the caller does not say.
    pub fallback: Fallback,
    /// How far it may ever be.
    pub limit: Fallback,
    /// The most bytes of answers that may be held back at once, over all requests.
    pub held: usize,
    /// The memory that the servers of this machine share for their models, in bytes.
    pub gpu_memory: Option<u64>,
}

/// What one caller asked for, beyond the body.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// `x-lovable-fallback`.
    pub fallback: Option<Fallback>,
    /// `x-lovable-timeout-ms`: the caller's own patience before the first token.
    pub timeout: Option<Duration>,
    /// `x-lovable-open-after-ms`.
    pub open_after: Option<Duration>,
    /// `x-lovable-priority`.
    pub priority: Priority,
    /// `x-lovable-session`: the caller's name for the conversation.
    pub session: Option<String>,
}

/// One request as the door hands it over.
pub struct Errand {
    /// What was understood of it.
    pub request: Request,
    /// The body as it came.
    pub body: Bytes,
    /// The id that goes into headers, logs and records.
    pub request_id: String,
    /// What the caller wishes.
    pub wishes: Wishes,
    /// Headers that go to the server.
    pub pass: HeaderMap,
    /// The daemons that it has passed, by their instance ids.
    pub via: Vec<String>,
    /// In whose words failures are told.
    pub shape: Shape,
    /// Who asks.
    pub caller: Caller,
}

/// Carries out requests.
pub struct Relay {
    pub(crate) house: Arc<Housekeeping>,
    upstream: Arc<Upstream>,
    settings: ArcSwap<Settings>,
    budget: Mutex<Budget>,
    looks: Looks,
    readings: Readings,
    held: Arc<AtomicUsize>,
    running: AtomicUsize,
    seed: AtomicU64,
}

impl Relay {
    /// A relay that asks servers through `upstream` and reports to `house`. `seed` feeds jitter and tie-breaks.
    pub fn new(
        house: Arc<Housekeeping>,
        upstream: Arc<Upstream>,
        settings: Settings,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            house,
            upstream,
            settings: ArcSwap::from_pointee(settings),
            budget: Mutex::new(Budget::new(Instant::now().into_std())),
            looks: Looks::default(),
            readings: Readings::default(),
            held: Arc::default(),
            running: AtomicUsize::new(0),
            seed: AtomicU64::new(seed),
        })
    }

    /// Takes over what the configuration says now. Running requests keep what they began with.
    pub fn configure(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// How many requests are being carried out.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Answers a request, from whichever server can.
    pub async fn run(self: Arc<Self>, errand: Errand) -> Response<Body> {
        let seed = self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let request_id = errand.request_id.clone();
        let shape = errand.shape;
        let mut conduit = Conduit::new(|mouth| work(self, errand, mouth, seed));
        let Some(head) = conduit.head().await else {
            tracing::error!(request = request_id, "the work on a request ended without an answer");
            return refusal(&Failure::Internal, shape, &request_id);
        };
        let body = match conduit.whole() {
            Some(bytes) => full(bytes),
            None => conduit.boxed_unsync(),
        };
        let mut response = Response::new(body);
        // Statuses come from a table of ours or from a server's own head, and are valid either way.
        *response.status_mut() =
            hyper::StatusCode::from_u16(head.status).unwrap_or(hyper::StatusCode::BAD_GATEWAY);
        *response.headers_mut() = head.headers;
        response
    }
}
