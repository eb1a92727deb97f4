//! llama-swap: starts the server of a model when the model is asked for.
//!
//! `GET /unload` stops all of them and `/upstream/…` starts one, so nothing is asked below those.
//! It runs its models itself, but for those of its peers, which their entries say.

use serde_json::Value;

use super::{Answers, Kind, Pulse, Question, Verdict, doing, fact, listing};
use crate::server::{Model, Sighting, Zone};

/// llama-swap.
pub(super) struct LlamaSwap;

const VERSION: &str = "/api/version";
const RUNNING: &str = "/running";

impl Kind for LlamaSwap {
    fn id(&self) -> &'static str {
        "llamaswap"
    }

    fn name(&self) -> &'static str {
        "llama-swap"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[8080]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let list = match listing::known(answers, false, "llama-swap") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let Some(version) = answers.get(VERSION) else { return Verdict::Ask(Question::get(VERSION)) };
        let Some(running) = answers.get(RUNNING) else { return Verdict::Ask(Question::get(RUNNING)) };
        let version = version.success().and_then(|it| fact::text(&it["version"]));
        let running = running.success().unwrap_or_default();
        let engine_ports = running["running"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| fact::port_here(&it["proxy"]));
        let sighting = Sighting { version, engine_ports: engine_ports.collect(), ..Sighting::of(self.id()) };
        listing::proof(sighting, list, model)
    }

    fn pulse(&self, name: &str, answers: &Answers, _: &Answers) -> Pulse {
        // A request waits while its model is swapped in.
        doing::by_list(self.id(), answers, model, name)
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

fn model(entry: &Value) -> Option<Model> {
    let mut model = listing::model(entry)?;
    model.loaded = entry["status"]["value"].as_str().and_then(listing::is_loaded);
    let peer = fact::text(&entry["meta"]["llamaswap"]["peerID"]).is_some();
    model.zone = peer.then_some(Zone::Cloud);
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_its_peers_have_is_elsewhere() {
        let zone = |entry: Value| model(&entry).unwrap().zone;
        let peer = json!({"id": "x", "owned_by": "llama-swap", "meta": {"llamaswap": {"peerID": "titan"}}});
        assert_eq!(zone(peer), Some(Zone::Cloud));
        let own = json!({"id": "x", "owned_by": "llama-swap", "meta": {"llamaswap": {"type": "model"}}});
        assert_eq!(zone(own), None);
        let unloaded = json!({"id": "a", "owned_by": "llama-swap", "status": {"value": "unloaded"}});
        assert_eq!(model(&unloaded).unwrap().loaded, Some(false));
    }
}
