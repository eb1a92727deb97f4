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
        if value["error"].is_string() {
            return Self::Other;
        }
        // Ollama without models says null.
        if value["data"].is_null() && value["object"] == "list" {
            return Self::Models(Vec::new());
        }
        match super::take_array(&mut value, "data") {
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
