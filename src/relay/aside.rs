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

use super::{Relay, asking::permit};
use crate::{
    fault::{Failure, Fault},
    generate::{Candidate, Head, Needs, Operation},
    kind::{self, Question, Tokenizer},
    registry::Server,
    route::{self, Ask, Decision, Fallback, Fidelity},
    scan::Watch,
    server::{Check, Endpoint, ModelName, Pin, ServerId},
    upstream::{Limits, Permit},
};

/// For all servers together: clients count before each request, and an estimate is better
/// than a pause.
const TIME: Duration = Duration::from_millis(1500);
/// A token is listed in about six bytes; the longest contexts have a few million.
const BYTES: usize = 32 << 20;

/// For a look at who is there, before a person is told.
const TIME_FOR_LOOK: Duration = Duration::from_secs(5);
/// Of a look nothing is read but how it began.
const BYTES_OF_LOOK: usize = 1 << 10;

/// Where Anthropic's own question for a count is answered.
const COUNT_TOKENS: &str = "/v1/messages/count_tokens";

/// For what a server is told of an answer: the caller waits for the rest of it.
const TIME_FOR_TOLD: Duration = Duration::from_millis(500);

/// A server that counts, and whether it may still be given what it is to count.
pub(super) struct Counter {
    pub(super) server: Arc<Server>,
    pub(super) permit: Permit,
}

impl Counter {
    fn tokenizer(&self) -> Option<Tokenizer> {
        kind::by_id(self.server.kind.as_str())?.tokenizer()
    }
}

