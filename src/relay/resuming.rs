//! How an answer goes on whose server failed: what of it is kept, who may go on with it, and
//! what that server is asked.

use bytes::Bytes;

use super::{
    Relay,
    asking::Asking,
    live::Mode,
    telling,
    translation::{Listener, Translation},
    work::Work,
};
use crate::{
    dialect::{Beginning, Door, To, bridge::Way},
    fault::{Cause, Fault, Stage},
    generate::{Begun, Complete, Head, Meaning, Substitution},
    kind::{self, Continuation, Question, Refusal},
    registry::Server,
    resume::{self, Care, Plan},
    route::{Choice, Fallback},
    server::ModelName,
    upstream::Limits,
};

/// What is kept of an answer is counted in steps of that many bytes: a count for each token
/// would cost more than the token.
const STEP: usize = 4096;
/// The longest text of a conversation that is read. The longest contexts have a few million tokens.
const LONGEST_TEXT: usize = 32 << 20;

/// The half of an answer that there is.
pub(super) struct Half {
    begun: Begun,
    /// What the caller hears it by, once that is not the server's own frames.
    translation: Option<Box<Translation>>,
    /// The data of the first frame that the caller has.
    first: Option<Bytes>,
    /// The model that began it.
    model: ModelName,
    /// How far that is from what was asked.
    substituted: Substitution,
}

/// Where a text is continued that the server rendered itself.
const RENDERED_AT: Door = Door::OllamaGenerate;

/// What is said to a server that is to go on, and where.
struct OnSaid {
    at: Door,
    body: Bytes,
    render: Option<Render>,
}

impl OnSaid {
    fn new(at: Door, body: Bytes) -> Self {
        Self { at, body, render: None }
    }
}

/// What is asked once the server has rendered the conversation.
pub(super) struct Render {
    text: String,
    model: String,
    complete: Complete,
}

impl Render {
    /// Has the conversation rendered, and says what is asked then.
    pub(super) async fn by(self, relay: &Relay, server: &Server, question: Bytes) -> Result<Bytes, Fault> {
        let question = Question::post(Door::OllamaChat.path(), question);
        let patience = relay.settings.patience;
        // It loads the model first, if it must.
        let limits = Limits { time: patience.load, connect: patience.connect, bytes: LONGEST_TEXT };
        let key = relay.house.key(&server.endpoint);
        let answer = relay.upstream.ask(&server.endpoint, &question, key, limits).await?;
        let lacking = || Fault::new(Stage::Head, Cause::Unsupported);
        if answer.status != 200 {
            let refusal = Refusal { status: answer.status, retry_after: None, body: &answer.body };
            let cause = kind::classify(server.kind.as_str(), refusal);
            return Err(Fault { status: Some(answer.status), ..Fault::new(Stage::Head, cause) });
        }
        self.body(&answer.body).ok_or_else(lacking)
    }

    /// What is asked, given what it said to the question for the text.
    fn body(mut self, answer: &[u8]) -> Option<Bytes> {
        self.complete.prompt = RENDERED_AT.dialect().rendered(answer)? + &self.text;
        let to = To { model: &self.model, stream: true, ask_usage: true, max_tokens: false, sold: None };
        let asked = RENDERED_AT.dialect().ask(RENDERED_AT, &Meaning::Complete(self.complete), &to);
        Some(asked.ok()?.body)
    }
}

impl Work {
    /// Keeps what there is of the answer of an attempt that fails.
    pub(super) fn keep_half(&mut self) {
        self.half = None;
        let Some(live) = &mut self.record.live else { return };
        // What has not gone out is begun anew, but for a plain answer: it is as good as before.
        if !self.committed && live.mode != Mode::Fold {
            return;
        }
        let Some((begun, translation)) = live.take_begun() else { return };
        if !self.committed && begun.is_empty() {
            return;
        }
        let (model, substituted) = match self.begun_by.take() {
            Some(it) => it,
            None => (live.choice.model.clone(), live.choice.substituted),
        };
        self.half = Some(Half { begun, translation, first: live.first.take(), model, substituted });
    }

    /// Counts what is kept of the answer; too much is kept no longer.
    pub(super) fn bound_half(&mut self, held: usize) {
        let Some(live) = &mut self.record.live else { return };
        let kept = live.kept() / STEP * STEP;
        if kept == 0 {
            return;
        }
        if kept > super::work::HELD || !self.record.hold(held + kept) {
            if let Some(live) = &mut self.record.live {
                live.forget();
            }
            if held == 0 {
                self.record.let_go();
            }
        }
    }

    /// Whether what the caller has can be gone on with at all.
    pub(super) fn can_resume(&self) -> bool {
        let Some(half) = &self.half else { return false };
        self.plan(half, Continuation::None).is_some()
    }

    /// Whether a server of this kind goes on where the answer ended, rather than from its start.
    pub(super) fn goes_on(&self, kind: &str) -> bool {
        let continuation = kind::continuation(kind, self.errand.request.head.operation);
        let plan = |half| self.plan(half, continuation);
        self.half
            .as_ref()
            .is_some_and(|half| half.begun.is_empty() || plan(half).is_some_and(|it| it.told.is_some()))
    }

    fn plan(&self, half: &Half, continuation: Continuation) -> Option<Plan> {
        let terms = self.telling.terms(&self.errand.request, &self.errand.body);
        resume::plan(&half.begun, terms, continuation, self.care)
    }

