//! mlx-lm's server.
//!
//! Written on Python's own HTTP server, in HTTP/1.0, with nothing of itself in any header or
//! list: it is known by that server, by the text that it has for paths it does not know, by
//! entries that have three fields and no owner, and by its health, all together. A model is
//! loaded when it is asked for, and one that is not on the disk is fetched, so no name is asked
//! for that is not in its list.

use super::{
    Answer, Answers, Door, Kind, Operation, Pulse, Question, Refusal, Verdict, doing, listing, said,
};
use crate::{
    fault::Cause,
    server::{Problem, Sighting},
};

/// mlx-lm.
pub(super) struct MlxLm;

const HEALTH: &str = "/health";

impl Kind for MlxLm {
    fn id(&self) -> &'static str {
        "mlxlm"
    }

    fn name(&self) -> &'static str {
        "mlx-lm"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[8080]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let (Some(root), Some(list)) = (answers.get("/"), answers.get(listing::PATH)) else {
            return Verdict::No;
        };
        let python = |it: &Answer| it.header("server").is_some_and(|it| it.starts_with("BaseHTTP/"));
        let nowhere = root.status == 404 && root.body == "Not Found";
        if !nowhere || !python(root) || !python(list) || !listing::is_bare(list, &["created", "id", "object"])
        {
            return Verdict::No;
        }
        let Some(health) = answers.get(HEALTH) else { return Verdict::Ask(Question::get(HEALTH)) };
        let mut sighting = Sighting::of(self.id());
        match health.said_status().as_deref() {
            Some("ok") => {}
            Some("unavailable") => sighting.problem = Some(Problem::Unhealthy),
            _ => return Verdict::No,
        }
        listing::proof(sighting, list, listing::model)
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        listing::doors_of_words(operation)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            404 if it.message == "not found" => Some(Cause::Unsupported),
            // A model that could not be loaded, or failed while it generated (0.32.2, source).
            404 => Some(Cause::Status),
            _ => said::in_common(refusal, &[]),
        }
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        // 503 once the thread that generates has ended.
        doing::there(self.id(), answers, HEALTH)
    }
}
