//! How one request is said to servers: in the caller's own words where a server
//! speaks its language, and else in the words of that server's door.
//!
//! It is taken apart only once, and only when somebody must be told in another
//! language; most requests never are.

use std::cell::{Cell, OnceCell, RefCell};

use bytes::Bytes;

use crate::{
    dialect::{
        Asked, Door, Lack, Request, Sold, To,
        bridge::{self, Way},
        most::most,
    },
    fault::Failure,
    generate::{self, Length, Meaning, Most, Operation},
    kind,
    registry::Server,
    resume::Terms,
    route::Fidelity,
    server::Zone,
};

/// A server, as far as it matters how it is told.
#[derive(Clone, Copy)]
pub(super) struct Ear<'a> {
    pub(super) kind: &'a str,
    /// How it is asked, if it sells its answers.
    pub(super) sold: Option<Sold>,
}

impl<'a> From<&'a str> for Ear<'a> {
    fn from(kind: &'a str) -> Self {
        let sold = |it: &kind::Provider| Sold { newer: it.newer, strict: it.strict, at_most: None };
        Self { kind, sold: kind::provider(kind).map(sold) }
    }
}

impl<'a> Ear<'a> {
    /// Of a server that is asked for a model in this zone. Where nothing else bounds it the
    /// answer has at most so many tokens.
    pub(super) fn of(server: &'a Server, zone: Zone, at_most: Option<u64>) -> Self {
        let ear = Self::from(server.kind.as_str());
        match zone {
            Zone::Cloud => Self { sold: Some(Sold { at_most, ..ear.sold.unwrap_or_default() }), ..ear },
            Zone::Machine | Zone::Lan => ear,
        }
    }
}

/// How one request is said to servers.
#[derive(Default)]
pub(super) struct Telling {
    meaning: OnceCell<Result<Box<Meaning>, Failure>>,
    length: OnceCell<Option<Length>>,
    /// The tokens of the prompt, where a tokenizer has counted them or was asked in vain.
    counted: Cell<Option<Option<u64>>>,
    /// What it asks of whoever goes on with its answer, if that can be.
    terms: OnceCell<Option<Terms>>,
    /// How it is said at doors of other languages, as far as somebody had to know.
    said: RefCell<Vec<Said>>,
    /// The most that it can take where it is sold.
    most: RefCell<Vec<Bounded>>,
}

/// The most that it can take at a door where it is sold so, or why that cannot be told.
type Bounded = (Door, Option<Sold>, Result<Most, String>);

/// The request as it is said at one door, to servers that call the model so.
struct Said {
    door: Door,
    model: String,
    max_tokens: bool,
    sold: Option<Sold>,
    asked: Result<Asked, Lack>,
}

