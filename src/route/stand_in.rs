//! Which models may answer for the one that was asked, and how near each is.
//!
//! From the nearest: the name itself; the same model under another server's name; the
//! chain that the configuration gives; any other model here that can do what is needed.
//! The cloud comes after all of them, unless it was asked for by a name that only it has. `choose` goes from one reach to the next only
//! while nobody within the last one can answer, so a farther model never wins over a
//! nearer one, and most requests never look further than names.

use std::{cell::OnceCell, sync::Arc};

use super::{
    Ask, Fallback,
    identity::Known,
    name::{self, Meant, Named, Unknown},
    rank,
};
use crate::{
    generate::{Operation, Substitution, Usd},
    registry::{Server, Snapshot, Standing},
    server::{Capability, Model, Problem, Zone},
};

/// How near a model is to what was asked; nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sameness {
    tier: Tier,
    /// Not where the caller pinned it.
    elsewhere: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Named(Named),
    /// The same model under another name.
    Equivalent,
    /// At this place of the chain, by its name or by another.
    Chain(usize, bool),
    Other(Other),
    /// The caller left the choice to us; the cheapest is asked.
    Any(Option<Usd>),
}

/// How much a model that only can do the same suggests itself. Between models of which none
/// was asked for, health and memory come before likeness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Other {
    shaky: bool,
    /// Nobody says whether it can.
    unsure: bool,
    cold: bool,
    /// What it costs; nobody chose it, so the cheapest is asked.
    cost: Option<Usd>,
    stranger: bool,
    distance: u32,
}

impl Sameness {
    fn substitution(self) -> Substitution {
        match self.tier {
            Tier::Named(_) | Tier::Any(_) => Substitution::No,
            Tier::Equivalent => Substitution::Equivalent,
            Tier::Chain(..) | Tier::Other(_) => Substitution::Alternative,
        }
    }

    /// Whether it is the model that was asked for, whatever it is called.
    fn is_same(self) -> bool {
        matches!(self.tier, Tier::Named(_) | Tier::Equivalent)
    }

    /// Whether the model was left to us, so that its own name has to decide between equals.
    pub(super) fn is_open(self) -> bool {
        matches!(self.tier, Tier::Other(_) | Tier::Any(_))
    }
}

/// How far is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Names,
    Equivalents,
    Chain,
    Others,
    Cloud,
}

impl Reach {
    const ALL: [Self; 5] = [Self::Names, Self::Equivalents, Self::Chain, Self::Others, Self::Cloud];
}

/// The models that may answer one request.
pub(super) struct StandIns<'a> {
    snapshot: &'a Snapshot,
    ask: &'a Ask<'a>,
    meant: Meant<'a>,
    /// Whether the caller left the choice to us; then no choice is a substitution.
    is_ours: bool,
    /// Whether the name is one that only the cloud has.
    means_cloud: bool,
    chain: Vec<Link<'a>>,
    farthest: Reach,
    /// What is known of the model that was asked for; more than one thing where servers differ.
    asked: OnceCell<Vec<Arc<Known>>>,
}

/// One name of a chain.
struct Link<'a> {
    meant: Meant<'a>,
    known: OnceCell<Vec<Arc<Known>>>,
}

