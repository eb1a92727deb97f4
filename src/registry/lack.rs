//! What servers turned out to lack though they list it.
//!
//! A server that says "no such model" of a model in its own list, refuses us, or cannot do
//! what is asked, is well, and is no worse for anything else. But it says no so fast that it
//! would be asked first every time. So it is left alone with that work for 1, 2, 4 … 60 s
//! while others can do it.

use std::time::Instant;

use super::{Change, Now, Registry, health::pause};
use crate::{
    fault::{Cause, Fault},
    generate::{Needs, Operation},
    server::{ModelName, ServerId},
};

/// The most that is remembered of one server.
const MOST: usize = 64;

/// Work as far as a server may lack what it takes.
pub type Work = (Operation, Needs);

/// Something that a server lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Lack {
    model: ModelName,
    /// What it cannot do with the model; `None` is anything.
    work: Option<Work>,
    until: Instant,
    times: u32,
}

impl Lack {
    /// Whether it stands against this work now.
    pub fn is_about(&self, model: &ModelName, work: Work, now: Instant) -> bool {
        now < self.until && self.model == *model && self.work.is_none_or(|it| it == work)
    }
}

impl Registry {
    /// A live request was refused for what the server lacks. Other faults change nothing here.
    pub fn on_lack(
        &mut self,
        id: &ServerId,
        model: &ModelName,
        work: Work,
        fault: &Fault,
        now: Now,
    ) -> Vec<Change> {
        let work = match fault.cause {
            Cause::ModelNotFound | Cause::Forbidden | Cause::NobodyLeft => None,
            Cause::Unsupported => Some(work),
            // How long a prompt is, another request decides anew; a key has a memory of its own.
            _ => return Vec::new(),
        };
        let Some(server) = self.servers.get_mut(id) else { return Vec::new() };
        let lacks = &mut server.now.lacks;
        // One that was not found again for as long as it was waited for is forgotten.
        lacks.retain(|it| now.at < it.until + pause(it.times));
        let has_room = lacks.len() < MOST;
        match lacks.iter_mut().find(|it| it.model == *model && it.work == work) {
            // Requests that were under way together are one sign.
            Some(lack) if now.at < lack.until => return Vec::new(),
            Some(lack) => {
                lack.times = lack.times.saturating_add(1);
                lack.until = now.at + pause(lack.times);
            }
            None if has_room => {
                lacks.push(Lack { model: model.clone(), work, until: now.at + pause(1), times: 1 });
            }
            None => return Vec::new(),
        }
        let mut changes = Vec::new();
        self.refresh(id, now, &mut changes);
        self.told(changes)
    }
}
