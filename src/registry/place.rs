//! One address: who told us of it, and when it is asked next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    registry::{Hint, Listing, Lookup, ServerSettings, Word, health::pause},
    server::{Endpoint, ServerId, Source, Zone},
};

/// Faults of requests may ask for a look at a server, but not more often than
/// this: a thousand misfits in a second are one reason to look.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// A change on the disk is worth a look sooner: a person has just fetched a model and waits
/// for it. But a folder into which many are copied at once changes many times in a second.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// The same for who sells answers.
const RARELY: Duration = Duration::from_secs(60);

/// The longest pause between two questions to a silent address.
const LONGEST: Duration = Duration::from_secs(60);

/// The longest pause at an address of this machine where nobody listens and no
/// table of listening sockets tells when somebody begins to: to be refused here
/// costs microseconds, and a server that was started again is waited for. The same for a
/// server that is announced in the network while it does not answer.
const UNWATCHED: Duration = Duration::from_secs(4);

/// Where a person names servers in writing.
const NAMED: [Source; 2] = [Source::Config, Source::Environment];

/// When an address is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    At(Instant),
    /// It is being asked; the next report ends that.
    Asking,
    /// It is something else until its listener changes.
    Never,
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Who told us of it, and whether that source vouches for it.
    pub(super) hints: BTreeMap<Source, bool>,
    pub(super) settings: Option<ServerSettings>,
    /// What lookups in ordinary DNS say of it, by what was looked up.
    pub(super) listed: BTreeMap<Lookup, Listing>,
    /// The names that it was announced under in the network.
    pub(super) names: BTreeSet<String>,
    /// How often it was put off to see whether a server has moved here.
    pub(super) put_off: u32,
    /// The server that lives here.
    pub(super) server: Option<ServerId>,
    /// Whether what answers here is another server's private engine.
    pub(super) engine: bool,
    /// Sightings in a row that did not look like the server which this is another address of.
    pub(super) odd: u32,
    pub(super) ask: Ask,
    /// When the agenda says that it is asked.
    pub(super) noted: Option<Instant>,
    /// What is being asked may be about the listener before this one.
    again: bool,
    /// A person does not want to see what is here, until there is something new.
    dismissed: bool,
    silences: u32,
    asked_at: Option<Instant>,
    /// The last word of whoever found it on whether it may be used, for when nobody tells of it
    /// any more but the server is still known.
    vouched: bool,
    /// Whether a rule of the person covers it.
    ruled: bool,
    /// What a person said of what is here.
    pub(super) word: Option<Word>,
    /// Where the last connection to what was recognised here ended.
    pub(super) seen_in: Option<Zone>,
}

