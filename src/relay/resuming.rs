//! How an answer goes on whose server failed: what of it is kept, who may go on with it, and
//! what that server is asked.

use bytes::Bytes;

use super::{
    aside::ToldSo,
    asking::Asking,
    before::{Before, Count, RENDERED_AT},
    live::Mode,
    telling,
    translation::{Listener, Translation},
    work::Work,
};
use crate::{
    dialect::{Beginning, Door, To, bridge::Way},
    fault::{Cause, Fault, Stage},
    generate::{Begun, Head, Substitution},
    kind::{self, Continuation},
    resume::{self, Care, Plan, Rendered, Told},
    route::{Choice, Fallback},
    server::ModelName,
};

/// What is kept of an answer is counted in steps of that many bytes: a count for each token
/// would cost more than the token.
const STEP: usize = 4096;

/// The half of an answer that there is.
pub(super) struct Half {
    begun: Begun,
    /// What the caller hears it by, once that is not the server's own frames.
    translation: Option<Box<Translation>>,
    /// The data of the first frame with content that the caller has.
    first: Option<Bytes>,
    /// The model that began it.
    model: ModelName,
    /// How far that is from what was asked.
    substituted: Substitution,
}

/// What is said to a server that is to go on, and where.
struct OnSaid {
    at: Door,
    body: Bytes,
    before: Option<Before>,
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
        self.half.as_ref().is_some_and(|half| {
            half.begun.is_empty() || plan(half).is_some_and(|it| it.told != Told::Nothing)
        })
    }

    fn plan(&self, half: &Half, continuation: Continuation) -> Option<Plan> {
        let terms = self.telling.terms(&self.errand.request, &self.errand.body);
        resume::plan(&half.begun, terms, continuation, self.care)
    }

    /// Of whom the rest of an answer is wanted that the caller has begun to read: of the model
    /// that began it.
    pub(super) fn head_of_the_rest(&self) -> Option<Head> {
        let half = self.half.as_ref().filter(|_| self.committed)?;
        let head = &self.errand.request.head;
        let other = head.model == "auto" || half.substituted > Substitution::Equivalent;
        other.then(|| Head { model: half.model.to_string(), ..head.clone() })
    }

    /// What is sent to a server that goes on with the answer, or begins it again. An answer of
    /// which the caller has nothing is begun anew where that is as good.
    pub(super) fn asking_on(&mut self, choice: &Choice) -> Option<Asking> {
        let half = self.half.take()?;
        // Nothing of it has gone out, and another model would go on in its own way.
        if !self.committed && !self.is_of_the_model_of(&half, choice) {
            return self.asking(choice);
        }
        let kind = choice.server.kind.as_str();
        let plan = self.plan(&half, kind::continuation(kind, self.errand.request.head.operation));
        let plan = plan.filter(|it| self.committed || it.told != Told::Nothing);
        let Some(plan) = plan else {
            if self.committed {
                self.half = Some(half);
                return None;
            }
            return self.asking(choice);
        };
        let Some(OnSaid { at, body, before }) = self.said_on(choice, &half.begun, &plan) else {
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
        let may_lack = matches!(plan.told, Told::Thinking(_)) || matches!(before, Some(Before::Render(..)));
        Some(Asking { at, mode, body, translation: Some(translation), before, may_lack })
    }

    /// Whether the model that was chosen is the one that began the answer.
    fn is_of_the_model_of(&self, half: &Half, choice: &Choice) -> bool {
        let as_asked = |it: Substitution| it <= Substitution::Equivalent;
        let named = self.errand.request.head.model != "auto";
        half.model == choice.model || (named && as_asked(half.substituted) && as_asked(choice.substituted))
    }

    /// The door of a server and what is said there.
    fn said_on(&self, choice: &Choice, begun: &Begun, plan: &Plan) -> Option<OnSaid> {
        let (request, body) = (&self.errand.request, &self.errand.body);
        let (kind, model) = (choice.server.kind.as_str(), choice.model.as_str());
        let continuation = kind::continuation(kind, request.head.operation);
        let max_tokens = kind::by_id(kind).is_some_and(|it| it.wants_max_tokens());
        let ear = self.ear(&choice.server, choice.zone);
        let to = To { model, stream: true, ask_usage: true, max_tokens, sold: ear.sold };
        if continuation == Continuation::Rendered && plan.told != Told::Nothing {
            let meaning = self.telling.meaning(request, body).ok()?;
            let rendered = Rendered::of(meaning, begun, plan.told, plan.max_tokens)?;
            let body = RENDERED_AT.dialect().ask_rendered(&rendered.meaning, &to)?;
            let before = Before::Render(Box::new(rendered), model.to_owned());
            return Some(OnSaid { at: RENDERED_AT, body, before: Some(before) });
        }
        let (at, asked) = match telling::way(kind, request)? {
            Way::Same => (request.door, request.door.dialect().readdress(request, body, &to)),
            Way::Other(door) => {
                let asked = self.telling.ask(door, ear, model, request, body).ok()?;
                (door, Some(asked).filter(|it| it.forced.is_none())?.body)
            }
        };
        if plan.told == Told::Nothing {
            return Some(OnSaid { at, body: asked, before: None });
        }
        let (thinking, text) = plan.told.of(begun);
        let flags = matches!(continuation, Continuation::Flags | Continuation::Parts);
        let beginning = Beginning { thinking, text, max_tokens: plan.max_tokens, flags };
        let with = at.dialect().go_on(at, &asked, &beginning).or_else(|| {
            let meaning = self.telling.meaning(request, body).ok()?;
            let meaning = resume::continued(meaning, begun, plan.told, plan.max_tokens);
            Some(at.dialect().ask(at, &meaning, &to).ok().filter(|it| it.forced.is_none())?.body)
        })?;
        let told = match continuation {
            Continuation::Prompt => ToldSo::Text { model: model.to_owned(), text: text.to_owned() },
            _ => ToldSo::Turn { without: asked, with: with.clone() },
        };
        let counts = kind::by_id(kind).is_some_and(|it| it.tokenizer().is_some());
        let before = counts.then(|| Before::Count(Count::new(at, told, &plan.seam)));
        Some(OnSaid { at, body: with, before })
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
    /// was cut, would not render the conversation, or not go on inside its thinking.
    pub(super) fn more_care(&self, fault: Fault) -> Option<Care> {
        // What costs money is sent once for each time that it is booked.
        let live = self.record.live.as_ref().filter(|it| it.bought.is_none());
        let live = live.filter(|_| fault.cause == Cause::Unsupported)?;
        match self.care {
            Care::WholeWords if live.misfit => Some(Care::AsItIs),
            Care::WholeWords | Care::AsItIs if live.may_lack && fault.stage <= Stage::Head => {
                Some(Care::FromTheStart)
            }
            Care::WholeWords | Care::AsItIs | Care::FromTheStart => None,
        }
    }

    /// How far a stand-in may be for the rest of an answer that the caller has begun to read.
    pub(super) fn fallback_of_the_rest(&self, fallback: Fallback) -> Fallback {
        if self.committed && self.half.is_some() { fallback.min(Fallback::Same) } else { fallback }
    }
}
