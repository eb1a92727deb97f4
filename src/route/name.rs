//! Which models are meant by what a caller wrote.
//!
//! In this order: an alias of the configuration; an exact name (with Ollama's
//! `:latest` left out or not); `auto`; a pin, `KIND/NAME` or `NAME@SERVER-ID`,
//! only if that kind or server has that model; the name in other letters.
//! Servers that nobody trusts give no name a meaning while a trusted one can.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Decision;
use crate::{
    registry::{Admission, Server, Snapshot},
    server::Model,
};

/// The most aliases that follow on each other; a circle ends here.
const LONGEST_CHAIN: usize = 8;

/// The most names that are offered for one that nobody knows.
const NEAREST: usize = 3;

/// How alike names must be to be offered, 0 to 1. Below, guesses look foolish.
const ALIKE: f64 = 0.8;

/// How near a server's name for a model is to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sameness {
    /// The very name.
    Exact,
    /// The name with `:latest`.
    Latest,
    /// The name in other letters.
    Folded,
    /// Any model will do.
    Any,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant<'a> {
    /// A model of that name, on any server, or only on those of one kind or of one id.
    Model { name: &'a str, at: At<'a>, folded: bool },
    /// Whatever suits.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At<'a> {
    Anywhere,
    Kind(&'a str),
    Server(&'a str),
}

impl<'a> Meant<'a> {
    pub(super) fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    /// The models of a server that are meant.
    pub(super) fn models_of<'s>(
        &self,
        server: &'s Server,
    ) -> impl Iterator<Item = (&'s Model, Sameness)> + use<'a, 's> {
        let meant = *self;
        let here = match meant {
            Self::Model { at: At::Kind(kind), .. } => server.kind == kind,
            Self::Model { at: At::Server(id), .. } => server.id == id || server.name.as_deref() == Some(id),
            Self::Model { at: At::Anywhere, .. } | Self::Any => true,
        };
        let models = if here { server.models.as_slice() } else { &[] };
        let is_ollama = server.kind == "ollama";
        models.iter().filter_map(move |model| {
            let sameness = match meant {
                Self::Any => Some(Sameness::Any),
                Self::Model { name, folded, .. } => sameness(model, name, is_ollama, folded),
            };
            sameness.map(|it| (&**model, it))
        })
    }

    fn is_at(&self, server: &Server) -> bool {
        self.models_of(server).next().is_some()
    }
}

fn sameness(model: &Model, asked: &str, is_ollama: bool, folded: bool) -> Option<Sameness> {
    if model.answers_to(asked) {
        return Some(Sameness::Exact);
    }
    let stem = is_ollama.then(|| model.name.as_str().strip_suffix(":latest")).flatten();
    if stem == Some(asked) {
        return Some(Sameness::Latest);
    }
    if !folded {
        return None;
    }
    let mut names = std::iter::once(&model.name).chain(&model.aliases).map(|it| it.as_str()).chain(stem);
    names.any(|it| it.eq_ignore_ascii_case(asked)).then_some(Sameness::Folded)
}

/// What an alias of the configuration stands for.
pub(super) fn follow<'a>(aliases: &'a BTreeMap<String, String>, name: &'a str) -> &'a str {
    let mut name = name;
    for _ in 0..LONGEST_CHAIN {
        match aliases.get(name) {
            Some(target) if target != name => name = target,
            _ => break,
        }
    }
    name
}

/// Finds what a name means, or that it means nothing.
pub(super) fn resolve<'a>(snapshot: &Snapshot, asked: &'a str) -> Result<Meant<'a>, Unknown> {
    let usable = |it: &&Arc<Server>| matches!(it.admission, Admission::Open | Admission::Draining);
    let any = |_: &&Arc<Server>| true;
    resolve_among(snapshot, asked, usable).or_else(|| resolve_among(snapshot, asked, any)).ok_or(Unknown)
}

