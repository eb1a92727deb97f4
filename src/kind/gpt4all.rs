//! GPT4All: a desktop program with a server, which says 401 to everything while it is off.
//!
//! It refuses to stream, so it is asked for whole answers.

use super::{Answers, Door, Kind, Operation, Verdict, listing};
use crate::server::Sighting;

/// GPT4All.
pub(super) struct Gpt4All;

impl Kind for Gpt4All {
    fn id(&self) -> &'static str {
        "gpt4all"
    }

    fn name(&self) -> &'static str {
        "GPT4All"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[4891]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        match listing::known(answers, false, "humanity") {
            Ok(list) => listing::proof(Sighting::of(self.id()), list, listing::model),
            Err(verdict) => verdict,
        }
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        listing::doors_of_words(operation)
    }

    fn plain_is_cancelled(&self) -> bool {
        // Not known, but there is no other way to ask it.
        true
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