    /// Of whom the rest of the answer is wanted: of the model that began it.
    pub(super) fn head_of_the_rest(&self) -> Option<Head> {
        let half = self.half.as_ref()?;
        let head = &self.errand.request.head;
        let other = head.model == "auto" || half.substituted > Substitution::Equivalent;
        other.then(|| Head { model: half.model.to_string(), ..head.clone() })
    }

    /// What is sent to a server that goes on with the answer, or begins it again. An answer of
    /// which the caller has nothing is begun anew where that is as good.
    pub(super) fn asking_on(&mut self, choice: &Choice) -> Option<Asking> {
        let half = self.half.take()?;
        let kind = choice.server.kind.as_str();
        let plan = self.plan(&half, kind::continuation(kind, self.errand.request.head.operation));
        let plan = plan.filter(|it| self.committed || it.told.is_some());
        let Some(plan) = plan else {
            if self.committed {
                self.half = Some(half);
                return None;
            }
            return self.asking(choice);
        };
        let Some(OnSaid { at, body, render }) = self.said_on(choice, &half.begun, &plan) else {
            if self.committed {
                self.half = Some(half);
                return None;
            }
            return self.asking(choice);
        };
        let Half { begun, translation, first, model, substituted } = half;
        let stream = self.errand.request.head.stream;
        let mut translation = match translation {
            Some(translation) => translation,
            None => {
                let listener = Listener {
                    door: self.errand.request.door,
                    stream,
                    voice: self.voice(if self.committed { &model } else { &choice.model }.as_str()),
                    arrived: self.record.started,
                    keeps: true,
                    holds: self.holds(),
                };
                let first = first.as_deref().filter(|_| self.frames > 0);
                Box::new(Translation::of_begun(listener, begun, first))
            }
        };
        translation.go_on(plan.seam, self.holds());
        self.begun_by = Some((model, substituted));
        self.resumed = true;
        self.record.substituted = self.record.substituted.max(choice.substituted);
        let mode = if stream { Mode::Pass } else { Mode::Fold };
        Some(Asking { at, mode, body, translation: Some(translation), render })
    }

    /// The door of a server and what is said there.
    fn said_on(&self, choice: &Choice, begun: &Begun, plan: &Plan) -> Option<OnSaid> {
        let (request, body) = (&self.errand.request, &self.errand.body);
        let (kind, model) = (choice.server.kind.as_str(), choice.model.as_str());
        let way = telling::way(kind, request)?;
        let ear = self.ear(&choice.server, choice.zone);
        let max_tokens = kind::by_id(kind).is_some_and(|it| it.wants_max_tokens());
        let to = To { model, stream: true, ask_usage: true, max_tokens, sold: ear.sold };
        let Some(told) = plan.told else {
            return match way {
                Way::Same => {
                    Some(OnSaid::new(request.door, request.door.dialect().readdress(request, body, &to)))
                }
                Way::Other(door) => {
                    let asked = self.telling.ask(door, ear, model, request, body).ok()?;
                    asked.forced.is_none().then(|| OnSaid::new(door, asked.body))
                }
            };
        };
        let (text, thinking) = (&begun.text()[..told], begun.thinking());
        let continuation = kind::continuation(kind, request.head.operation);
        if continuation == Continuation::Rendered {
            let meaning = self.telling.meaning(request, body).ok()?;
            let render = Render {
                text: text.to_owned(),
                model: model.to_owned(),
                complete: resume::rendered(meaning, plan.max_tokens)?,
            };
            let body = RENDERED_AT.dialect().ask_rendered(meaning, &to)?;
            return Some(OnSaid { at: RENDERED_AT, body, render: Some(render) });
        }
        let flags = continuation == Continuation::Flags;
        let beginning = Beginning { thinking, text, max_tokens: plan.max_tokens, flags };
        let door = match way {
            Way::Same => match request.door.dialect().go_on(request, body, &to, &beginning) {
                Some(body) => return Some(OnSaid::new(request.door, body)),
                None => request.door,
            },
            Way::Other(door) => door,
        };
        let meaning = self.telling.meaning(request, body).ok()?;
        let meaning = resume::continued(meaning, text, thinking, plan.max_tokens);
        let asked = door.dialect().ask(door, &meaning, &to).ok()?;
        asked.forced.is_none().then(|| OnSaid::new(door, asked.body))
    }

    /// What became of an attempt that was to go on with an answer, as a fault of its own: what
    /// it calls wrong is what we made of the request, which another server had taken.
    pub(super) fn as_resumption(&self, fault: Fault) -> Fault {
        match fault.cause {
            Cause::Malformed if self.begun_by.is_some() => Fault { cause: Cause::Unsupported, ..fault },
            _ => fault,
        }
    }

    /// How the same server can be asked once more, where it only said a word differently that
    /// was cut, or would not render the conversation.
    pub(super) fn more_care(&self, fault: Fault) -> Option<Care> {
        // What costs money is sent once for each time that it is booked.
        let live = self.record.live.as_ref().filter(|it| it.bought.is_none());
        let live = live.filter(|_| fault.cause == Cause::Unsupported)?;
        match self.care {
            Care::WholeWords if live.misfit => Some(Care::AsItIs),
            Care::WholeWords | Care::AsItIs if live.renders && fault.stage <= Stage::Head => {
                Some(Care::FromTheStart)
            }
            Care::WholeWords | Care::AsItIs | Care::FromTheStart => None,
        }
    }

    /// How far a stand-in may be for the rest of an answer.
    pub(super) fn fallback_of_the_rest(&self, fallback: Fallback) -> Fallback {
        if self.half.is_some() { fallback.min(Fallback::Same) } else { fallback }
    }
}
