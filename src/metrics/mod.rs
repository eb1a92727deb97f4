//! What monitoring systems are told: sums since the start, as families of numbers.
//!
//! Where OpenTelemetry's semantic conventions for generative AI have a name for something
//! (`gen_ai.…`, still in development there), it is called so, with their attributes and the
//! bounds that they advise; what only we have begins with `lovable.`. For our callers we are the
//! model server (`gen_ai.server.…` counts requests), for model servers we are the client
//! (`gen_ai.client.…` counts attempts).
//!
//! Every series costs memory here and in whatever reads it, so no label has a value that a
//! caller has written, and servers and models are told apart up to a limit only. How a family
//! looks in Prometheus or OTLP is not known here.

mod counted;
mod family;

pub use self::{
    counted::Counted,
    family::{Buckets, Family, Labels, Point, Points, Unit},
};
use crate::{
    generate::{Operation, Outcome},
    server::KindId,
};

/// The conventions' name of an operation.
pub fn operation(it: Operation) -> &'static str {
    match it {
        Operation::Chat => "chat",
        Operation::Complete => "text_completion",
        Operation::Embed => "embeddings",
    }
}

/// The conventions' name of who answers: nearly always the kind of the server.
pub fn provider(kind: &KindId) -> &str {
    match kind.as_str() {
        "gemini" => "gcp.gemini",
        other => other,
    }
}

/// What a request that was no success ended with: what its caller was told, or how it ended.
pub fn error(outcome: &Outcome) -> Option<&str> {
    let ended = || outcome.failure.as_deref().unwrap_or(outcome.ending.as_str());
    (!outcome.ending.is_success()).then(ended)
}
