//! Who is out and why, and in which order the others are asked.

use std::{borrow::Cow, fmt, time::Instant};

use super::{
    Ask, Fallback,
    room::{Room, TooLong},
    stand_in::Sameness,
};
use crate::{
    generate::{Head, Operation},
    registry::{Admission, Server, Standing},
    server::{Capability, Model, Problem, Zone},
};

/// One request in so many tries a server that is on trial although others are
/// up: without it such a server would never be proven well again.
const TRIALS: u64 = 16;

/// Best first; the order of the fields is the policy. A strike never makes a different
/// model win over the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank<'a> {
    sameness: Sameness,
    /// Whether the model is made for something else, by its name; only asked
    /// where the caller left the choice to us.
    doubtful: bool,
    /// Whether it would push the models of other servers out of memory.
    crowds: bool,
    footing: Footing,
    room: Room,
    priority: i32,
    zone: Zone,
    warmth: Warmth,
    /// How many daemons are between us and who answers.
    ways: usize,
    affinity: Affinity,
    /// Whether it has as much to do as servers usually work on at once, and may have more: then
    /// what follows is no reason to give it that.
    busy: bool,
    fit: Fit,
    /// The model's name, where the caller left the choice to us: it must not
    /// change from request to request.
    taste: Option<&'a str>,
    fidelity: Fidelity,
    load: u64,
    salt: u64,
}

/// How truly a request and its answer reach the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fidelity {
    /// In the caller's own words.
    Own,
    /// Translated.
    Translated,
}

/// How sure it is that the model can do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// Its server says so.
    Said,
    /// Nobody says what it can do.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Footing {
    Up,
    Suspect,
    Trial,
    /// It will be well, but not at once.
    Loading,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Warmth {
    Loaded,
    Unknown,
    Cold,
    /// It would have to be loaded beside models that others are using, or in their place.
    Swap,
}

/// Whether the server has kept what it read of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Affinity {
    Home,
    Elsewhere,
}

impl<'a> Rank<'a> {
    pub(super) fn of(
        server: &Server,
        model: &'a Model,
        sameness: Sameness,
        any: bool,
        room: Room,
        in_flight: u32,
        ask: &Ask<'_>,
    ) -> Self {
        // Where somebody set its share, that says how much it is good for.
        let usual = if server.weight.is_some() { u32::MAX } else { USUAL_LIMIT };
        let busy = in_flight >= server.limit.unwrap_or(usual);
        Self {
            sameness,
            doubtful: any && is_doubtful(model, ask.head.operation),
            crowds: false,
            footing: footing(server, in_flight, ask.salt),
            room,
            priority: server.priority,
            zone: zone(server, model),
            warmth: match model.loaded {
                Some(true) if !busy => Warmth::Loaded,
                // It waits there about as long as for a model that may have to be loaded.
                Some(true) | None => Warmth::Unknown,
                Some(false) if (ask.uses_others)(&server.id, &model.name) => Warmth::Swap,
                Some(false) => Warmth::Cold,
            },
            ways: usize::from(server.instance.is_some()) + model.via.len(),
            affinity: Affinity::Elsewhere,
            busy,
            fit: if model.capabilities.is_empty() { Fit::Unknown } else { Fit::Said },
            taste: any.then_some(model.name.as_str()),
            fidelity: Fidelity::Own,
            load: load(server.limit, in_flight),
            salt: mix(ask.salt, server.id.as_str()),
        }
    }

    /// The same, where the conversation is at home.
    pub(super) fn at_home(self) -> Self {
        Self { affinity: Affinity::Home, ..self }
    }

    /// The same, where shares are set: whether it has much more than its own, and its lot.
    pub(super) fn by_share(self, is_behind: bool, lot: f64) -> Self {
        // Saturates; a millionth decides nothing.
        Self { busy: self.busy || is_behind, load: (lot * 1e6) as u64, ..self }
    }

