//! The list of models that `GET /v1/models` gives, the OpenAI way.
//!
//! Nearly every server has it. Whose list it is only shows in `owned_by`, and
//! what else stands in an entry is for each kind to know.

use serde_json::Value;

use super::{Answer, Json};

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
        if value["error"].is_string() || !value.is_object() {
            return Self::Other;
        }
        match value["data"].take() {
            Value::Array(entries) if entries.iter().all(|it| it["id"].is_string()) => Self::Models(entries),
            // Ollama without models.
            Value::Null if value["object"] == "list" => Self::Models(Vec::new()),
            _ => Self::Other,
        }
    }

    /// Whether some entry says that it belongs to this owner.
    pub(super) fn is_owned_by(&self, owner: &str) -> bool {
        match self {
            Self::Models(entries) => entries.iter().any(|it| it["owned_by"] == owner),
            Self::Torn | Self::Other => false,
        }
    }
}
