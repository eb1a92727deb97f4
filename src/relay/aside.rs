//! What is asked beside requests: which model a name means, and how many tokens a
//! conversation has.
//!
//! Nothing is generated and nothing may be loaded for it. For a count only servers are asked
//! that have the model in memory, in a time that is bounded for all of them together; whoever
//! gets none here estimates.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Relay;
use crate::{
    fault::Failure,
    generate::{Candidate, Head, Needs, Operation},
    kind::{self, Question, Tokenizer},
    registry::Server,
    route::{self, Ask, Decision, Fallback, Fidelity},
    server::{ModelName, ServerId},
    upstream::Limits,
};

/// For all servers together: clients count before each request, and an estimate is better
/// than a pause.
const TIME: Duration = Duration::from_millis(1500);
/// A token is listed in about six bytes; the longest contexts have a few million.
const BYTES: usize = 32 << 20;

/// Where Anthropic's own question for a count is answered.
const COUNT_TOKENS: &str = "/v1/messages/count_tokens";

/// A conversation to be counted.
pub struct Counting<'a> {
    /// What routing needs of it.
    pub head: &'a Head,
    /// The question for a count in Anthropic's language, for a model of this name.
    pub native: &'a (dyn Fn(&str) -> Bytes + Sync),
    /// The conversation in OpenAI's language, if it can be said in it.
    pub chat: &'a (dyn Fn(&str) -> Option<Bytes> + Sync),
}

impl Relay {
    /// The model that would answer a conversation with a model of that name: another name
    /// where that is an alias, a pin or `auto`. `None` if nobody can answer now.
    pub fn meant(&self, model: &str) -> Result<Option<ModelName>, Failure> {
        let head = Head {
            operation: Operation::Chat,
            model: model.to_owned(),
            stream: true,
            max_tokens: None,
            needs: Needs::default(),
        };
        match self.look(&head).0 {
            Decision::Server(choice) => Ok(Some(choice.model)),
            Decision::UnknownModel { nearest } => {
                Err(Failure::UnknownModel { model: model.to_owned(), nearest })
            }
            Decision::Full(_)
            | Decision::Later(_)
            | Decision::Lacking(_)
            | Decision::TooLong { .. }
            | Decision::Nobody(_) => Ok(None),
        }
    }

    /// How many tokens it has, as a server says that would answer it. `None` if none says so.
    pub async fn count_tokens(&self, counting: Counting<'_>) -> Option<u64> {
        let until = Instant::now() + TIME;
        for (server, model) in self.who_counts(counting.head) {
            let tokenizer = kind::by_id(server.kind.as_str())?.tokenizer()?;
            match timeout_at(until, self.counted_by(&server, &model, tokenizer, &counting)).await {
                Ok(Some(count)) => return Some(count),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Servers that may answer, have the model in memory and a tokenizer for callers.
    fn who_counts(&self, head: &Head) -> Vec<(Arc<Server>, String)> {
        let snapshot = self.house.snapshot();
        let able = self.look(head).1.into_iter().filter(|it| it.excluded.is_none()).filter_map(|it| {
            let server = snapshot.server(it.server.as_str())?;
            let model = server.models.iter().find(|model| model.name == it.model)?;
            let counts = kind::by_id(server.kind.as_str()).is_some_and(|it| it.tokenizer().is_some());
            (counts && model.loaded == Some(true)).then(|| (server.clone(), it.model.to_string()))
        });
        able.collect()
    }

    /// Who would be asked, if a request came now.
    fn look(&self, head: &Head) -> (Decision, Vec<Candidate>) {
        let snapshot = self.house.snapshot();
        let traffic = self.house.traffic().look();
        let ask = Ask {
            head,
            aliases: &self.settings.aliases,
            chains: &self.settings.chains,
            fallback: if head.model == "auto" { Fallback::Local } else { Fallback::Same },
            widened: false,
            tried: &[],
            first: None,
            first_model: None,
            in_flight: &|id: &ServerId| traffic.of(id),
            full: &|_| false,
            home: None,
            said: &|_| Ok(Fidelity::Own),
            cloud: None,
            bytes: 0,
            length: &|| None,
            now: Instant::now().into_std(),
            salt: 0,
        };
        route::choose(&snapshot, &ask)
    }

    async fn counted_by(
        &self,
        server: &Server,
        model: &str,
        tokenizer: Tokenizer,
        counting: &Counting<'_>,
    ) -> Option<u64> {
        let native = self.question(server, COUNT_TOKENS, (counting.native)(model)).await;
        if let Some(count) = native.and_then(|it| it["input_tokens"].as_u64()) {
            return Some(count);
        }
        let chat = (counting.chat)(model)?;
        match tokenizer {
            Tokenizer::Conversation => self.question(server, "/tokenize", chat).await?["count"].as_u64(),
            Tokenizer::Text => {
                let applied = self.question(server, "/apply-template", chat).await?;
                let text = json!({"content": applied["prompt"].as_str()?, "add_special": true});
                let answer = self.question(server, "/tokenize", text.to_string().into()).await?;
                Some(answer["tokens"].as_array()?.len() as u64)
            }
        }
    }

    /// The JSON of a success. A refusal here says nothing about the server: it is not remembered.
    async fn question(&self, server: &Server, path: &'static str, body: Bytes) -> Option<Value> {
        let question = Question::post(path, body);
        let limits = Limits { time: TIME, connect: self.settings.patience.connect, bytes: BYTES };
        let key = self.house.key(&server.endpoint);
        let answer = self.upstream.ask(&server.endpoint, &question, key, limits).await.ok()?;
        (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok())?
    }
}
