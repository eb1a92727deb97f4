//! Who could serve this request, best first.
//!
//! Three steps. `name` finds out which models are meant by what the caller wrote,
//! and `stand_in` which others may answer for them. Then each server that has one is
//! either out, with a reason, or ranked; the order of the fields of `Rank` is the
//! policy. Nothing is sent here and nothing is remembered: the same snapshot and the
//! same ask give the same decision.

mod identity;
mod name;
mod rank;
mod reading;
mod room;
mod share;
mod stand_in;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Instant};

use self::{
    name::Meant,
    rank::{Rank, Reason},
    stand_in::{Reach, Sameness, StandIns},
};
pub use self::{name::nearest_of as nearest, rank::Fidelity, reading::Readings};
use crate::{
    generate::{Candidate, Head, Length, Substitution, Usd},
    registry::{Server, Snapshot, Standing},
    server::{Model, ModelName, ServerId, Zone},
};

/// How far a stand-in may be from what was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fallback {
    /// One server, asked once.
    None,
    /// The same model on any allowed server.
    #[default]
    Same,
    /// Also any capable model on this machine and network.
    Local,
    /// Also the cloud.
    Cloud,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Same => "same",
            Self::Local => "local",
            Self::Cloud => "cloud",
        })
    }
}

/// Why a text is no fallback.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a fallback; use none, same, local or cloud")]
pub struct FallbackError(String);

impl FromStr for Fallback {
    type Err = FallbackError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "same" => Ok(Self::Same),
            "local" => Ok(Self::Local),
            "cloud" => Ok(Self::Cloud),
            _ => Err(FallbackError(text.to_owned())),
        }
    }
}

/// A request as far as choosing needs it.
pub struct Ask<'a> {
    /// What is wanted.
    pub head: &'a Head,
    /// What names of models say, as far as they were read before.
    pub readings: &'a Readings,
    /// Aliases from the configuration.
    pub aliases: &'a BTreeMap<String, String>,
    /// For names, the models that stand in for them, in this order.
    pub chains: &'a BTreeMap<String, Vec<String>>,
    /// How far a stand-in may be.
    pub fallback: Fallback,
    /// The daemons that the request has passed, by their instance ids.
    pub via: &'a [String],
    /// Whether the request itself says how far. Only then does a stand-in leave the place
    /// that a pin names.
    pub widened: bool,
    /// Who was asked already, and may not be asked now.
    pub tried: &'a [ServerId],
    /// Who was asked first. Where no stand-in is wanted, nobody else is asked.
    pub first: Option<&'a ServerId>,
    /// The model that was asked for first. Where the choice was ours and no other may stand
    /// in, it stays with that one.
    pub first_model: Option<&'a str>,
    /// How many requests each server has now.
    pub in_flight: &'a dyn Fn(&ServerId) -> u32,
    /// Whether a server answers requests for other models than this one.
    pub uses_others: &'a dyn Fn(&ServerId, &ModelName) -> bool,
    /// Whether a server has all the requests that it may have at once.
    pub full: &'a dyn Fn(&Server) -> bool,
    /// The server that answered this conversation last, which has kept what it read.
    pub home: Option<&'a ServerId>,
    /// How the request is said to a server, or why it cannot be. Only asked about servers
    /// that could take it otherwise.
    pub said: &'a dyn Fn(&Server) -> Result<Fidelity, String>,
    /// The memory that the servers of this machine share for their models, in bytes.
    pub gpu_memory: Option<u64>,
    /// What the cloud costs; `None` while it is not enabled.
    pub cloud: Option<Cloud<'a>>,
    /// The size of the request, in bytes. A token is rarely less than two of them.
    pub bytes: u64,
    /// How long its prompt is, where it can be understood. Only asked where the size leaves a
    /// doubt: the request has to be taken apart for it.
    pub length: &'a dyn Fn() -> Option<Length>,
    /// When this is.
    pub now: Instant,
    /// What decides between equals; another one for each request.
    pub salt: u64,
}

/// What the cloud costs.
pub struct Cloud<'a> {
    /// What a token of a model costs, about, where that is known.
    pub price: &'a dyn Fn(&Server, &Model) -> Option<Usd>,
    /// Whether this request to it may be paid for, or why not. Only asked about models that
    /// could take it otherwise.
    pub pays: &'a dyn Fn(&Server, &Model) -> Result<(), String>,
}

