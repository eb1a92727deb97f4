//! Whether a prompt fits into the context that a model has at a server.
//!
//! What counts is the context that it was loaded with; where it is not loaded, the longest
//! that it was made for. Without a tokenizer a length is only estimated. So a server is out
//! only where even the fewest tokens that the prompt can have are too many; where it is a
//! matter of the estimate the tokenizer of the server counts, if it has one for callers;
//! else the request is sent, to the server with more room first, and that server counts
//! for itself: none is ever asked in a way in which it may cut a prompt unless the caller
//! itself said so.

use std::fmt;

use super::Ask;
use crate::{kind, registry::Server, server::Model};

/// How well prompt and answer fit, as far as can be estimated; best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    /// Both do, or nobody knows.
    Enough,
    /// The prompt does; the answer may end early.
    ForThePrompt,
    /// Perhaps not even the prompt.
    Doubtful,
}

/// A prompt that surely does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    /// The tokens of the prompt, estimated.
    pub(super) tokens: u64,
    /// The tokens of the answer, where it is those that are too many.
    pub(super) answer: Option<u64>,
    pub(super) context: u64,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, answer, context } = self;
        write!(f, "has a context of {context} tokens, too small for ")?;
        match answer {
            Some(answer) => write!(f, "an answer of up to {answer}"),
            None => write!(f, "a prompt of about {tokens}"),
        }
    }
}

/// How well the request fits there, and whether it surely does not.
pub(super) fn of(server: &Server, model: &Model, ask: &Ask<'_>) -> (Room, Option<TooLong>) {
    let Some(context) = model.loaded_context_length.or(model.context_length) else {
        return (Room::Enough, None);
    };
    let kind = kind::by_id(server.kind.as_str());
    let answer = ask.head.max_tokens.unwrap_or(0);
    if answer > context && kind.is_some_and(|it| it.wants_room_for_the_answer()) {
        let tokens = (ask.length)().map_or(ask.bytes / USUAL, |it| it.likely);
        return (Room::Doubtful, Some(TooLong { tokens, answer: Some(answer), context }));
    }
    // At a glance: nearly every request is far from any context.
    let rough = ask.bytes / 2;
    let short = if answer >= context { Room::ForThePrompt } else { Room::Enough };
    if rough <= context && (answer >= context || rough.saturating_add(answer) <= context) {
        return (short, None);
    }
    let Some(length) = (ask.length)() else { return (short, None) };
    // A caller that says how large a context it wants gets that one, where it can be had.
    let loads = kind.is_some_and(|it| it.loads_context());
    let context = match length.context.filter(|it| loads && *it > 0) {
        Some(wanted) => model.context_length.map_or(wanted, |most| wanted.min(most)),
        None => context,
    };
    if length.least > context {
        let tokens = length.likely;
        return (Room::Doubtful, Some(TooLong { tokens, answer: None, context }));
    }
    let room = match length.likely {
        likely if likely > context => Room::Doubtful,
        likely if likely.saturating_add(answer) > context => Room::ForThePrompt,
        _ => Room::Enough,
    };
    (room, None)
}

/// Whether the estimate may be wrong about whether the prompt fits there: it is up to a fifth
/// too low for most scripts.
pub(super) fn is_near(server: &Server, model: &Model, ask: &Ask<'_>) -> bool {
    let Some(context) = model.loaded_context_length.or(model.context_length) else { return false };
    let bound = context - context / 5;
    let counts = kind::by_id(server.kind.as_str()).is_some_and(|it| it.tokenizer().is_some());
    let may_be = counts && ask.bytes / 2 > bound;
    may_be && (ask.length)().is_some_and(|it| it.least <= context && it.likely > bound)
}

/// How many bytes of a request a token usually is.
const USUAL: u64 = 4;
