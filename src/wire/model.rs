//! Models as they are shown: one entry per name, across all servers that may be asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    registry::{Admission, Server, Snapshot, Standing},
    server::{Capability, KindId, Model, ModelName, ServerId, Zone},
};

/// All models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// The models, in the order of their names.
    pub models: Vec<ModelView>,
}

/// One model, wherever it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelView {
    /// The name to ask for.
    pub name: ModelName,
    /// Other names for it, from servers and from the configuration.
    pub aliases: Vec<String>,
    /// Architecture or family.
    pub family: Option<String>,
    /// Parameter count as people write it.
    pub parameters: Option<String>,
    /// Quantisation.
    pub quantization: Option<String>,
    /// The longest context that it was made for.
    pub context_length: Option<u64>,
    /// The longest context that it is loaded with somewhere.
    pub loaded_context_length: Option<u64>,
    /// What it can do, as far as anybody tells.
    pub capabilities: Vec<Capability>,
    /// Where it is.
    pub servers: Vec<ModelOnServer>,
}

/// A model on one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelOnServer {
    /// The server.
    pub id: ServerId,
    /// Its kind.
    pub kind: KindId,
    /// Where requests for this model end up.
    pub zone: Zone,
    /// Whether it is in memory; `null` where the kind does not tell.
    pub loaded: Option<bool>,
    /// Size of its file.
    pub size_bytes: Option<u64>,
    /// Memory that it takes now.
    pub memory_bytes: Option<u64>,
    /// When it will be unloaded.
    pub expires: Option<String>,
    /// The daemons on the way there, by their instance ids: a lovable, and those behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
}

/// The models of all servers that may be asked, with the aliases (alias → name) of the configuration.
pub fn models(snapshot: &Snapshot, aliases: &BTreeMap<String, String>) -> Vec<ModelView> {
    let mut places = BTreeMap::<&ModelName, Vec<(&Server, &Model)>>::new();
    for server in snapshot.servers.iter().filter(|it| may_be_asked(it)) {
        for model in &server.models {
            places.entry(&model.name).or_default().push((server, model));
        }
    }
    places.into_iter().map(|(name, places)| view(name, &places, aliases)).collect()
}

/// Whether a new request may go there now.
pub(super) fn may_be_asked(server: &Server) -> bool {
    server.admission == Admission::Open && server.standing != Standing::Down
}

fn view(name: &ModelName, places: &[(&Server, &Model)], aliases: &BTreeMap<String, String>) -> ModelView {
    // Servers that say something agree, or the first of them is as good as the other.
    let first = |fact: fn(&Model) -> Option<String>| places.iter().find_map(|(_, model)| fact(model));
    let longest = |fact: fn(&Model) -> Option<u64>| places.iter().filter_map(|(_, model)| fact(model)).max();
    let theirs = places.iter().flat_map(|(_, model)| &model.aliases).map(ToString::to_string);
    let ours = aliases.iter().filter(|(_, target)| *name == target.as_str()).map(|(alias, _)| alias.clone());
    let capabilities: BTreeSet<_> =
        places.iter().flat_map(|(_, model)| &model.capabilities).copied().collect();
    ModelView {
        name: name.clone(),
        aliases: theirs.chain(ours).collect::<BTreeSet<_>>().into_iter().collect(),
        family: first(|it| it.family.clone()),
        parameters: first(|it| it.parameters.clone()),
        quantization: first(|it| it.quantization.clone()),
        context_length: longest(|it| it.context_length),
        loaded_context_length: longest(|it| it.loaded_context_length),
        capabilities: capabilities.into_iter().collect(),
        servers: places.iter().map(|(server, model)| on(server, model)).collect(),
    }
}

fn on(server: &Server, model: &Model) -> ModelOnServer {
    ModelOnServer {
        id: server.id.clone(),
        kind: server.kind.clone(),
        zone: model.zone.map_or(server.zone, |it| it.max(server.zone)),
        loaded: model.loaded,
        size_bytes: model.size_bytes,
        memory_bytes: model.memory_bytes,
        expires: model.expires.clone(),
        via: server.instance.iter().chain(&model.via).cloned().collect(),
    }
}
