//! What a request to the cloud can cost, what is booked for it, and what it did cost.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::{Relay, answer::SERVERS_REQUEST_ID, live::Live, telling::Ear, work::Work};
use crate::{
    fault::{Fault, Stage},
    generate::{Cost, Most, Operation, Usage},
    kind,
    queue::Priority,
    registry::Server,
    route::{Choice, Fallback},
    server::Zone,
    spending::USUAL_ANSWER,
};

impl Work {
    /// How a server is told, when it is asked for a model in this zone.
    pub(super) fn ear<'a>(&self, server: &'a Server, zone: Zone) -> Ear<'a> {
        let limited = self.record.relay.house.is_limited();
        Ear::of(server, zone, limited.then_some(USUAL_ANSWER))
    }

    /// Whether a model in the cloud may be paid for.
    pub(super) fn may_buy(&self, relay: &Relay, server: &Server, model: &str) -> Result<(), String> {
        relay.house.may_buy(server, model, || self.most(server))
    }

    fn most(&self, server: &Server) -> Result<Most, String> {
        self.telling.most(self.ear(server, Zone::Cloud), &self.errand.request, &self.errand.body)
    }

    /// Books what the chosen one can cost. False where that is too much by now.
    pub(super) fn fund(&mut self, relay: &Relay, choice: &Choice) -> bool {
        self.bought = None;
        if choice.zone != Zone::Cloud {
            return true;
        }
        // Without a limit a request may be of any size; it counts once it is known what it was.
        let unlimited = |_| Most { input: 0, output: 0, writes_cache: false };
        let most = match self.most(&choice.server) {
            Err(_) if relay.house.is_limited() => return false,
            most => most.unwrap_or_else(unlimited),
        };
        match relay.house.book(&choice.server, choice.model.as_str(), most) {
            Ok(bought) => {
                self.bought = bought;
                true
            }
            Err(denied) => {
                tracing::debug!(request = self.record.request_id, server = %choice.server.id, "{denied}");
                false
            }
        }
    }

    /// What goes along with a request: what came, and what every request there has to say.
    pub(super) fn headers(&self, choice: &Choice) -> HeaderMap {
        let mut headers = self.errand.pass.clone();
        let kind = choice.server.kind.as_str();
        if kind::by_id(kind).is_some_and(|it| it.hands_on()) {
            self.hand_on(choice, &mut headers);
        }
        if kind::by_id(kind).is_some_and(|it| it.wants_uuids()) {
            headers.remove(SERVERS_REQUEST_ID);
        }
        let own = kind::provider(kind).map_or(&[][..], |it| it.headers);
        for (name, value) in own {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
            headers.entry(name).or_insert(value);
        }
        headers
    }
}

impl Work {
    /// What another daemon is told of the caller's wishes. It stands in with nothing that is
    /// not the same model: what else may answer is decided here, where all are known, and the
    /// caller is told of it.
    fn hand_on(&self, choice: &Choice, headers: &mut HeaderMap) {
        let wishes = &self.errand.wishes;
        let allowed = self.errand.fallback(&self.settings);
        let reach = if choice.zone == Zone::Cloud { Fallback::Cloud } else { Fallback::Same };
        let mut say = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        say("x-lovable-fallback", reach.min(allowed).to_string());
        if wishes.priority == Priority::Batch {
            say("x-lovable-priority", "batch".to_owned());
        }
        if let Some(session) = &wishes.session {
            say("x-lovable-session", session.clone());
        }
        if let Some(timeout) = wishes.timeout {
            let left = timeout.saturating_sub(self.record.started.elapsed());
            say("x-lovable-timeout-ms", left.as_millis().to_string());
        }
    }
}

impl Live {
    /// Settles what was booked for the attempt, now that it is over, and says what counts.
    ///
    /// A provider does not bill what it refuses or could not be asked. Whatever else broke off
    /// may have been worked on to its end: without the provider's counts that stays counted
    /// with the most that it can have cost.
    pub(super) fn settle(&self, fault: Option<Fault>) -> Option<Cost> {
        let bought = self.bought.as_ref()?;
        if fault.is_some_and(|it| is_unbilled(&it)) {
            bought.take_back();
            return None;
        }
        self.counts().and_then(|usage| bought.settle(usage)).or_else(|| bought.at_most())
    }

    /// The counts of a whole answer, if they came.
    fn counts(&self) -> Option<Usage> {
        let (usage, reason) = self.tally();
        match self.operation {
            Operation::Embed => {
                self.plain_judged.map(|_| Usage { output_tokens: usage.output_tokens.or(Some(0)), ..usage })
            }
            Operation::Chat | Operation::Complete => reason.map(|_| usage),
        }
    }
}

fn is_unbilled(fault: &Fault) -> bool {
    // Behind a gateway that gave up (502, 504) somebody may have worked all the same.
    let refused = |status: u16| (400..500).contains(&status) || matches!(status, 500 | 503 | 529);
    fault.stage == Stage::Connect || (fault.stage == Stage::Head && fault.status.is_some_and(refused))
}
