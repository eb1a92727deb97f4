//! What is measured: which models on which servers, and what is left out and why.

use serde::Serialize;

use crate::{
    server::{Capability, KindId, ModelName, ServerId, Zone},
    wire::{ModelOnServer, ModelView},
};

/// A model on a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) server: ServerId,
    pub(super) kind: KindId,
    pub(super) model: ModelName,
    /// Whether it has to be loaded first.
    pub(super) is_cold: bool,
    /// The most tokens that it takes.
    pub(super) context: Option<u64>,
    pub(super) size_bytes: Option<u64>,
}

impl Target {
    /// The name under which it is asked of this server and no other.
    pub(super) fn pin(&self) -> String {
        format!("{}@{}", self.model, self.server)
    }

    /// What is said of prompts that do not.
    pub(super) fn too_long(&self, prompt: u32) -> LeftOut {
        LeftOut { name: format!("{} on {} with prompts of {prompt}", self.model, self.server), why: TOO_LONG }
    }

    /// Whether a prompt and an answer of so many tokens fit, as far as that is known.
    pub(super) fn fits(&self, prompt: u32, answer: u32) -> bool {
        // What surrounds a prompt, and that a word is not quite a token.
        let needed = u64::from(prompt) * 5 / 4 + u64::from(answer) + 64;
        self.context.is_none_or(|it| needed <= it)
    }
}

/// What is not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    pub(super) name: String,
    pub(super) why: &'static str,
}

const NOT_LOADED: &str = "not in memory; --yes has it loaded";
const NO_TEXT: &str = "it writes no text";
const COSTS: &str = "it is in the cloud, which costs money";
const TOO_LONG: &str = "they do not fit its context";
const ELSEWHERE: &str = "it is on another machine; --server names it";

/// All of it.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) targets: Vec<Target>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Plan {
    /// Of all that there is what was asked for: these models, on these servers; none named are
    /// all of this machine.
    pub(super) fn of(all: &[ModelView], models: &[String], servers: &[String]) -> Result<Self, String> {
        for name in models {
            if !all.iter().any(|it| is_called(it, name)) {
                return Err(format!("no server offers `{name}`; `lovablectl models` shows all"));
            }
        }
        for id in servers {
            if !all.iter().flat_map(|it| &it.servers).any(|it| it.id.as_str() == id) {
                return Err(format!("no server `{id}` has a model; `lovablectl servers` shows all"));
            }
        }
        let mut plan = Self { targets: Vec::new(), left_out: Vec::new() };
        for model in all {
            let is_named = models.iter().any(|it| is_called(model, it));
            if !is_named && !models.is_empty() {
                continue;
            }
            for server in &model.servers {
                let is_server_named = servers.iter().any(|it| it == server.id.as_str());
                if is_server_named || servers.is_empty() {
                    plan.add(model, server, is_named, is_server_named);
                }
            }
        }
        // Those that are loaded come first: what is loaded may drive them out.
        plan.targets.sort_by_key(|it| it.is_cold);
        Ok(plan)
    }

    fn add(&mut self, model: &ModelView, server: &ModelOnServer, is_named: bool, is_server_named: bool) {
        let writes = model.capabilities.is_empty()
            || model.capabilities.iter().any(|it| matches!(it, Capability::Chat | Capability::Complete));
        let why = match server.zone {
            _ if !writes => Some((NO_TEXT, is_named)),
            Zone::Cloud => Some((COSTS, is_named || is_server_named)),
            Zone::Lan if !is_server_named => Some((ELSEWHERE, is_named)),
            Zone::Lan | Zone::Machine => None,
        };
        match why {
            None => self.targets.push(Target {
                server: server.id.clone(),
                kind: server.kind.clone(),
                model: model.name.clone(),
                is_cold: server.loaded == Some(false),
                context: model.loaded_context_length.or(model.context_length),
                size_bytes: server.size_bytes,
            }),
            // Whoever named nothing does not miss it.
            Some((_, false)) => {}
            Some((why, true)) => {
                self.left_out.push(LeftOut { name: format!("{} on {}", model.name, server.id), why });
            }
        }
    }

    /// What has to be loaded first.
    pub(super) fn to_load(&self) -> Vec<&Target> {
        self.targets.iter().filter(|it| it.is_cold).collect()
    }

    /// Nobody said that it may be loaded.
    pub(super) fn leave_out_what_is_not_loaded(&mut self) {
        let left = self.to_load();
        let left =
            left.iter().map(|it| LeftOut { name: format!("{} on {}", it.model, it.server), why: NOT_LOADED });
        self.left_out.extend(left.collect::<Vec<_>>());
        self.targets.retain(|it| !it.is_cold);
    }
}