    /// The same, where the model has no room beside those of other servers.
    pub(super) fn crowding(self) -> Self {
        Self { crowds: true, ..self }
    }

    /// The same, once it is known how the server is told.
    pub(super) fn with(self, fidelity: Fidelity) -> Self {
        Self { fidelity, ..self }
    }

    /// Why it stands behind one that is better or the same: the first axis on which they differ.
    pub(super) fn behind(&self, better: &Self) -> Cow<'static, str> {
        let Self { sameness, doubtful, crowds, footing, room, priority, zone, .. } = self;
        let why = if *sameness != better.sameness {
            "its model is farther from what was asked"
        } else if *doubtful != better.doubtful {
            "its model seems to be made for something else"
        } else if *crowds != better.crowds {
            "its model would push others out of memory"
        } else if *footing != better.footing {
            match footing {
                Footing::Up | Footing::Suspect => "it has failed lately",
                Footing::Trial => "it was down and is being tried",
                Footing::Loading => "it is loading",
                Footing::Down => "it is down",
            }
        } else if *room != better.room {
            "its context may be too small"
        } else if *priority != better.priority {
            return format!("the configuration puts it behind (priority {priority})").into();
        } else if *zone != better.zone {
            if *zone == Zone::Cloud { "it is in the cloud" } else { "it is on another machine" }
        } else {
            self.behind_among_like(better)
        };
        why.into()
    }

    /// The same, where nothing that matters more tells them apart.
    fn behind_among_like(&self, better: &Self) -> &'static str {
        if self.warmth != better.warmth {
            match self.warmth {
                Warmth::Loaded | Warmth::Unknown => "it does not say whether the model is in memory",
                Warmth::Cold => "the model is not in memory there",
                Warmth::Swap => "the model would take the place of one that is in use",
            }
        } else if self.affinity != better.affinity {
            "the conversation is at home elsewhere"
        } else if self.fit != better.fit {
            "nobody says what its model can do"
        } else if self.taste != better.taste {
            "its model comes later in the alphabet"
        } else if self.fidelity != better.fidelity {
            "it has to be asked in another language"
        } else if self.load != better.load {
            "it has more to do, or its share is smaller"
        } else {
            "by lot, among equals"
        }
    }
}

/// Whether the first token will be long in coming.
pub(super) fn is_loading(server: &Server, model: &Model) -> bool {
    server.problem == Some(Problem::Loading) || model.loaded == Some(false)
}

fn footing(server: &Server, in_flight: u32, salt: u64) -> Footing {
    match server.standing {
        _ if server.problem == Some(Problem::Loading) => Footing::Loading,
        Standing::Up => Footing::Up,
        Standing::Trial if in_flight == 0 && salt.is_multiple_of(TRIALS) => Footing::Up,
        Standing::Trial => Footing::Trial,
        Standing::Suspect => Footing::Suspect,
        Standing::Down => Footing::Down,
    }
}

/// How much of what a server can do at once it does, in thousandths.
fn load(limit: Option<u32>, in_flight: u32) -> u64 {
    u64::from(in_flight) * 1000 / u64::from(limit.unwrap_or(USUAL_LIMIT).max(1))
}

/// What a server that does not say is taken to work on at once, when it is compared with
/// one that does.
const USUAL_LIMIT: u32 = 4;

/// Many kinds list an embedder beside their chat models and do not say which is which.
pub(super) fn is_doubtful(model: &Model, operation: Operation) -> bool {
    if !model.capabilities.is_empty() {
        return false;
    }
    let name = model.name.as_str().to_ascii_lowercase();
    let embedder = ["embed", "bge-", "rerank", "minilm"].iter().any(|it| name.contains(it));
    embedder != (operation == Operation::Embed)
}

