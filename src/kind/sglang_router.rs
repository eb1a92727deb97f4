//! SGLang's router: a gateway to SGLangs, or to whatever speaks like one.
//!
//! It lists its workers with their addresses, but what stands there may pass requests on as well,
//! so it counts as far away until a person says otherwise.

use super::{Answers, Kind, Pulse, Question, Verdict, doing, listing, listing::Listing};
use crate::server::Sighting;

/// SGLang's router.
pub(super) struct SglangRouter;

const WORKERS: &str = "/workers";

impl Kind for SglangRouter {
    fn id(&self) -> &'static str {
        "sglangrouter"
    }

    fn name(&self) -> &'static str {
        "SGLang's router"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[30000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let (Some(root), Some(list)) = (answers.get("/"), answers.get(listing::PATH)) else {
            return Verdict::No;
        };
        if root.status != 404 || !root.body.is_empty() || !Listing::of(list).is_owned_by("local") {
            return Verdict::No;
        }
        let Some(workers) = answers.get(WORKERS) else { return Verdict::Ask(Question::get(WORKERS)) };
        let workers = workers.success().unwrap_or_default();
        if !workers["workers"].is_array() || !workers["stats"]["regular_count"].is_u64() {
            return Verdict::No;
        }
        listing::proof(Sighting { forwards: true, ..Sighting::of(self.id()) }, list, listing::model)
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        doing::there(self.id(), answers, WORKERS)
    }
}