impl Place {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            hints: BTreeMap::new(),
            settings: None,
            listed: BTreeMap::new(),
            names: BTreeSet::new(),
            put_off: 0,
            server: None,
            engine: false,
            odd: 0,
            ask: Ask::At(now),
            noted: None,
            again: false,
            dismissed: false,
            silences: 0,
            asked_at: None,
            vouched: false,
            ruled: false,
            word: None,
            seen_in: None,
        }
    }

    /// Whether nobody vouches for it and nothing of ours lives there.
    pub(super) fn is_idle(&self) -> bool {
        self.hints.is_empty() && self.server.is_none() && self.ask != Ask::Asking
    }

    /// Whether a person named it.
    pub(super) fn is_named(&self) -> bool {
        self.hints.contains_key(&Source::Added) || self.is_in_writing()
    }

    /// Whether the configuration or the environment names it.
    pub(super) fn is_in_writing(&self) -> bool {
        NAMED.iter().any(|it| self.hints.contains_key(it))
    }

    /// Nobody's word for it counts any more.
    pub(super) fn let_go(&mut self) {
        self.hints.clear();
        self.listed.clear();
        self.settings = None;
        self.vouched = false;
        self.abandon();
    }

    /// Whether what is here may be used, and shown its key.
    pub(super) fn is_trusted(&self) -> bool {
        match &self.word {
            Some(Word::Trusted(_)) => true,
            Some(Word::Changed { .. } | Word::Distrusted) => false,
            None => self.is_trusted_anyway(),
        }
    }

    /// Whether it would be trusted if a person had said nothing of what is here.
    pub(super) fn is_trusted_anyway(&self) -> bool {
        self.speaks_person() || self.vouched
    }

    /// Whether somebody vouches for it beside the configuration and the environment.
    pub(super) fn is_vouched(&self) -> bool {
        self.vouched
    }

    /// Whether the person says in the configuration or the environment that it is trusted.
    fn speaks_person(&self) -> bool {
        self.ruled || NAMED.iter().any(|it| self.hints.get(it) == Some(&true))
    }

    /// Believes the store about an address of this machine.
    pub(super) fn remember_trust(&mut self, trusted: bool) {
        if self.hints.is_empty() {
            self.vouched = trusted;
        }
    }

    /// Decides anew whether whoever found it vouches for it; what the person says is beside
    /// that. Outside this machine a hint is trusted only where a person said so. On
    /// this machine the owner of the listening socket decides; where the table is
    /// `watched` and does not show the socket the last word stands, and where
    /// there is no table whoever else told us is believed.
    pub(super) fn weigh_trust(&mut self, endpoint: &Endpoint, watched: bool) {
        let says = |source: Source| self.hints.get(&source).copied();
        self.vouched = if !endpoint.is_local() {
            self.vouches()
        } else if let Some(owner) = says(Source::SocketTable) {
            owner
        } else if let (false, Some(owner)) = (watched, says(Source::Port)) {
            owner
        } else if self.finders().next().is_none() || (watched && endpoint.port().is_some()) {
            self.vouched
        } else {
            self.vouches()
        };
    }

    /// Who found it, but for the configuration and the environment, and whether they vouch for it.
    fn finders(&self) -> impl Iterator<Item = bool> {
        self.hints.iter().filter(|(source, _)| !NAMED.contains(source)).map(|(_, trusted)| *trusted)
    }

    fn vouches(&self) -> bool {
        self.finders().any(|it| it)
    }

    /// Takes the owner's word for who listens at an added address.
    pub(super) fn trust_owner(&mut self, trusted: bool) {
        self.hints.insert(Source::Added, trusted);
        self.vouched = trusted;
    }

    /// Takes over what the person says of it now: whether a rule covers it, and who names it
    /// (configuration or environment) with which settings.
    ///
    /// Trust that was theirs ends with their word. It may have been remembered as if somebody
    /// else had vouched, from an earlier run, so then only those count who do so now.
    pub(super) fn on_person(
        &mut self,
        endpoint: &Endpoint,
        watched: bool,
        ruled: bool,
        named: Option<&Hint>,
    ) {
        let spoke = self.speaks_person();
        self.ruled = ruled;
        self.hints.retain(|source, _| !NAMED.contains(source));
        self.settings = named.and_then(|it| it.settings.clone());
        self.hints.extend(named.map(|it| (it.source, it.trusted)));
        if spoke && !self.speaks_person() {
            self.vouched = self.vouches();
        }
        self.weigh_trust(endpoint, watched);
    }

    /// Whether a rule of the person covers it.
    pub(super) fn rule(&mut self, ruled: bool) {
        self.ruled = ruled;
    }

    /// A new listener, or a person's wish: asked now, whatever was before.
    pub(super) fn wake(&mut self, now: Instant) {
        self.silences = 0;
        self.odd = 0;
        self.dismissed = false;
        match self.ask {
            Ask::Asking => self.again = true,
            Ask::At(_) | Ask::Never => self.ask = Ask::At(now),
        }
    }

    /// The machine has slept, or what was wrong may have been mended: asked now, and what is
    /// being asked may never be answered.
    pub(super) fn rouse(&mut self, now: Instant) {
        self.silences = 0;
        match self.ask {
            Ask::Asking => self.again = true,
            Ask::At(_) => self.ask = Ask::At(now),
            Ask::Never => {}
        }
    }

    /// Whether it did not answer when it was asked last.
    pub(super) fn is_silent(&self) -> bool {
        self.silences > 0
    }

    /// Not asked again until it is woken; what is being asked counts no more.
    pub(super) fn dismiss(&mut self) {
        self.dismissed = true;
        self.again = false;
        if self.ask != Ask::Asking {
            self.ask = Ask::Never;
        }
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed
    }

    /// Nobody tells of it any more, and the table would. What listens there from
    /// now on may be something that the scanner has a reason not to touch.
    pub(super) fn abandon(&mut self) {
        self.again = false;
        if self.ask != Ask::Asking {
            self.ask = Ask::Never;
        }
    }

    /// Asked soon, because something was noticed on the side.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.hurry_after(AT_MOST_EVERY, now);
    }

    /// The same for who is asked rarely.
    pub(super) fn hurry_a_little(&mut self, now: Instant) {
        self.hurry_after(RARELY, now);
    }

    /// Asked so long after it was asked last, if that is sooner.
    pub(super) fn hurry_after(&mut self, pause: Duration, now: Instant) {
        if let Ask::At(at) = self.ask {
            let earliest = self.asked_at.map_or(now, |it| now.max(it + pause));
            self.ask = Ask::At(at.min(earliest));
        }
    }

    /// What it has is another now, of which what is being asked may know nothing yet.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.ask == Ask::Asking {
            self.again = true;
        }
        self.hurry_after(BETWEEN_LOOKS, now);
    }

    /// Asked at `at` unless it is being asked.
    pub(super) fn postpone(&mut self, at: Instant) {
        if self.ask != Ask::Asking {
            self.ask = Ask::At(at);
        }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.ask = Ask::Asking;
        self.asked_at = Some(now);
    }

    /// It answered; `next` is when it is asked again.
    pub(super) fn end(&mut self, next: Ask, now: Instant) {
        self.silences = 0;
        self.settle(next, now);
    }

    /// It did not answer, or not yet. `refused` says that nobody listens, `near`
    /// that it is on this machine, `watched` that a table will tell when somebody does.
    pub(super) fn end_silent(&mut self, refused: bool, near: bool, watched: bool, now: Instant) {
        self.silences = self.silences.saturating_add(1);
        if watched && self.hints.is_empty() {
            return self.settle(Ask::Never, now);
        }
        let guessed = self.server.is_none() && self.hints.keys().all(|it| *it == Source::Port);
        let wait = match (refused, watched) {
            (true, true) if guessed => LONGEST,
            (true, false) if near => pause(self.silences).min(UNWATCHED),
            _ if self.server.is_some() && self.hints.contains_key(&Source::Mdns) => {
                pause(self.silences).min(UNWATCHED)
            }
            _ => pause(self.silences),
        };
        self.settle(Ask::At(now + wait), now);
    }

    fn settle(&mut self, next: Ask, now: Instant) {
        self.ask = match (std::mem::take(&mut self.again), self.dismissed) {
            (true, _) => Ask::At(now),
            (false, true) => Ask::Never,
            (false, false) => next,
        };
    }
}