/// Equal servers come in another order for each request, and in the same one
/// for equal salts: FNV-1a of the id, then the last step of SplitMix64, without
/// which ids that differ in one digit would be ordered alike too often.
pub(super) fn mix(salt: u64, id: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = salt ^ id.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Why a server is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Tried,
    /// The request has come from there.
    Circle,
    OneServerOnly,
    Draining,
    Untrusted,
    Off,
    Cloud,
    CloudModel,
    /// The caller did not ask for the cloud.
    CloudUnasked,
    /// It may not be paid for; the text says why.
    Unpaid(String),
    NeedsKey,
    WrongHost,
    Unhealthy,
    Displaced,
    Resting,
    OnTrial,
    Busy(Instant),
    /// It turned out a moment ago to lack what this takes.
    SaidNo,
    /// It has all the requests that it may have at once.
    Full,
    Cannot(Capability),
    /// The prompt surely does not fit into the context that it has.
    TooLong(TooLong),
    /// What is asked cannot be said in its language; the text says what.
    Unsayable(String),
}

impl Reason {
    /// Whether it may be asked all the same when nothing else is left.
    pub(super) fn is_rest(&self) -> bool {
        matches!(self, Self::Resting | Self::OnTrial | Self::SaidNo)
    }

    /// By how much the prompt is too long, if that is it.
    pub(super) fn too_long(&self) -> Option<TooLong> {
        match self {
            Self::TooLong(it) => Some(*it),
            _ => None,
        }
    }

    /// Whether a person wants it so, or has to do something about it.
    pub(super) fn is_a_persons(&self) -> bool {
        let of_cloud = matches!(self, Self::Cloud | Self::CloudModel | Self::CloudUnasked | Self::Unpaid(_));
        of_cloud || matches!(self, Self::Untrusted | Self::Off | Self::NeedsKey | Self::WrongHost)
    }

    /// Whether the request asks for what is not there.
    pub(super) fn is_lack(&self) -> bool {
        matches!(self, Self::Cannot(_) | Self::Unsayable(_))
    }

    /// Whether it is over by itself after a while.
    pub(super) fn is_passing(&self) -> bool {
        self.is_rest() || matches!(self, Self::Busy(_) | Self::Full)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tried => "was tried already",
            Self::Circle => "is on the way that this request has come",
            Self::OneServerOnly => "may not stand in (fallback `none`)",
            Self::Draining => "is draining (`lovablectl servers resume` ends that)",
            Self::Untrusted => "is not trusted",
            Self::Off => "is switched off in the configuration",
            Self::Cloud => "is in the cloud, which is not enabled",
            Self::CloudModel => "only forwards this model to the cloud, which is not enabled",
            Self::CloudUnasked => "is in the cloud (fallback `cloud` lets it answer)",
            Self::NeedsKey => "needs a key",
            Self::WrongHost => "refuses the name that it is called by",
            Self::Unhealthy => "reports itself unhealthy",
            Self::Displaced => "is gone; something else answers at its address",
            Self::Resting => "is down",
            Self::OnTrial => "is down and being tried",
            Self::Busy(_) => "is busy",
            Self::SaidNo => "said a moment ago that it cannot do this",
            Self::Full => "has as many requests as it may have at once",
            Self::Cannot(Capability::Chat) => "has it, but not for chat",
            Self::Cannot(Capability::Complete) => "has it, but not for completions",
            Self::Cannot(Capability::Fim) => "has it, but not for filling in the middle",
            Self::Cannot(Capability::Embed) => "has it, but not for embeddings",
            Self::Cannot(Capability::Tools) => "has it, but without tools",
            Self::Cannot(Capability::Vision) => "has it, but without images",
            Self::Cannot(Capability::Thinking) => "has it, but without thinking",
            Self::Unpaid(why) => return f.write_str(why),
            Self::TooLong(it) => return it.fmt(f),
            Self::Unsayable(why) => return write!(f, "cannot be told: {why}"),
        })
    }
}

