//! llama-cpp-python's own server.
//!
//! It answers one request at a time, and unless it was told otherwise a new one breaks off the
//! answer that somebody else is having: so it is only given one. A last turn of the model is
//! answered from the start, flags or not (0.3.36, recorded).

use super::{Answers, Kind, Refusal, Verdict, listing, listing::Listing, said};
use crate::{
    fault::Cause,
    server::{Model, Sighting},
};

/// llama-cpp-python.
pub(super) struct LlamaCppPython;

impl Kind for LlamaCppPython {
    fn id(&self) -> &'static str {
        "llamacpppython"
    }

    fn name(&self) -> &'static str {
        "llama-cpp-python"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[8000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let list = match listing::known(answers, false, "me") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let Listing::Models(entries) = Listing::of(list) else { return Verdict::No };
        // Who else calls the owner so has no list of permissions.
        if !entries.iter().all(|it| it["permissions"].is_array()) {
            return Verdict::No;
        }
        let one = entries.len() == 1;
        listing::proof(Sighting { slots: Some(1), ..Sighting::of(self.id()) }, list, |entry| {
            let mut model: Model = listing::model(entry)?;
            // Of several it has in memory the one that was asked for last, and does not say which.
            model.loaded = one.then_some(true);
            Some(model)
        })
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        said::in_common(refusal, &NOT_HERE)
    }

    fn wants_uuids(&self) -> bool {
        // 400 and no word else (0.3.36, tried).
        true
    }

    fn own_headers(&self) -> &'static [&'static str] {
        // How long it took, as OpenAI writes it (0.3.36, recorded).
        &["openai-processing-ms"]
    }

    fn plain_is_cancelled(&self) -> bool {
        // Not known. A plain request goes up as it came, since its streams have no counts.
        true
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

/// What another server may well take.
const NOT_HERE: [&str; 2] = [
    // Without the flag.
    "must be created with embedding=true",
    // Parts of content where its template wants a text.
    "can only concatenate str",
];
