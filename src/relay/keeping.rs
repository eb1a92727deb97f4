//! What is kept of an answer while it goes on, so that another server can go on with it; and
//! what is held of it, because after that none could.

use bytes::Bytes;

use super::{
    live::{Live, Sense},
    translation::Translation,
};
use crate::{dialect::Judged, generate::Begun};

/// The most of a call that is held until it is whole; a longer one goes on as it comes.
pub(super) const CALL_CAP: usize = 1 << 20;

impl Live {
    /// What the caller has of the answer, where it was kept, and what it hears the rest by.
    pub(super) fn take_begun(&mut self) -> Option<(Begun, Option<Box<Translation>>)> {
        match std::mem::replace(&mut self.sense, Sense::None) {
            Sense::Translate(translation) => Some((translation.begun()?.clone(), Some(translation))),
            Sense::None | Sense::Fold(_) => Some((self.begun.take()?, None)),
        }
    }

    /// Whether it is kept, so that another server can go on with it.
    pub(super) fn keeps(&self) -> bool {
        match &self.sense {
            Sense::Translate(translation) => translation.begun().is_some(),
            Sense::None | Sense::Fold(_) => self.begun.is_some(),
        }
    }

    /// Judges the data of a frame that is not translated, and keeps what it says.
    pub(super) fn judge(&mut self, data: &[u8]) -> Judged {
        let Some(begun) = self.begun.as_mut().filter(|_| !self.holding) else {
            return self.reader.read(data, None);
        };
        let mark = begun.mark();
        let judged = self.reader.read_on(data, begun);
        if begun.is_beyond() && self.holds {
            begun.back_to(mark);
            self.holding = true;
        }
        self.holding |= judged.finished;
        judged
    }

    /// Holds a frame; all of them go on where that is too much.
    pub(super) fn hold(&mut self, frame: Bytes) -> bool {
        self.tail.push(frame);
        let fits = self.tail.iter().map(Bytes::len).sum::<usize>() <= CALL_CAP;
        if !fits {
            (self.begun, self.holding) = (None, false);
        }
        fits
    }

    /// How many bytes are kept for whoever may have to go on.
    pub(super) fn kept(&self) -> usize {
        let begun = match &self.sense {
            Sense::Translate(translation) => translation.begun(),
            Sense::None | Sense::Fold(_) => self.begun.as_ref(),
        };
        begun.map_or(0, Begun::len)
    }

    /// Keeps it no longer: nobody will go on with this answer. What is held is little, and stays.
    pub(super) fn forget(&mut self) {
        if self.tail.is_empty() {
            self.begun = None;
        }
        if let Sense::Translate(translation) = &mut self.sense {
            translation.forget();
        }
    }
}
