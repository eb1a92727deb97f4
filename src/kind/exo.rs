//! exo: one server of several machines.
//!
//! Its list is a catalogue, of which nothing answers before it was placed by hand: its state says
//! what was, and on which machines. A model that is placed on any but the one that is asked has
//! its prompts sent there.

use serde_json::Value;

use super::{Answers, Door, Kind, Operation, Pulse, Question, Refusal, Verdict, doing, fact, listing, said};
use crate::{
    fault::Cause,
    server::{Model, Sighting, Zone},
};

/// exo.
pub(super) struct Exo;

const NODE: &str = "/node_id";
const STATE: &str = "/state";

impl Kind for Exo {
    fn id(&self) -> &'static str {
        "exo"
    }

    fn name(&self) -> &'static str {
        "exo"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[52415]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let list = match listing::known(answers, false, "exo") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let Some(node) = answers.get(NODE) else { return Verdict::Ask(Question::get(NODE)) };
        let Some(state) = answers.get(STATE) else { return Verdict::Ask(Question::get(STATE)) };
        let node = node.success().unwrap_or_default();
        let node = node.as_str().or(node["node_id"].as_str()).unwrap_or_default();
        let Some(state) = state.success() else { return Verdict::NotYet };
        let placed: Vec<Placed> = state["instances"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, it)| Placed::of(it))
            .collect();
        listing::proof(Sighting::of(self.id()), list, |entry| model(entry, &placed, node))
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        listing::doors_of_chat(operation)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        if refusal.status == 404 && it.has(&["no instance found"]) {
            return Some(Cause::ModelNotFound);
        }
        said::in_common(refusal, &[])
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        doing::there(self.id(), answers, NODE)
    }

    fn plain_is_cancelled(&self) -> bool {
        // It says so of every connection that is closed.
        true
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

/// A model on the machines that hold it.
struct Placed {
    model: String,
    nodes: Vec<String>,
}

impl Placed {
    /// Reads an instance: an object whose only field is its sort.
    fn of(instance: &Value) -> Option<Self> {
        let it = &instance.as_object()?.values().next()?["shardAssignments"];
        // Older releases have a table by machine, newer ones a list that begins with it.
        let table = it["nodeToRunner"].as_object().into_iter().flatten().map(|(node, _)| Some(node.clone()));
        let list = it["shards"].as_array().into_iter().flatten();
        let list = list.map(|it| it[0].as_str().or(it["nodeId"].as_str()).map(str::to_owned));
        let nodes: Option<Vec<String>> = table.chain(list).collect();
        Some(Self { model: fact::text(&it["modelId"])?, nodes: nodes.unwrap_or_default() })
    }

    fn is_only_on(&self, node: &str) -> bool {
        !self.nodes.is_empty() && self.nodes.iter().all(|it| it == node)
    }
}

fn model(entry: &Value, placed: &[Placed], node: &str) -> Option<Model> {
    let mut model = listing::model(entry)?;
    let mut here = placed.iter().filter(|it| model.name == it.model.as_str()).peekable();
    here.peek()?;
    if !here.all(|it| it.is_only_on(node)) {
        model.zone = Some(Zone::Lan);
    }
    model.family = fact::text(&entry["family"]);
    model.quantization = fact::text(&entry["quantization"]);
    model.context_length = fact::count(&entry["context_length"]);
    model.loaded = Some(true);
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_was_placed_answers_and_where_it_was_placed() {
        let of = |instance: Value| {
            let placed: Vec<Placed> = Placed::of(&instance).into_iter().collect();
            model(&json!({"id": "a", "owned_by": "exo"}), &placed, "me").map(|it| it.zone)
        };
        let table = |nodes: Value| json!({"MlxRingInstance": {"shardAssignments": {"modelId": "a", "nodeToRunner": nodes}}});
        let list = |nodes: Value| json!({"MlxRingInstance": {"shardAssignments": {"modelId": "a", "shards": nodes}}});
        assert_eq!(of(table(json!({"me": "r"}))), Some(None));
        assert_eq!(of(table(json!({"me": "r", "you": "s"}))), Some(Some(Zone::Lan)));
        assert_eq!(of(list(json!([["me", "r", {}]]))), Some(None));
        assert_eq!(of(list(json!([["you", "r", {}]]))), Some(Some(Zone::Lan)));
        assert_eq!(of(list(json!([{}]))), Some(Some(Zone::Lan)), "what cannot be read is not near");
        let other = json!({"MlxRingInstance": {"shardAssignments": {"modelId": "b", "shards": []}}});
        assert_eq!(of(other), None);
    }
}