impl<'a> StandIns<'a> {
    /// What may answer for a name, after its alias was followed.
    pub(super) fn of(snapshot: &'a Snapshot, asked: &'a str, ask: &'a Ask<'a>) -> Result<Self, Unknown> {
        let names = chain_of(asked, ask);
        let resolved = name::resolve(snapshot, asked);
        let is_ours = matches!(resolved, Ok(Meant::Any));
        let meant = match resolved {
            Ok(Meant::Any) => same_as_before(ask).unwrap_or(Meant::Any),
            Ok(meant) => meant,
            Err(unknown) if names.is_none() && !name::was_here(snapshot, asked) => return Err(unknown),
            Err(Unknown) => name::absent(asked),
        };
        let farthest = match ask.fallback {
            Fallback::Cloud if meant.is_any() && ask.cloud.is_some() => Reach::Cloud,
            _ if meant.is_any() => Reach::Names,
            Fallback::None => Reach::Names,
            Fallback::Same => Reach::Equivalents,
            // Vectors of another model cannot be compared with those that the caller has.
            Fallback::Local | Fallback::Cloud if ask.head.operation == Operation::Embed => Reach::Equivalents,
            Fallback::Cloud if ask.cloud.is_some() => Reach::Cloud,
            Fallback::Local | Fallback::Cloud => Reach::Others,
        };
        let links = names.into_iter().flatten().filter_map(|it| {
            // The person knows the model, though it may have another name where it is.
            let name = name::follow(ask.aliases, it);
            let meant = name::resolve(snapshot, name).unwrap_or_else(|Unknown| name::absent(name));
            (!meant.is_any()).then(|| Link { meant, known: OnceCell::new() })
        });
        let chain = if farthest >= Reach::Chain { links.collect() } else { Vec::new() };
        let means_cloud = ask.cloud.is_some() && is_only_in_cloud(snapshot, &meant);
        Ok(Self { snapshot, ask, meant, is_ours, means_cloud, chain, farthest, asked: OnceCell::new() })
    }

    /// How far to look, one after the other.
    pub(super) fn reaches(&self) -> impl Iterator<Item = Reach> + use<> {
        let (farthest, no_chain) = (self.farthest, self.chain.is_empty());
        Reach::ALL.into_iter().filter(move |it| *it <= farthest && !(*it == Reach::Chain && no_chain))
    }

    /// How the answer of a model that is so near is called.
    pub(super) fn substitution(&self, zone: Zone, sameness: Sameness) -> Substitution {
        match zone {
            Zone::Cloud if !self.means_cloud => Substitution::Cloud,
            _ if self.is_ours => Substitution::No,
            _ => sameness.substitution(),
        }
    }

    /// Whether a model in the cloud that is so near may answer within a reach.
    pub(super) fn reaches_cloud(&self, sameness: Sameness, reach: Reach) -> bool {
        reach == Reach::Cloud || (self.means_cloud && sameness.is_same())
    }

    pub(super) fn meant(&self) -> &Meant<'a> {
        &self.meant
    }

    /// The models of a server that may answer within a reach.
    pub(super) fn models_of<'s>(
        &'s self,
        server: &'s Server,
        reach: Reach,
    ) -> impl Iterator<Item = (&'s Model, Sameness)> {
        // A pin holds for stand-ins as well, unless the request itself says how far to go.
        let elsewhere = !self.meant.is_at(server);
        let allowed = !elsewhere || (self.ask.widened && self.ask.fallback != Fallback::None);
        let models = if allowed { server.models.as_slice() } else { &[] };
        models.iter().filter_map(move |model| {
            Some((&**model, Sameness { tier: self.tier(server, model, reach)?, elsewhere }))
        })
    }

    fn tier(&self, server: &Server, model: &Arc<Model>, reach: Reach) -> Option<Tier> {
        if self.meant.is_any() {
            return Some(Tier::Any(self.cost(server, model)));
        }
        if let Some(named) = self.meant.named(server, model) {
            return Some(Tier::Named(named));
        }
        if reach < Reach::Equivalents {
            return None;
        }
        let known = self.ask.readings.of(model);
        if is_all(self.asked(), &known) {
            return Some(Tier::Equivalent);
        }
        if reach < Reach::Chain {
            return None;
        }
        let place = self.chain.iter().enumerate().find_map(|(at, link)| {
            let here = link.meant.is_at(server);
            let other_name =
                || is_all(link.known(self.snapshot, self.ask), &known).then_some(Tier::Chain(at, true));
            let by_name = link.meant.named(server, model).map(|_| Tier::Chain(at, false));
            here.then(|| by_name.or_else(other_name)).flatten()
        });
        place.or_else(|| (reach >= Reach::Others).then(|| self.other(server, model, &known)).flatten())
    }

    /// A model that can do what is needed, as far as anybody knows.
    fn other(&self, server: &Server, model: &Model, known: &Known) -> Option<Tier> {
        let needs = &self.ask.head.needs;
        let can = |capability: Capability| model.capabilities.contains(&capability);
        // Whoever does not say that it sees would answer about a picture that it never saw.
        let blind = (needs.vision && !can(Capability::Vision)) || (needs.fim && !can(Capability::Fim));
        if blind || rank::is_doubtful(model, self.ask.head.operation) {
            return None;
        }
        let distances = self.asked().iter().map(|it| it.distance(known));
        let (stranger, distance) = distances.min().unwrap_or((true, 0));
        Some(Tier::Other(Other {
            shaky: server.standing != Standing::Up || server.problem == Some(Problem::Loading),
            unsure: model.capabilities.is_empty(),
            cold: model.loaded == Some(false),
            cost: self.cost(server, model),
            stranger,
            distance,
        }))
    }

    /// What a token of it costs, about; what nobody knows costs most.
    fn cost(&self, server: &Server, model: &Model) -> Option<Usd> {
        let cloud = self.ask.cloud.as_ref().filter(|_| rank::zone(server, model) == Zone::Cloud)?;
        Some((cloud.price)(server, model).unwrap_or(Usd::from_nanos(u64::MAX)))
    }

    fn asked(&self) -> &[Arc<Known>] {
        self.asked.get_or_init(|| known(self.snapshot, &self.meant, self.ask))
    }
}