fn is_called(model: &ModelView, name: &str) -> bool {
    let own = model.name.as_str();
    own == name || own.strip_suffix(":latest") == Some(name) || model.aliases.iter().any(|it| it == name)
}

/// A prompt of about so many tokens. It begins like no other, so that nothing of it has been read
/// before.
pub(super) fn prompt(tokens: u32, nonce: u64) -> String {
    // Words that are one token nearly everywhere.
    const WORDS: [&str; 16] = [
        "time", "house", "water", "light", "work", "day", "world", "life", "hand", "part", "place", "week",
        "case", "point", "night", "story",
    ];
    const TASK: &str = "\n\nCount upwards from one in words, with a comma after each, and do not stop.";
    let mut text = format!("{nonce:x}:");
    // The task itself and the first word take about twenty-four.
    for at in 0..tokens.saturating_sub(24) {
        text.push(' ');
        text.push_str(WORDS[(nonce as usize).wrapping_add(at as usize * 7) % WORDS.len()]);
    }
    text.push_str(TASK);
    text
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::cli::sample;

    fn names(plan: &Plan) -> Vec<String> {
        plan.targets.iter().map(Target::pin).collect()
    }

    #[test]
    fn without_names_all_of_this_machine_is_measured_and_what_is_loaded_comes_first() {
        let models = sample::models();
        let plan = Plan::of(&models, &[], &[]).unwrap();
        assert!(!plan.targets.is_empty() && plan.left_out.is_empty(), "{plan:?}");
        assert!(plan.targets.is_sorted_by_key(|it| it.is_cold));
        let zone = |target: &Target| {
            let of = models.iter().find(|it| it.name == target.model).unwrap();
            of.servers.iter().find(|it| it.id == target.server).unwrap().zone
        };
        assert!(plan.targets.iter().all(|it| zone(it) == Zone::Machine));
    }

    #[test]
    fn what_is_not_loaded_is_left_out_unless_it_may_be() {
        let mut models = sample::models();
        models.iter_mut().flat_map(|it| &mut it.servers).for_each(|it| it.loaded = Some(false));
        let mut plan = Plan::of(&models, &[], &[]).unwrap();
        let all = plan.to_load().len();
        assert_eq!(all, plan.targets.len());
        plan.leave_out_what_is_not_loaded();
        assert_eq!((plan.targets.len(), plan.left_out.len()), (0, all));
        assert!(plan.left_out.iter().all(|it| it.why == NOT_LOADED));
    }

    #[test]
    fn the_cloud_is_never_measured_and_the_network_when_it_is_named() {
        let mut models = sample::models();
        models.truncate(1);
        models[0].servers.truncate(1);
        let (name, id) = (models[0].name.to_string(), models[0].servers[0].id.to_string());
        for (zone, by_nothing, by_server) in [(Zone::Machine, 1, 1), (Zone::Lan, 0, 1), (Zone::Cloud, 0, 0)] {
            models[0].servers[0].zone = zone;
            assert_eq!(names(&Plan::of(&models, &[], &[]).unwrap()).len(), by_nothing, "{zone:?}");
            let named = Plan::of(&models, from_ref(&name), from_ref(&id)).unwrap();
            assert_eq!(named.targets.len(), by_server, "{zone:?}");
            assert_eq!(named.left_out.len(), 1 - by_server, "{zone:?}");
        }
        assert!(Plan::of(&models, &["nobody".to_owned()], &[]).is_err());
        assert!(Plan::of(&models, &[], &["nobody".to_owned()]).is_err());
    }

    #[test]
    fn prompts_have_about_their_length_and_begin_like_no_other() {
        for tokens in [1, 64, 512, 2048] {
            let words = prompt(tokens, 7).split_whitespace().count();
            assert!(words.abs_diff(tokens as usize) <= 24, "{tokens}: {words}");
        }
        let (one, other) = (prompt(512, 1), prompt(512, 2));
        assert_ne!(one.as_bytes()[0], other.as_bytes()[0]);
    }
}
