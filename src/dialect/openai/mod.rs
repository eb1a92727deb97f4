//! OpenAI's language: chat completions, completions, embeddings, models.
//!
//! Facing the caller: `peek` finds what routing needs, `refuse` and `break_off`
//! say what went wrong, `list` and `one` say what there is. Facing a server:
//! `Request::readdress` splices the caller's own bytes, `Reader` judges each
//! event of a stream, `judge_plain` a whole answer, `Fold` makes one out of a
//! stream. What nobody here has a name for goes through unchanged.

mod chunk;
mod fold;
mod generate;
mod plain;
mod reader;
mod request;
mod writer;

pub use self::{
    fold::Fold,
    generate::generate,
    plain::{Plain, judge_plain},
    reader::{Judged, Reader, Verdict},
    request::{Readdress, Request, peek},
    writer::{DONE, KEEP_ALIVE, Listed, break_off, list, one, refuse},
};
