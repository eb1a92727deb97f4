//! text-generation-webui.
//!
//! Its list says `user`, as many a small server does; a path of its own says which model it has
//! in memory. That one answers, whatever name is asked for.

use super::{Answers, Kind, Question, Verdict, fact, listing, listing::Listing};
use crate::server::{Model, Sighting};

/// text-generation-webui.
pub(super) struct TextGenerationWebUi;

const INFO: &str = "/v1/internal/model/info";

impl Kind for TextGenerationWebUi {
    fn id(&self) -> &'static str {
        "textgenerationwebui"
    }

    fn name(&self) -> &'static str {
        "text-generation-webui"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[5000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        if !answers.get(listing::PATH).is_some_and(|it| Listing::of(it).is_owned_by("user")) {
            return Verdict::No;
        }
        let Some(info) = answers.get(INFO) else { return Verdict::Ask(Question::get(INFO)) };
        let Some(info) =
            info.success().filter(|it| it["lora_names"].is_array() && it.get("loader").is_some())
        else {
            return Verdict::No;
        };
        // It writes the word None where there is none.
        let name = fact::text(&info["model_name"]).filter(|it| it != "None");
        let model = name.map(|it| Model { loaded: Some(true), ..Model::named(it) });
        Verdict::proof(Sighting { models: model.into_iter().collect(), ..Sighting::of(self.id()) })
    }

    fn plain_is_cancelled(&self) -> bool {
        true
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