/// What a server is to be told of an answer.
pub(super) enum ToldSo {
    /// As a text.
    Text {
        /// The model by the server's own name.
        model: String,
        /// That text.
        text: String,
    },
    /// As the last turn of a conversation.
    Turn {
        /// The question without it.
        without: Bytes,
        /// The question with it.
        with: Bytes,
    },
}

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

    /// The TLS key that a server shows now. Nothing is said to it that anybody may not hear.
    pub async fn tls_key(&self, endpoint: &Endpoint) -> Result<Pin, Fault> {
        self.upstream.tls_key(endpoint, self.limits_of_look(endpoint)).await
    }

    /// Whether somebody whom an authority vouches for speaks TLS there.
    pub async fn is_vouched_for(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        let mut limits = self.limits_of_look(endpoint);
        limits.bounds.check = Check::Authorities;
        self.upstream.ask(endpoint, &Question::get("/"), None, limits).await.map(drop)
    }

    fn limits_of_look(&self, endpoint: &Endpoint) -> Limits {
        let bounds = self.house.bounds(endpoint);
        Limits { time: TIME_FOR_LOOK, connect: TIME_FOR_LOOK, bounds, bytes: BYTES_OF_LOOK }
    }

    /// How many tokens it has, as a server says that would answer it. `None` if none says so.
    pub async fn count_tokens(&self, counting: Counting<'_>) -> Option<u64> {
        let until = Instant::now() + TIME;
        for (server, model) in self.who_counts(counting.head) {
            let permit = permit(&self.house, server.clone(), server.zone);
            match timeout_at(until, self.counted_by(&Counter { server, permit }, &model, &counting)).await {
                Ok(Some(count)) => return Some(count),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// The same of a conversation that is about to be sent to this server.
    pub(super) async fn count_before_sending(&self, by: &Counter, chat: Bytes) -> Option<u64> {
        timeout_at(Instant::now() + TIME, self.counted_chat(by, by.tokenizer()?, chat)).await.ok()?
    }

    /// How many tokens that is by the count of the server that is told. `None` where it has no
    /// tokenizer, or its template does not put the turn at the end.
    pub(super) async fn tokens_told(&self, by: &Counter, told: &ToldSo) -> Option<u64> {
        let until = Instant::now() + TIME_FOR_TOLD;
        timeout_at(until, self.told_by(by, by.tokenizer()?, told)).await.ok()?
    }

    async fn told_by(&self, by: &Counter, tokenizer: Tokenizer, told: &ToldSo) -> Option<u64> {
        match (tokenizer, told) {
            (Tokenizer::Conversation, ToldSo::Text { model, text }) => {
                let text = json!({"model": model, "prompt": text, "add_special_tokens": false});
                self.conversation(by, text.to_string().into()).await
            }
            (Tokenizer::Conversation, ToldSo::Turn { without, with }) => {
                let without = self.conversation(by, without.clone()).await?;
                self.conversation(by, with.clone()).await?.checked_sub(without)
            }
            (Tokenizer::Text, ToldSo::Text { text, .. }) => self.text(by, text, false).await,
            (Tokenizer::Text, ToldSo::Turn { without, with }) => {
                let without = self.applied(by, without.clone()).await?;
                let with = self.applied(by, with.clone()).await?;
                self.text(by, with.strip_prefix(&without)?, false).await
            }
        }
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
        let settings = self.settings.load();
        let ask = Ask {
            head,
            readings: &self.readings,
            aliases: &settings.aliases,
            chains: &settings.chains,
            fallback: if head.model == "auto" { Fallback::Local } else { Fallback::Same },
            via: &[],
            widened: false,
            tried: &[],
            first: None,
            first_model: None,
            in_flight: &|id: &ServerId| traffic.of(id),
            uses_others: &|_, _| false,
            full: &|_| false,
            home: None,
            said: &|_| Ok(Fidelity::Own),
            gpu_memory: settings.gpu_memory,
            cloud: None,
            bytes: 0,
            length: &|| None,
            now: Instant::now().into_std(),
            salt: 0,
        };
        route::choose(&snapshot, &ask)
    }

    async fn counted_by(&self, by: &Counter, model: &str, counting: &Counting<'_>) -> Option<u64> {
        let native = self.question(by, COUNT_TOKENS, (counting.native)(model)).await;
        if let Some(count) = native.and_then(|it| it["input_tokens"].as_u64()) {
            return Some(count);
        }
        self.counted_chat(by, by.tokenizer()?, (counting.chat)(model)?).await
    }

    /// The tokens of a conversation in OpenAI's language, as this server counts them.
    async fn counted_chat(&self, by: &Counter, tokenizer: Tokenizer, chat: Bytes) -> Option<u64> {
        match tokenizer {
            Tokenizer::Conversation => self.conversation(by, chat).await,
            Tokenizer::Text => {
                let prompt = self.applied(by, chat).await?;
                self.text(by, &prompt, true).await
            }
        }
    }

    /// The tokens of a conversation, or of a text.
    async fn conversation(&self, by: &Counter, body: Bytes) -> Option<u64> {
        self.question(by, "/tokenize", body).await?["count"].as_u64()
    }

    /// A conversation as a text.
    async fn applied(&self, by: &Counter, chat: Bytes) -> Option<String> {
        Some(self.question(by, "/apply-template", chat).await?["prompt"].as_str()?.to_owned())
    }

    /// The tokens of a text, those among them that begin each prompt or not.
    async fn text(&self, by: &Counter, text: &str, special: bool) -> Option<u64> {
        let text = json!({"content": text, "add_special": special});
        let answer = self.question(by, "/tokenize", text.to_string().into()).await?;
        Some(answer["tokens"].as_array()?.len() as u64)
    }

    /// The JSON of a success. A refusal here says nothing about the server: it is not remembered.
    async fn question(&self, by: &Counter, path: &'static str, body: Bytes) -> Option<Value> {
        let (question, Counter { server, permit }) = (Question::post(path, body), by);
        let limits = Limits {
            time: TIME,
            connect: self.settings.load().patience.connect,
            bounds: server.bounds,
            bytes: BYTES,
        };
        let key = self.house.key(&server.endpoint);
        let asked = self.upstream.ask_if(permit.clone(), &server.endpoint, &question, key.as_ref(), limits);
        let answer = asked.await.ok()?;
        (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok())?
    }
}