/// Who is asked next, and for what.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The server.
    pub server: Arc<Server>,
    /// The model, in that server's words.
    pub model: ModelName,
    /// How far that is from what was asked.
    pub substituted: Substitution,
    /// Whether the model is known to be loading or not to be loaded.
    pub loading: bool,
    /// Whether the prompt is so near the context there that the estimate may be wrong about it.
    pub near_the_bound: bool,
    /// Where the request ends up.
    pub zone: Zone,
}

/// What follows from a snapshot and an ask.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Ask this one.
    Server(Choice),
    /// Everyone who could is busy; one of them will be free then.
    Later(Instant),
    /// Everyone who could has all the requests that it may have; these are worth waiting for.
    Full(Vec<ServerId>),
    /// Nobody has ever had a model of that name.
    UnknownModel {
        /// The nearest names that exist.
        nearest: Vec<String>,
    },
    /// Servers have the model, and all lack what the request needs, or cannot be told
    /// what it asks; the text says what.
    Lacking(String),
    /// The prompt fits into no context that its model has anywhere.
    TooLong {
        /// The tokens of the prompt, estimated.
        tokens: u64,
        /// The tokens of the answer, where they count.
        answer: Option<u64>,
        /// The largest context.
        context: u64,
    },
    /// Nobody can serve this now; the text says why, for people.
    Nobody(String),
}

/// Of so many that are able, and of so many that are out, it is said what was thought of them: it
/// is kept with each request.
const MOST_CANDIDATES: usize = 24;

/// Chooses who is asked next, and says of the servers that have the model what
/// was thought of them: the chosen one first.
pub fn choose(snapshot: &Snapshot, ask: &Ask<'_>) -> (Decision, Vec<Candidate>) {
    let asked = name::follow(ask.aliases, &ask.head.model);
    let stand_ins = match StandIns::of(snapshot, asked, ask) {
        Ok(stand_ins) => stand_ins,
        Err(unknown) => return (unknown.decide(snapshot, asked, ask), Vec::new()),
    };
    let (mut able, mut out) = (Vec::new(), Vec::new());
    for reach in stand_ins.reaches() {
        (able, out) = divide(snapshot, &stand_ins, reach, ask);
        // A queue makes no other model win. The same one under another name is not another.
        let waits = reach >= Reach::Equivalents && out.iter().any(|(_, it)| *it == Reason::Full);
        if !able.is_empty() || waits {
            break;
        }
    }
    decide(snapshot, asked, stand_ins.meant(), able, out, ask)
}

type Able<'a> = Vec<Judged<'a>>;
type Out<'a> = Vec<(Judged<'a>, Reason)>;

