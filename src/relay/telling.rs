//! How one request is said to servers: in the caller's own words where a server
//! speaks its language, and else in the words of that server's door.
//!
//! It is taken apart only once, and only when somebody must be told in another
//! language; most requests never are.

use std::cell::{OnceCell, RefCell};

use bytes::Bytes;

use crate::{
    dialect::{
        Asked, Door, Lack, Request, To,
        bridge::{self, Way},
    },
    fault::Failure,
    generate::{Meaning, Operation},
    kind,
    route::Fidelity,
};

/// How one request is said to servers.
#[derive(Default)]
pub(super) struct Telling {
    meaning: OnceCell<Result<Box<Meaning>, Failure>>,
    /// What was found out about doors of other languages.
    doors: RefCell<Vec<(Door, Result<(), Lack>)>>,
}

impl Telling {
    /// Whether a server of this kind can be told, and how truly; else why not.
    pub(super) fn to(&self, kind: &str, request: &Request, body: &Bytes) -> Result<Fidelity, String> {
        match way(kind, request) {
            Some(Way::Same) => Ok(Fidelity::Own),
            Some(Way::Other(door)) => self.through(door, kind, request, body).map(|()| Fidelity::Translated),
            None => Err(format!("it has no door for what `{}` does", request.door)),
        }
    }

    fn through(&self, door: Door, kind: &str, request: &Request, body: &Bytes) -> Result<(), String> {
        let known = self.doors.borrow().iter().find(|(it, _)| *it == door).map(|(_, can)| can.clone());
        let can = match known {
            Some(can) => can,
            None => {
                let meaning = self.meaning(request, body).map_err(|failure| failure.message())?;
                let to = to(kind, &request.head.model, request.head.operation);
                let can = door.dialect().ask(door, meaning, &to).map(|_| ());
                self.doors.borrow_mut().push((door, can.clone()));
                can
            }
        };
        can.map_err(|lack| lack.0)
    }

    /// What the caller is told if its request cannot even be understood, as far as that was needed.
    pub(super) fn misunderstood(&self) -> Option<Failure> {
        self.meaning.get()?.as_ref().err().cloned()
    }

    /// Says it in the words of this door.
    pub(super) fn ask(
        &self,
        door: Door,
        kind: &str,
        model: &str,
        request: &Request,
        body: &Bytes,
    ) -> Result<Asked, Failure> {
        let meaning = self.meaning(request, body)?;
        let asked = door.dialect().ask(door, meaning, &to(kind, model, request.head.operation));
        asked.map_err(|lack| Failure::Unsupported(lack.0))
    }

    fn meaning(&self, request: &Request, body: &Bytes) -> Result<&Meaning, Failure> {
        let understand = || request.door.dialect().understand(request.door, body).map(Box::new);
        self.meaning.get_or_init(understand).as_deref().map_err(Clone::clone)
    }
}

/// In which language a server of this kind is asked.
pub(super) fn way(kind: &str, request: &Request) -> Option<Way> {
    bridge::pick(kind::doors(kind, request.head.operation), request.door)
}

/// A translated answer is streamed wherever there are streams: it can be stopped
/// and watched, and its counts are wanted, since most callers' languages have a place for them.
fn to<'a>(kind: &str, model: &'a str, operation: Operation) -> To<'a> {
    let stream = operation != Operation::Embed;
    let max_tokens = kind::by_id(kind).is_some_and(|it| it.wants_max_tokens());
    To { model, stream, ask_usage: stream, max_tokens }
}