impl Link<'_> {
    fn known(&self, snapshot: &Snapshot, ask: &Ask<'_>) -> &[Arc<Known>] {
        self.known.get_or_init(|| known(snapshot, &self.meant, ask))
    }
}

/// What servers that are trusted tell of a model; where none has it, its name has to do.
fn known(snapshot: &Snapshot, meant: &Meant<'_>, ask: &Ask<'_>) -> Vec<Arc<Known>> {
    let Meant::Model { name, .. } = meant else { return Vec::new() };
    let usable = snapshot.servers.iter().filter(name::is_usable).filter(|it| meant.is_at(it));
    let models = usable.flat_map(|server| server.models.iter().map(move |model| (server, model)));
    let mut all: Vec<Arc<Known>> = Vec::new();
    for (_, model) in models.filter(|it| meant.named(it.0, it.1).is_some()) {
        let known = ask.readings.of(model);
        // A fleet says the same of it a thousand times.
        if !all.contains(&known) {
            all.push(known);
        }
    }
    if all.is_empty() { vec![Arc::new(Known::named(name))] } else { all }
}

/// Whether somebody in the cloud has the model that is meant, and nobody nearer.
fn is_only_in_cloud(snapshot: &Snapshot, meant: &Meant<'_>) -> bool {
    let usable = snapshot.servers.iter().filter(name::is_usable).filter(|it| meant.is_at(it));
    let models = usable.flat_map(|server| server.models.iter().map(move |model| (server, model)));
    let mut those = models.filter(|it| meant.named(it.0, it.1).is_some()).peekable();
    those.peek().is_some() && those.all(|(server, model)| rank::zone(server, model) == Zone::Cloud)
}

/// Whether a model is the same as each of these: servers that mean different models by one
/// name leave open which of them was meant.
fn is_all(all: &[Arc<Known>], model: &Known) -> bool {
    !all.is_empty() && all.iter().all(|it| it.is(model))
}

/// The chain for a name, with or without its pin and Ollama's `:latest`.
fn chain_of<'a>(asked: &'a str, ask: &'a Ask<'a>) -> Option<&'a [String]> {
    if ask.chains.is_empty() {
        return None;
    }
    let pinned = [asked.split_once('/').map(|it| it.1), asked.rsplit_once('@').map(|it| it.0)];
    let names = [Some(asked), Some(ask.head.model.as_str())].into_iter().chain(pinned).flatten();
    let with = |name: &str| ask.chains.get(name);
    let found = names.flat_map(|it| [Some(it), it.strip_suffix(":latest")]).flatten().find_map(with);
    found.map(Vec::as_slice)
}

/// Where the choice was ours and no other model may stand in for the one that was chosen.
fn same_as_before<'a>(ask: &Ask<'a>) -> Option<Meant<'a>> {
    let name = ask.first_model.filter(|_| ask.fallback < Fallback::Local)?;
    Some(name::absent(name))
}
