//! Shimmy.
//!
//! Its root names the service, and its list the owner. It imitates Ollama's list too, which says
//! nothing more, so that is not asked for.

use super::{Answers, Kind, Verdict, listing};
use crate::server::Sighting;

/// Shimmy.
pub(super) struct Shimmy;

impl Kind for Shimmy {
    fn id(&self) -> &'static str {
        "shimmy"
    }

    fn name(&self) -> &'static str {
        "Shimmy"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[11435]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let root = answers.get("/").and_then(|it| it.success()).unwrap_or_default();
        match listing::known(answers, root["service"] == "shimmy", "shimmy") {
            Ok(list) => listing::proof(Sighting::of(self.id()), list, listing::model),
            Err(verdict) => verdict,
        }
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
