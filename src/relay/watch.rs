//! Whether a server that is silent is still there.
//!
//! Silence alone says little: a model may be loading, or reading a long prompt. But a process
//! that is stopped is silent to everybody, and one that shuts down refuses new connections
//! long before it closes the old ones. So a server that says nothing for a moment is asked on
//! the side, something that costs it nothing; only where another one could take over, since
//! otherwise there is nothing to do but wait.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::time::Instant;

use super::{live::State, work::Work};
use crate::{
    fault::{Cause, Fault, Stage},
    kind::{self, Question, Refusal},
    registry::Server,
    route::Decision,
    server::Zone,
    upstream::Limits,
};

/// How long a server may be silent before it is asked. Together with the time it has to
/// answer, that is how long a caller waits for a frozen one: less than three seconds.
const SILENCE: Duration = Duration::from_millis(1000);
/// How long it has to answer: a healthy one takes milliseconds, on a machine that is busy with
/// models tens of them.
const TIME: Duration = Duration::from_millis(1500);
/// One that answers and stays silent is asked again after that.
const AGAIN: Duration = Duration::from_secs(3);
/// Its answer is not read beyond that.
const BYTES: usize = 64 << 10;

/// Watches over the silence of one attempt.
#[derive(Default)]
pub(super) struct Watch {
    /// When the silence began, or the server answered on the side.
    since: Option<Instant>,
    answered: bool,
    asking: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
}

impl Watch {
    /// Something came, or was asked.
    pub(super) fn heard(&mut self, now: Instant) {
        *self = Self { since: Some(now), ..Self::default() };
    }

    /// When it is to be asked, unless it is being asked.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.since.filter(|_| self.asking.is_none())?;
        Some(since + if self.answered { AGAIN } else { SILENCE })
    }

    /// Whether it is there, once it is known.
    pub(super) async fn verdict(&mut self) -> bool {
        match &mut self.asking {
            Some(asking) => {
                let alive = asking.as_mut().await;
                (self.asking, self.answered, self.since) = (None, true, Some(Instant::now()));
                alive
            }
            None => std::future::pending().await,
        }
    }
}

impl Work {
    /// Has the silent server asked, if that is due and somebody could take over.
    pub(super) fn look_after(&mut self) {
        if self.watch.due().is_none_or(|it| it > Instant::now()) {
            return;
        }
        let Some(live) = &self.record.live else { return };
        // Whoever sells answers is asked for nothing on the side.
        let is_far = live.choice.zone == Zone::Cloud;
        if is_far || (self.committed && !live.keeps()) || !self.somebody_else_could() {
            (self.watch.since, self.watch.answered) = (Some(Instant::now()), true);
            return;
        }
        let (relay, server) = (self.record.relay.clone(), live.choice.server.clone());
        self.watch.asking = Some(Box::pin(async move {
            let question = Question::get(kind::pulse(server.kind.as_str()));
            let limits = Limits { time: TIME, connect: TIME, bytes: BYTES };
            let key = relay.house.key(&server.endpoint);
            match relay.upstream.ask(&server.endpoint, &question, key, limits).await {
                Ok(answer) => {
                    answer.status < 500 || {
                        let refusal =
                            Refusal { status: answer.status, retry_after: None, body: &answer.body };
                        kind::classify(server.kind.as_str(), refusal) == Cause::Loading
                    }
                }
                Err(_) => false,
            }
        }));
    }

    fn somebody_else_could(&self) -> bool {
        let relay = &self.record.relay;
        let said =
            |server: &Server| self.telling.to(server.kind.as_str(), &self.errand.request, &self.errand.body);
        let (decision, _) = self.decide(relay, &relay.house.snapshot(), &said, &[]);
        matches!(decision, Decision::Server(_) | Decision::Full(_))
    }

    /// The silent server was asked and is not there.
    pub(super) fn on_dead(&mut self) {
        let Some(live) = &self.record.live else { return };
        let (no, begun) = (live.no, live.first_token.is_some());
        let fault = match (begun, &live.state) {
            (true, _) => Fault::new(Stage::Content, Cause::Stalled),
            (false, State::Calling(_)) => Fault::new(Stage::Head, Cause::FirstTokenTimeout),
            (false, _) => Fault::new(Stage::FirstToken, Cause::FirstTokenTimeout),
        };
        self.fail(no, fault, self.now());
    }
}
