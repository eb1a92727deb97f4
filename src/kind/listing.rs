//! The list of models that `GET /v1/models` gives, the OpenAI way.
//!
//! Nearly every server has it. Whose list it is only shows in `owned_by`, and
//! what else stands in an entry is for each kind to know.

use serde_json::Value;

use super::{Answer, Answers, Door, Json, Operation, Question, Verdict, fact};
use crate::server::{Model, Problem, Sighting};

/// Where it is.
pub(super) const PATH: &str = "/v1/models";

/// What the path said.
pub(super) enum Listing {
    /// A list; the entries are objects with an `id`.
    Models(Vec<Value>),
    /// The beginning of a JSON text.
    Torn,
    /// Nothing of that sort.
    Other,
}

impl Listing {
    /// Reads an answer.
    pub(super) fn of(answer: &Answer) -> Self {
        if answer.status != 200 {
            return Self::Other;
        }
        let mut value = match answer.json() {
            Json::Whole(value) => value,
            Json::Torn => return Self::Torn,
            Json::None => return Self::Other,
        };
        // LM Studio says 200 with an error to paths that it does not know.
        if value["error"].is_string() {
            return Self::Other;
        }
        // Ollama without models says null.
        if value["data"].is_null() && value["object"] == "list" {
            return Self::Models(Vec::new());
        }
        let says_so = value["object"] == "list";
        match super::take_array(&mut value, "data") {
            // A list of nothing is one only where it says so: many an app has an empty `data`.
            Some(entries) if entries.is_empty() && !says_so => Self::Other,
            Some(entries) if entries.iter().all(|it| it["id"].is_string()) => Self::Models(entries),
            _ => Self::Other,
        }
    }

    /// Whether some entry says that it belongs to this owner: a hint.
    pub(super) fn mentions(&self, owner: &str) -> bool {
        match self {
            Self::Models(entries) => entries.iter().any(|it| it["owned_by"] == owner),
            Self::Torn | Self::Other => false,
        }
    }

    /// Whether all entries say so: a proof. A router in front of several
    /// servers may pass on the owners that they name.
    pub(super) fn is_owned_by(&self, owner: &str) -> bool {
        match self {
            Self::Models(entries) => !entries.is_empty() && entries.iter().all(|it| it["owned_by"] == owner),
            Self::Torn | Self::Other => false,
        }
    }
}

/// Asks for it.
pub(super) fn ask() -> Verdict {
    Verdict::Ask(Question::get(PATH))
}

/// The list of a server that is known by something else already (`says_so`), or by this owner;
/// else what follows.
pub(super) fn known<'a>(answers: &'a Answers, says_so: bool, owner: &str) -> Result<&'a Answer, Verdict> {
    match answers.get(PATH) {
        None if says_so => Err(ask()),
        Some(list) if says_so || Listing::of(list).is_owned_by(owner) => Ok(list),
        _ => Err(Verdict::No),
    }
}

/// Whether there are entries, and all of them have these fields and no others: what a server
/// lists that says nothing of itself.
pub(super) fn is_bare(list: &Answer, fields: &[&str]) -> bool {
    let is_bare = |entry: &Value| {
        entry
            .as_object()
            .is_some_and(|it| it.len() == fields.len() && fields.iter().all(|one| it.contains_key(*one)))
    };
    matches!(Listing::of(list), Listing::Models(entries) if !entries.is_empty() && entries.iter().all(is_bare))
}

/// The models of a list, as `model` reads its entries.
pub(super) fn models(list: &Answer, model: impl FnMut(&Value) -> Option<Model>) -> Vec<Model> {
    match Listing::of(list) {
        Listing::Models(entries) => entries.iter().filter_map(model).collect(),
        Listing::Torn | Listing::Other => Vec::new(),
    }
}

/// The end of a conversation with a server that is known: its models by its list, or why it does
/// not give it.
pub(super) fn proof(
    mut sighting: Sighting,
    list: &Answer,
    model: impl FnMut(&Value) -> Option<Model>,
) -> Verdict {
    match Listing::of(list) {
        Listing::Models(entries) => sighting.models = entries.iter().filter_map(model).collect(),
        Listing::Torn => return Verdict::NotYet,
        Listing::Other if matches!(list.status, 401 | 403) => sighting.problem = Some(Problem::NeedsKey),
        Listing::Other if list.status >= 500 => sighting.problem = Some(Problem::Unhealthy),
        Listing::Other => return Verdict::No,
    }
    Verdict::proof(sighting)
}

/// A model of which its entry says no more than its name and, in the field of vLLM, the context
/// that it was loaded with.
pub(super) fn model(entry: &Value) -> Option<Model> {
    let mut model = Model::named(entry["id"].as_str()?);
    model.context_length = fact::count(&entry["max_model_len"]);
    model.loaded_context_length = model.context_length;
    Some(model)
}

/// What the word for its state says of whether a model is in memory.
pub(super) fn is_loaded(state: &str) -> Option<bool> {
    match state {
        "loaded" => Some(true),
        "unloaded" | "loading" | "reloading" => Some(false),
        _ => None,
    }
}

/// The doors of a server that only holds conversations.
pub(super) fn doors_of_chat(operation: Operation) -> &'static [Door] {
    match operation {
        Operation::Chat => super::openai_doors(operation),
        Operation::Complete | Operation::Embed => &[],
    }
}

/// The doors of a server that has no vectors.
pub(super) fn doors_of_words(operation: Operation) -> &'static [Door] {
    match operation {
        Operation::Embed => &[],
        Operation::Chat | Operation::Complete => super::openai_doors(operation),
    }
}
