//! What a server is asked just before it goes on with an answer: to render the conversation,
//! where only it can, or how many tokens it is told, where it has a tokenizer.

use bytes::Bytes;

use super::{
    Relay,
    aside::{Counter, ToldSo},
};
use crate::{
    dialect::{Door, To},
    failover::Patience,
    fault::{Cause, Fault, Stage},
    kind::{self, Question, Refusal},
    resume::{Learned, Rendered, Seam, left},
    upstream::Limits,
};

/// The longest text of a conversation that is read. The longest contexts have a few million tokens.
const LONGEST_TEXT: usize = 32 << 20;

/// Where a text is continued that the server rendered itself.
pub(super) const RENDERED_AT: Door = Door::OllamaGenerate;

/// What is found out before a server is asked to go on.
pub(super) enum Before {
    /// The text to go on with; the body asks for it.
    Render(Box<Rendered>, String),
    /// How many tokens it is told.
    Count(Count),
}

/// What is counted, and what hangs on it.
pub(super) struct Count {
    pub(super) at: Door,
    pub(super) told: ToldSo,
    /// The limit of the whole answer.
    pub(super) limit: Option<u64>,
}

impl Before {
    /// Finds it out, and says what is asked then.
    pub(super) async fn by(
        self,
        relay: &Relay,
        by: &Counter,
        body: Bytes,
        patience: &Patience,
    ) -> Result<(Bytes, Learned), Fault> {
        match self {
            Self::Render(rendered, model) => render(*rendered, &model, relay, by, body, patience).await,
            Self::Count(Count { at, told, limit }) => {
                let tokens = relay.tokens_told(by, &told).await;
                let limit = limit.zip(tokens).map(|(limit, tokens)| left(limit, tokens));
                let body = limit.map_or_else(|| body.clone(), |it| at.dialect().limit(&body, it));
                Ok((body, Learned { tokens, closing: None }))
            }
        }
    }
}

impl Count {
    /// For a server that goes on through this seam.
    pub(super) fn new(at: Door, told: ToldSo, seam: &Seam) -> Self {
        Self { at, told, limit: seam.limit() }
    }
}

/// Has the conversation rendered, and says what is asked then.
async fn render(
    rendered: Rendered,
    model: &str,
    relay: &Relay,
    Counter { server, permit }: &Counter,
    question: Bytes,
    patience: &Patience,
) -> Result<(Bytes, Learned), Fault> {
    let question = Question::post(Door::OllamaChat.path(), question);
    // It loads the model first, if it must.
    let limits =
        Limits { time: patience.load, connect: patience.connect, bounds: server.bounds, bytes: LONGEST_TEXT };
    let key = relay.house.key(&server.endpoint);
    let permit = permit.clone();
    let answer = relay.upstream.ask_if(permit, &server.endpoint, &question, key.as_ref(), limits).await?;
    if answer.status != 200 {
        let refusal = Refusal { status: answer.status, retry_after: None, body: &answer.body };
        let cause = kind::classify(server.kind.as_str(), refusal);
        return Err(Fault { status: Some(answer.status), ..Fault::new(Stage::Head, cause) });
    }
    let asked = || {
        let (meaning, closing) = rendered.as_text(&RENDERED_AT.dialect().rendered(&answer.body)?)?;
        let to = To { model, stream: true, ask_usage: true, max_tokens: false, sold: None };
        let asked = RENDERED_AT.dialect().ask(RENDERED_AT, &meaning, &to).ok()?;
        Some((asked.body, Learned { tokens: None, closing }))
    };
    asked().ok_or_else(|| Fault::new(Stage::Head, Cause::Unsupported))
}