/// Who is able to answer within a reach, best first, and who is not.
fn divide<'a>(
    snapshot: &'a Snapshot,
    stand_ins: &'a StandIns<'_>,
    reach: Reach,
    ask: &Ask<'_>,
) -> (Able<'a>, Out<'a>) {
    let (mut able, mut out) = (Vec::new(), Vec::new());
    for server in &snapshot.servers {
        match judge(server, stand_ins, reach, ask) {
            None => {}
            Some((judged, None)) => able.push(judged),
            Some((judged, Some(reason))) => out.push((judged, reason)),
        }
    }
    come_home(&mut able, ask);
    keep_room(&mut able, snapshot, ask);
    share::share(&mut able, ask);
    // Of a thousand only the best matter, and who could take over from them.
    if able.len() > MOST_CANDIDATES {
        able.select_nth_unstable_by_key(MOST_CANDIDATES, |it: &Judged<'_>| it.rank);
        able.truncate(MOST_CANDIDATES);
    }
    able.sort_unstable_by_key(|it: &Judged<'_>| it.rank);
    (able, out)
}

/// A conversation stays where it is, among equals: reading all of it again takes longer than
/// most answers. But it does not stand behind others for that while somebody else is idle.
fn come_home(able: &mut Able<'_>, ask: &Ask<'_>) {
    let Some(home) = ask.home else { return };
    let in_flight = |it: &Judged<'_>| (ask.in_flight)(&it.server.id);
    let least = able.iter().map(in_flight).min().unwrap_or(0);
    for judged in able.iter_mut().filter(|it| it.server.id == *home) {
        // One with a limit that is not full works on all that it has at once.
        if judged.server.limit.is_some() || in_flight(judged) <= least + least / 2 {
            judged.rank = judged.rank.at_home();
        }
    }
}

/// A model that does not fit beside what the other servers of this machine have loaded would
/// push that out of the memory they share, or run without it.
fn keep_room(able: &mut Able<'_>, snapshot: &Snapshot, ask: &Ask<'_>) {
    let Some(memory) = ask.gpu_memory else { return };
    let takes = |server: &&Arc<Server>| -> u64 {
        let loaded = server.models.iter().filter(|it| it.loaded == Some(true));
        loaded.filter_map(|it| it.memory_bytes.or(it.size_bytes)).fold(0, u64::saturating_add)
    };
    let here = |it: &&Arc<Server>| it.zone == Zone::Machine && it.standing != Standing::Down;
    for judged in able.iter_mut().filter(|it| here(&it.server) && it.model.loaded == Some(false)) {
        // What it has loaded itself it can unload for this.
        let others = snapshot.servers.iter().filter(|it| here(it) && it.id != judged.server.id);
        let taken = others.map(|it| takes(&it)).fold(0, u64::saturating_add);
        if judged.model.size_bytes.is_some_and(|it| taken > 0 && taken.saturating_add(it) > memory) {
            judged.rank = judged.rank.crowding();
        }
    }
}

fn decide<'a>(
    snapshot: &Snapshot,
    asked: &str,
    meant: &Meant<'_>,
    mut able: Able<'a>,
    mut out: Out<'a>,
    ask: &Ask<'_>,
) -> (Decision, Vec<Candidate>) {
    let last_resort = able.is_empty().then(|| last_resort(&out, ask)).flatten();
    let decision = match (able.first(), last_resort) {
        (Some(best), _) => Decision::Server(best.choice(ask)),
        (None, Some(LastResort::Queue(servers))) => Decision::Full(servers),
        (None, Some(LastResort::Wait(until))) => Decision::Later(until),
        (None, Some(LastResort::Ask(at))) => {
            let (judged, _) = out.remove(at);
            able.push(judged);
            Decision::Server(able[0].choice(ask))
        }
        (None, None) if let Some(too_long) = too_long(&out) => too_long,
        (None, None) if !out.is_empty() && out.iter().all(|(_, reason)| reason.is_lack()) => {
            Decision::Lacking(unsayable(&out).unwrap_or_else(|| explain(asked, meant, &out)))
        }
        (None, None) if out.is_empty() && !meant.is_any() => {
            Decision::Nobody(name::explain_absent(snapshot, asked))
        }
        (None, None) => Decision::Nobody(explain(asked, meant, &out)),
    };
    let mut candidates = Vec::with_capacity(able.len() + out.len());
    for (at, judged) in able.iter().enumerate() {
        let better = at.checked_sub(1).map(|it| able[it].rank);
        candidates.push(Candidate { behind: better.map(|it| judged.rank.behind(&it)), ..judged.candidate() });
    }
    candidates.extend(
        out.iter()
            .take(MOST_CANDIDATES)
            .map(|(it, reason)| Candidate { excluded: Some(reason.to_string().into()), ..it.candidate() }),
    );
    (decision, candidates)
}

/// A server and the model that would be asked of it.
#[derive(Clone, Copy)]
struct Judged<'a> {
    server: &'a Arc<Server>,
    model: &'a Model,
    substituted: Substitution,
    rank: Rank<'a>,
}

impl Judged<'_> {
    fn choice(&self, ask: &Ask<'_>) -> Choice {
        Choice {
            server: Arc::clone(self.server),
            model: self.model.name.clone(),
            substituted: self.substituted,
            loading: rank::is_loading(self.server, self.model),
            near_the_bound: room::is_near(self.server, self.model, ask),
            zone: rank::zone(self.server, self.model),
        }
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            server: self.server.id.clone(),
            model: self.model.name.clone(),
            excluded: None,
            behind: None,
        }
    }
}