/// Why a server is not asked, whatever the model. What lasts longest is said first.
pub(super) fn unfit_server(server: &Server, in_flight: u32, ask: &Ask<'_>) -> Option<Reason> {
    if ask.tried.contains(&server.id) {
        return Some(Reason::Tried);
    }
    if ask.fallback == Fallback::None && ask.first.is_some_and(|first| *first != server.id) {
        return Some(Reason::OneServerOnly);
    }
    match server.admission {
        Admission::Open => {}
        Admission::Draining => return Some(Reason::Draining),
        Admission::Untrusted => return Some(Reason::Untrusted),
        Admission::Off => return Some(Reason::Off),
    }
    match server.problem {
        None | Some(Problem::Loading) => {}
        Some(Problem::NeedsKey) => return Some(Reason::NeedsKey),
        Some(Problem::WrongHost) => return Some(Reason::WrongHost),
        Some(Problem::Unhealthy) => return Some(Reason::Unhealthy),
        // Nobody has said yet that what is there now is fine.
        Some(Problem::ChangedKind | Problem::ChangedKey | Problem::ChangedOwner) => {
            return Some(Reason::Untrusted);
        }
    }
    match (server.standing, server.trial_at) {
        (Standing::Down, None) => return Some(Reason::Displaced),
        (Standing::Down, Some(at)) if at > ask.now => return Some(Reason::Resting),
        (Standing::Down, Some(_)) | (Standing::Trial, _) if in_flight > 0 => return Some(Reason::OnTrial),
        (Standing::Up | Standing::Suspect | Standing::Trial | Standing::Down, _) => {}
    }
    let busy = server.busy_until.filter(|until| *until > ask.now).map(Reason::Busy);
    busy.or_else(|| (ask.full)(server).then_some(Reason::Full))
}

/// Where requests for a model of a server end up.
pub(super) fn zone(server: &Server, model: &Model) -> Zone {
    model.zone.map_or(server.zone, |it| it.max(server.zone))
}

/// Why a model is not asked that is reached through others.
pub(super) fn unfit_way(server: &Server, model: &Model, ask: &Ask<'_>) -> Option<Reason> {
    let mut way = server.instance.iter().chain(&model.via);
    way.any(|it| ask.via.contains(it)).then_some(Reason::Circle)
}

/// Why a model in the cloud is not asked, whatever it costs. `reached` says whether the caller
/// asked for it, or lets the cloud stand in.
pub(super) fn unfit_cloud(server: &Server, model: &Model, reached: bool, ask: &Ask<'_>) -> Option<Reason> {
    if zone(server, model) != Zone::Cloud {
        return None;
    }
    match (&ask.cloud, reached) {
        (None, _) if server.zone == Zone::Cloud => Some(Reason::Cloud),
        (None, _) => Some(Reason::CloudModel),
        (Some(_), false) => Some(Reason::CloudUnasked),
        (Some(_), true) => None,
    }
}

/// Why a model is not asked. A server that does not say what a model can do is believed to know why.
pub(super) fn unfit_model(model: &Model, head: &Head) -> Option<Reason> {
    if model.capabilities.is_empty() {
        return None;
    }
    let can = |capability: Capability| model.capabilities.contains(&capability);
    // Servers put a template around a chat for models that only complete, and the other way round.
    let text = can(Capability::Chat) || can(Capability::Complete);
    let needs = [
        (head.operation == Operation::Chat && !text, Capability::Chat),
        (head.operation == Operation::Complete && !text, Capability::Complete),
        (head.operation == Operation::Embed && !can(Capability::Embed), Capability::Embed),
        (head.needs.fim && !can(Capability::Fim), Capability::Fim),
        (head.needs.tools && !can(Capability::Tools), Capability::Tools),
        (head.needs.vision && !can(Capability::Vision), Capability::Vision),
    ];
    needs.into_iter().find(|(lacks, _)| *lacks).map(|(_, capability)| Reason::Cannot(capability))
}
