//! Which models are meant by what a caller wrote.
//!
//! In this order: an alias of the configuration; an exact name (with Ollama's
//! `:latest` left out or not); `auto`; a pin, `KIND/NAME` or `NAME@SERVER-ID`,
//! only if that kind or server has that model; the name in other letters.
//! Servers that nobody trusts give no name a meaning while a trusted one can. A name
//! that some server had, or that a chain of the configuration is for, has a meaning
//! though nobody has it now: others may stand in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Ask, Decision, identity::Known};
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

/// How a server's name for a model is what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    /// The very name.
    Exact,
    /// The name with `:latest`.
    Latest,
    /// The name in other letters.
    Folded,
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

    /// Whether a server is where the model is meant to be.
    pub(super) fn is_at(&self, server: &Server) -> bool {
        match *self {
            Self::Model { at: At::Kind(kind), .. } => server.kind == kind,
            Self::Model { at: At::Server(id), .. } => server.id == id || server.name.as_deref() == Some(id),
            Self::Model { at: At::Anywhere, .. } | Self::Any => true,
        }
    }

    /// How a model of a server is named by it, wherever that server is.
    pub(super) fn named(&self, server: &Server, model: &Model) -> Option<Named> {
        match *self {
            Self::Any => None,
            Self::Model { name, folded, .. } => named(model, name, server.kind == "ollama", folded),
        }
    }

    fn exists_at(&self, server: &Server) -> bool {
        self.is_at(server) && server.models.iter().any(|it| self.named(server, it).is_some())
    }
}

fn named(model: &Model, asked: &str, is_ollama: bool, folded: bool) -> Option<Named> {
    if model.answers_to(asked) {
        return Some(Named::Exact);
    }
    let stem = is_ollama.then(|| model.name.as_str().strip_suffix(":latest")).flatten();
    if stem == Some(asked) {
        return Some(Named::Latest);
    }
    if !folded {
        return None;
    }
    let mut names = std::iter::once(&model.name).chain(&model.aliases).map(|it| it.as_str()).chain(stem);
    names.any(|it| it.eq_ignore_ascii_case(asked)).then_some(Named::Folded)
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
    let any = |_: &&Arc<Server>| true;
    resolve_among(snapshot, asked, is_usable).or_else(|| resolve_among(snapshot, asked, any)).ok_or(Unknown)
}

/// Whether a server is trusted, and not switched off.
pub(super) fn is_usable(server: &&Arc<Server>) -> bool {
    matches!(server.admission, Admission::Open | Admission::Draining)
}

fn resolve_among<'a>(
    snapshot: &Snapshot,
    asked: &'a str,
    who: impl Fn(&&Arc<Server>) -> bool,
) -> Option<Meant<'a>> {
    let exists = |meant: &Meant<'_>| snapshot.servers.iter().filter(&who).any(|it| meant.exists_at(it));
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
    pub(super) fn decide(self, snapshot: &Snapshot, asked: &str, ask: &Ask<'_>) -> Decision {
        if snapshot.servers.iter().all(|it| it.models.is_empty()) {
            let text = if snapshot.servers.is_empty() {
                "no model server was found yet; see `lovablectl servers`"
            } else {
                "no server has said yet which models it has; see `lovablectl servers`"
            };
            return Decision::Nobody(text.to_owned());
        }
        Decision::UnknownModel { nearest: nearest(snapshot, asked, ask) }
    }
}

/// Why a name that some server had, or that only a chain is for, is not answered.
pub(super) fn explain_absent(snapshot: &Snapshot, asked: &str) -> String {
    if was_here(snapshot, asked) {
        format!("`{asked}` was here, but no server offers it any more")
    } else {
        format!("no server offers `{asked}`, and its chain may not or cannot stand in now (fallback `local`)")
    }
}

/// A model that nobody has by that name.
pub(super) fn absent(name: &str) -> Meant<'_> {
    Meant::Model { name, at: At::Anywhere, folded: false }
}

/// Whether some server had a model of that name.
pub(super) fn was_here(snapshot: &Snapshot, asked: &str) -> bool {
    snapshot.formerly.contains(asked)
        || (!asked.contains(':') && snapshot.formerly.contains(format!("{asked}:latest").as_str()))
}

fn nearest(snapshot: &Snapshot, asked: &str, ask: &Ask<'_>) -> Vec<String> {
    let open = || snapshot.servers.iter().filter(|it| it.admission == Admission::Open);
    let models = open().flat_map(|it| &it.models);
    let names = models.flat_map(|it| std::iter::once(&it.name).chain(&it.aliases)).map(|it| it.as_str());
    // An alias that leads nowhere helps nobody.
    let lead_somewhere = ask.aliases.keys().filter(|it| resolve(snapshot, follow(ask.aliases, it)).is_ok());
    let alike = nearest_of(asked, names.chain(lead_somewhere.map(String::as_str)));
    // The same model by the name that a server here gives it was surely meant.
    let wanted = Known::named(asked);
    let same = open().flat_map(|it| &it.models).filter(|it| wanted.is(&ask.readings.of(it)));
    let same: BTreeSet<&str> = same.map(|it| it.name.as_str()).collect();
    let mut all: Vec<String> = same.iter().map(|it| (*it).to_owned()).collect();
    all.extend(alike.into_iter().filter(|it| !same.contains(it.as_str())));
    all.truncate(NEAREST);
    all
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