fn resolve_among<'a>(
    snapshot: &Snapshot,
    asked: &'a str,
    who: impl Fn(&&Arc<Server>) -> bool,
) -> Option<Meant<'a>> {
    let exists = |meant: &Meant<'_>| snapshot.servers.iter().filter(&who).any(|it| meant.is_at(it));
    let model = |name: &'a str, at: At<'a>, folded: bool| Meant::Model { name, at, folded };
    let exact = Some(model(asked, At::Anywhere, false)).filter(exists);
    let auto = || (asked == "auto").then_some(Meant::Any);
    let of_kind =
        || asked.split_once('/').map(|(kind, name)| model(name, At::Kind(kind), false)).filter(exists);
    let at_server =
        || asked.rsplit_once('@').map(|(name, id)| model(name, At::Server(id), false)).filter(exists);
    let folded = || Some(model(asked, At::Anywhere, true)).filter(exists);
    exact.or_else(auto).or_else(of_kind).or_else(at_server).or_else(folded)
}

/// No server has a model that is meant.
#[derive(Debug)]
pub(super) struct Unknown;

impl Unknown {
    /// A typo, unless there is a better reason why the name means nothing now.
    pub(super) fn decide(
        self,
        snapshot: &Snapshot,
        asked: &str,
        aliases: &BTreeMap<String, String>,
    ) -> Decision {
        if snapshot.formerly.contains(asked) {
            return Decision::Nobody(format!("`{asked}` was here, but no server offers it any more"));
        }
        if snapshot.servers.iter().all(|it| it.models.is_empty()) {
            let text = if snapshot.servers.is_empty() {
                "no model server was found yet; see `lovablectl servers`"
            } else {
                "no server has said yet which models it has; see `lovablectl servers`"
            };
            return Decision::Nobody(text.to_owned());
        }
        Decision::UnknownModel { nearest: nearest(snapshot, asked, aliases) }
    }
}

fn nearest(snapshot: &Snapshot, asked: &str, aliases: &BTreeMap<String, String>) -> Vec<String> {
    let usable = snapshot.servers.iter().filter(|it| it.admission == Admission::Open);
    let models = usable.flat_map(|it| &it.models);
    let names = models.flat_map(|it| std::iter::once(&it.name).chain(&it.aliases)).map(|it| it.as_str());
    // An alias that leads nowhere helps nobody.
    let lead_somewhere = aliases.keys().filter(|it| resolve(snapshot, follow(aliases, it)).is_ok());
    nearest_of(asked, names.chain(lead_somewhere.map(String::as_str)))
}

/// The names that were probably meant by `asked`, likeliest first.
pub fn nearest_of<'a>(asked: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = names.collect();
    // A pin that pins nothing is compared without its kind or server as well.
    let asked = asked.to_lowercase();
    let of_kind = asked.split_once('/').map(|(_, name)| name);
    let at_server = asked.rsplit_once('@').map(|(name, _)| name);
    let ways: Vec<&str> = [Some(asked.as_str()), of_kind, at_server].into_iter().flatten().collect();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        ways.iter().map(|it| likeness(it, &name)).fold(0.0, f64::max)
    };
    let mut ranked: Vec<(f64, &str)> = names.iter().map(|name| (likeness(name), *name)).collect();
    ranked.retain(|(likeness, _)| *likeness >= ALIKE);
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    ranked.into_iter().take(NEAREST).map(|(_, name)| name.to_owned()).collect()
}

fn likeness(asked: &str, name: &str) -> f64 {
    // Who leaves out a vendor or a size still meant this one.
    let part = |whole: &str, part: &str| part.len() >= 3 && whole.contains(part);
    let is_part = part(name, asked) || part(asked, name) || (!asked.is_empty() && name.starts_with(asked));
    let (short, long) = (asked.len().min(name.len()) as f64, asked.len().max(name.len()) as f64);
    let by_part = if is_part { 0.9 + 0.1 * short / long } else { 0.0 };
    strsim::jaro_winkler(asked, name).max(by_part)
}