/// What is thought of one server: its best model for this, and why it is out, if it is.
fn judge<'a>(
    server: &'a Arc<Server>,
    stand_ins: &'a StandIns<'_>,
    reach: Reach,
    ask: &Ask<'_>,
) -> Option<(Judged<'a>, Option<Reason>)> {
    let in_flight = (ask.in_flight)(&server.id);
    let unfit = rank::unfit_server(server, in_flight, ask);
    let judge_model = |model: &'a Model, sameness: Sameness| {
        let (room, too_long) = room::of(server, model, ask);
        let rank = Rank::of(server, model, sameness, sameness.is_open(), room, in_flight, ask);
        let zone = rank::zone(server, model);
        let substituted = stand_ins.substitution(zone, sameness);
        let reached = stand_ins.reaches_cloud(sameness, reach);
        let cannot = rank::unfit_way(server, model, ask);
        let cannot = cannot.or_else(|| rank::unfit_cloud(server, model, reached, ask));
        let cannot = cannot.or_else(|| rank::unfit_model(model, ask.head)).or(too_long.map(Reason::TooLong));
        let lacks = server.lacks(&model.name, (ask.head.operation, ask.head.needs), ask.now);
        (Judged { server, model, substituted, rank }, cannot, lacks)
    };
    // A model that can do it, before one that cannot; then the better rank.
    let models = stand_ins.models_of(server, reach).map(|(model, sameness)| judge_model(model, sameness));
    let (mut judged, cannot, lacks) =
        models.min_by_key(|(judged, cannot, lacks)| (cannot.is_some(), *lacks, judged.rank))?;
    // What will pass must not hide what will not: waiting or trying would be in vain.
    let lasting = unfit.clone().filter(|it| !it.is_passing());
    if let Some(reason) = lasting.or(cannot) {
        return Some((judged, Some(reason)));
    }
    // Last, because the request may have to be taken apart to find this out.
    let unsayable = match (ask.said)(server) {
        Ok(fidelity) => {
            judged.rank = judged.rank.with(fidelity);
            None
        }
        Err(why) => Some(Reason::Unsayable(why)),
    };
    // And what it may cost after that, for only what can be said costs anything.
    let cloud = ask.cloud.as_ref().filter(|_| unsayable.is_none() && zone(judged) == Zone::Cloud);
    let unpaid = cloud.and_then(|it| (it.pays)(server, judged.model).err()).map(Reason::Unpaid);
    Some((judged, unsayable.or(unpaid).or(unfit).or(lacks.then_some(Reason::SaidNo))))
}

fn zone(judged: Judged<'_>) -> Zone {
    rank::zone(judged.server, judged.model)
}

/// The prompt is too long wherever it might go, and that hides no better reason: a server
/// that could not be asked anyway does not count.
fn too_long(out: &[(Judged<'_>, Reason)]) -> Option<Decision> {
    let those = || out.iter().filter_map(|(_, reason)| reason.too_long());
    let is_alone = out.iter().all(|(_, it)| it.too_long().is_some() || it.is_lack() || it.is_a_persons());
    let largest = those().max_by_key(|it| it.context).filter(|_| is_alone)?;
    Some(Decision::TooLong { tokens: largest.tokens, answer: largest.answer, context: largest.context })
}

/// What nobody can be told, if that is all there is to say.
fn unsayable(out: &[(Judged<'_>, Reason)]) -> Option<String> {
    let mut each: Vec<&str> = Vec::new();
    for (_, reason) in out {
        let Reason::Unsayable(why) = reason else { return None };
        if !each.contains(&why.as_str()) {
            each.push(why);
        }
    }
    Some(each.join("; "))
}

enum LastResort {
    Queue(Vec<ServerId>),
    Wait(Instant),
    /// The place in the list of those that are out.
    Ask(usize),
}

/// When nobody is able: whoever only has enough to do is waited for, and else whoever is
/// only resting after strikes is asked before its time.
fn last_resort(out: &[(Judged<'_>, Reason)], ask: &Ask<'_>) -> Option<LastResort> {
    let full = out.iter().filter(|(_, reason)| *reason == Reason::Full);
    let full: Vec<ServerId> = full.map(|(judged, _)| judged.server.id.clone()).collect();
    if !full.is_empty() {
        return Some(LastResort::Queue(full));
    }
    let busy = out.iter().filter_map(|(_, reason)| match reason {
        Reason::Busy(until) => Some(*until),
        _ => None,
    });
    if let Some(until) = busy.min() {
        return Some(LastResort::Wait(until));
    }
    // One that rests has no place to give either while others use all that it has.
    let resting = || out.iter().enumerate().filter(|(_, (_, reason))| reason.is_rest());
    let free = resting().filter(|(_, (judged, _))| !(ask.full)(judged.server));
    if let Some((at, _)) = free.min_by_key(|(_, (judged, _))| judged.rank) {
        return Some(LastResort::Ask(at));
    }
    let full: Vec<ServerId> = resting().map(|(_, (judged, _))| judged.server.id.clone()).collect();
    (!full.is_empty()).then_some(LastResort::Queue(full))
}

fn explain(asked: &str, meant: &Meant<'_>, out: &[(Judged<'_>, Reason)]) -> String {
    let each: Vec<String> = out.iter().map(|(it, reason)| format!("{} {reason}", it.server.id)).collect();
    match (meant.is_any(), each.is_empty()) {
        (_, true) => "no model server with a usable model is known; see `lovablectl servers`".to_owned(),
        (true, false) => format!("no server can take this request now: {}", each.join("; ")),
        (false, false) => format!("no server can take `{asked}` now: {}", each.join("; ")),
    }
}
