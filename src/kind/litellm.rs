//! LiteLLM's proxy: a gateway.
//!
//! `GET /health` sends a request to every model behind it, and may cost money: nothing is asked
//! but its list. Where its answers are made is its configuration's secret, so it counts as far
//! away until a person says otherwise.

use super::{Answer, Answers, Kind, Refusal, Verdict, fact, gateway, listing, listing::Listing, said};
use crate::{
    fault::Cause,
    server::{Problem, Sighting},
};

/// LiteLLM.
pub(super) struct LiteLlm;

impl Kind for LiteLlm {
    fn id(&self) -> &'static str {
        "litellm"
    }

    fn name(&self) -> &'static str {
        "LiteLLM"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[4000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let Some(list) = answers.get(listing::PATH) else {
            let says_so = answers.iter().any(|(_, it)| gateway::is_litellm(it));
            return if says_so { listing::ask() } else { Verdict::No };
        };
        let listed = match Listing::of(list) {
            Listing::Models(entries) => !entries.is_empty() && entries.iter().all(gateway::is_of_litellm),
            Listing::Torn | Listing::Other => false,
        };
        if !listed && !answers.iter().any(|(_, it)| gateway::is_litellm(it)) {
            return Verdict::No;
        }
        let version = answers.iter().find_map(|(_, it)| it.header("x-litellm-version"));
        let version = version.and_then(|it| fact::text(&it.into()));
        let mut sighting = Sighting { version, forwards: true, ..Sighting::of(self.id()) };
        if wants_key(list) {
            sighting.problem = Some(Problem::NeedsKey);
            return Verdict::proof(sighting);
        }
        listing::proof(sighting, list, listing::model)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            402 => Some(Cause::NoCredit),
            429 if it.code == "insufficient_quota" => Some(Cause::NoCredit),
            // It says so to a key that it does not know, where it has no database to look it up.
            400 if it.sort == "no_db_connection" => Some(Cause::NeedsKey),
            _ => said::in_common(refusal, &[]),
        }
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

/// Without a database it says 400 or 500 to a missing key.
fn wants_key(list: &Answer) -> bool {
    match list.status {
        401 | 403 => true,
        400 | 500 => {
            let it = said::Said::of(&list.body);
            it.sort == "no_db_connection"
                || it.sort == "auth_error"
                || it.has(&["no api key", "api key passed"])
        }
        _ => false,
    }
}