impl Telling {
    /// Whether a server of this kind can be told, and how truly; else why not.
    pub(super) fn to<'e>(
        &self,
        ear: impl Into<Ear<'e>>,
        request: &Request,
        body: &Bytes,
    ) -> Result<Fidelity, String> {
        let ear = ear.into();
        let door = match way(ear.kind, request) {
            Some(Way::Same) => return Ok(Fidelity::Own),
            Some(Way::Other(door)) => door,
            None => return Err(format!("it has no door for what `{}` does", request.door)),
        };
        // What can be said at a door does not hang on names.
        let is_it = |it: &&Said| (it.door, it.strict()) == (door, ear.sold.is_some_and(|it| it.strict));
        let known = self.said.borrow().iter().find(is_it).map(|it| it.asked.clone());
        let asked = match known {
            Some(asked) => asked.map_err(unsupported),
            None => self.ask(door, ear, &request.head.model, request, body),
        };
        asked.map(|_| Fidelity::Translated).map_err(|failure| failure.message())
    }

    /// Says it in the words of this door.
    pub(super) fn ask<'e>(
        &self,
        door: Door,
        ear: impl Into<Ear<'e>>,
        model: &str,
        request: &Request,
        body: &Bytes,
    ) -> Result<Asked, Failure> {
        let Ear { kind, sold } = ear.into();
        let max_tokens = kind::by_id(kind).is_some_and(|it| it.wants_max_tokens());
        let wanted = (door, model, max_tokens, sold);
        let is_it = |it: &Said| (it.door, &*it.model, it.max_tokens, it.sold) == wanted;
        if let Some(said) = self.said.borrow().iter().find(|it| is_it(it)) {
            return said.asked.clone().map_err(unsupported);
        }
        // It is streamed wherever there are streams: a stream can be stopped and watched.
        // Its counts are wanted, since most languages have a place for them.
        let stream = request.head.operation != Operation::Embed;
        let to = To { model, stream, ask_usage: stream, max_tokens, sold };
        let asked = door.dialect().ask(door, self.meaning(request, body)?, &to);
        let said = Said { door, model: model.to_owned(), max_tokens, sold, asked: asked.clone() };
        self.said.borrow_mut().push(said);
        asked.map_err(unsupported)
    }

    /// The most tokens that it can take of whoever sells answers, or why that cannot be told.
    pub(super) fn most(&self, ear: Ear<'_>, request: &Request, body: &Bytes) -> Result<Most, String> {
        let way = way(ear.kind, request).ok_or("it has no door for this")?;
        let door = if let Way::Other(door) = way { door } else { request.door };
        let is_it = |it: &&Bounded| (it.0, it.1) == (door, ear.sold);
        if let Some((_, _, most)) = self.most.borrow().iter().find(is_it) {
            return most.clone();
        }
        let model = &request.head.model;
        let to =
            To { model, stream: request.head.stream, ask_usage: true, max_tokens: false, sold: ear.sold };
        let said = match way {
            Way::Same => Ok(request.door.dialect().readdress(request, body, &to)),
            Way::Other(door) => self.ask(door, ear, model, request, body).map(|it| it.body),
        };
        let said = said.map_err(|failure| failure.message());
        let most = said.and_then(|body| most(door, &body).map_err(|lack| lack.0));
        self.most.borrow_mut().push((door, ear.sold, most.clone()));
        most
    }

    /// What the caller is told if its request cannot even be understood, as far as that was needed.
    pub(super) fn misunderstood(&self) -> Option<Failure> {
        self.meaning.get()?.as_ref().err().cloned()
    }

    /// How long the prompt is, if the request can be understood.
    pub(super) fn length(&self, request: &Request, body: &Bytes) -> Option<Length> {
        let length = *self.length.get_or_init(|| self.meaning(request, body).ok().map(generate::measure));
        match self.counted.get().flatten() {
            Some(tokens) => length.map(|it| Length { least: tokens, likely: tokens, ..it }),
            None => length,
        }
    }

    /// Whether no tokenizer was asked yet.
    pub(super) fn is_uncounted(&self) -> bool {
        self.counted.get().is_none()
    }

    /// A tokenizer was asked for the tokens of the prompt.
    pub(super) fn count(&self, tokens: Option<u64>) {
        self.counted.set(Some(tokens));
    }

    /// What it asks of whoever goes on with its answer, if that can be.
    pub(super) fn terms(&self, request: &Request, body: &Bytes) -> Option<&Terms> {
        let terms = || self.meaning(request, body).ok().and_then(Terms::of);
        self.terms.get_or_init(terms).as_ref()
    }

    pub(super) fn meaning(&self, request: &Request, body: &Bytes) -> Result<&Meaning, Failure> {
        let understand = || request.door.dialect().understand(request.door, body).map(Box::new);
        self.meaning.get_or_init(understand).as_deref().map_err(Clone::clone)
    }
}

impl Said {
    fn strict(&self) -> bool {
        self.sold.is_some_and(|it| it.strict)
    }
}

/// In which language a server of this kind is asked.
pub(super) fn way(kind: &str, request: &Request) -> Option<Way> {
    bridge::pick(kind::doors(kind, request.head.operation), request.door)
}

fn unsupported(lack: Lack) -> Failure {
    Failure::Unsupported(lack.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(body: &str) -> (Request, Bytes) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        (Door::OpenAiChat.dialect().peek(Door::OpenAiChat, &body).unwrap(), body)
    }

    const HELLO: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;

    #[test]
    fn a_request_is_taken_apart_only_for_who_speaks_another_language() {
        let (request, body) = peek(HELLO);
        let telling = Telling::default();
        assert_eq!(telling.to("vllm", &request, &body), Ok(Fidelity::Own));
        assert!(telling.meaning.get().is_none());
        assert_eq!(telling.to("ollama", &request, &body), Ok(Fidelity::Translated));
        assert!(telling.meaning.get().is_some());
    }

    #[test]
    fn it_is_said_once_to_all_who_call_the_model_the_same() {
        let (request, body) = peek(HELLO);
        let telling = Telling::default();
        telling.to("ollama", &request, &body).unwrap();
        let ask = |model: &str| telling.ask(Door::OllamaChat, "ollama", model, &request, &body).unwrap().body;
        let (first, second) = (ask("m"), ask("m"));
        assert_eq!((first.as_ptr(), telling.said.borrow().len()), (second.as_ptr(), 1));
        assert!(ask("m:latest").windows(8).any(|it| it == b"m:latest"));
        assert_eq!(telling.said.borrow().len(), 2);
    }

    #[test]
    fn what_cannot_be_said_is_named_and_what_cannot_be_understood_is_the_callers() {
        let (request, body) = peek(&HELLO.replacen('{', "{\"logit_bias\":{\"5\":1},", 1));
        let telling = Telling::default();
        let why = telling.to("ollama", &request, &body).unwrap_err();
        assert!(why.contains("`logit_bias`"), "{why}");
        assert_eq!(telling.misunderstood(), None);
        assert_eq!(telling.to("llamacpp", &request, &body), Ok(Fidelity::Own));
        let (request, body) = peek(&HELLO.replace("\"x\"", "5"));
        let telling = Telling::default();
        assert!(telling.to("ollama", &request, &body).is_err());
        assert!(matches!(telling.misunderstood(), Some(Failure::BadRequest(_))));
    }
}
