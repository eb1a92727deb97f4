//! What one attempt says, turned into what the caller hears in its own language:
//! events in, and out come the bytes of a stream or one whole answer.

use bytes::{Bytes, BytesMut};
use memchr::{memchr_iter, memmem};
use tokio::time::Instant;

use crate::{
    dialect::{Door, Framing, Voice, Writer, bridge::Calling},
    generate::{Answer, Event},
};

/// The most that one answer may say when it is translated: some languages repeat all
/// of it at the end, so their writers hold it.
const LONGEST: usize = 32 << 20;

/// Turns what a server says into the caller's language.
pub(super) struct Translation {
    caller: Door,
    arrived: Instant,
    calling: Calling,
    /// Events that were read and not yet told: those of the frames at hand, and before
    /// there is content all of them, because nobody knows yet when the answer begins.
    heard: Vec<Event>,
    to: To,
    said: usize,
}

enum To {
    /// A stream that has not begun.
    Soon(Option<Voice>),
    Stream(Box<dyn Writer>),
    Whole(Answer, Voice),
}

/// What was written of a stream.
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// How many frames that is.
    pub(super) frames: u64,
}

impl Piece {
    fn new(caller: Door, bytes: BytesMut) -> Self {
        // JSON has no raw line feed in it, so these are ends of frames and nothing else.
        let frames = match caller.dialect().framing() {
            Framing::Events => memmem::find_iter(&bytes, b"\n\n").count(),
            Framing::Lines => memchr_iter(b'\n', &bytes).count(),
        };
        Self { bytes: bytes.freeze(), frames: frames as u64 }
    }
}

/// To whom an answer is told, and as whom.
pub(super) struct Listener {
    pub(super) door: Door,
    pub(super) stream: bool,
    pub(super) voice: Voice,
    pub(super) arrived: Instant,
}

impl Translation {
    /// `forced` as in `Asked::forced`.
    pub(super) fn new(listener: Listener, forced: Option<String>) -> Self {
        let Listener { door, stream, voice, arrived } = listener;
        let to = if stream { To::Soon(Some(voice)) } else { To::Whole(Answer::default(), voice) };
        Self { caller: door, arrived, calling: Calling::new(forced), heard: Vec::new(), to, said: 0 }
    }

    /// Where a reader puts what it read.
    pub(super) fn ear(&mut self) -> &mut Vec<Event> {
        &mut self.heard
    }

    /// Tells what was heard. To be called once there is content: a stream begins with it.
    pub(super) fn tell(&mut self) -> Piece {
        let mut out = BytesMut::new();
        self.tell_into(&mut out);
        Piece::new(self.caller, out)
    }

    /// Tells what was heard, and that the answer is whole.
    pub(super) fn tell_the_end(&mut self) -> Piece {
        let mut out = BytesMut::new();
        self.tell_into(&mut out);
        if let To::Stream(writer) = &mut self.to {
            writer.finish(&mut out);
        }
        Piece::new(self.caller, out)
    }

    fn tell_into(&mut self, out: &mut BytesMut) {
        self.begin();
        for event in self.heard.drain(..) {
            self.said += size(&event);
            self.calling.turn(event, |event| match &mut self.to {
                To::Soon(_) => {}
                To::Stream(writer) => writer.write(event, out),
                To::Whole(answer, _) => answer.add(event),
            });
        }
    }

    /// A stream's writer is made when its first piece is told: what it says of the time
    /// and of who answers is only true then.
    fn begin(&mut self) {
        if let To::Soon(voice) = &mut self.to
            && let Some(voice) = voice.take()
        {
            let voice = Voice { waited: self.arrived.elapsed(), ..voice };
            self.to = To::Stream(self.caller.dialect().writer(self.caller, voice));
        }
    }

    /// The whole answer, for a caller who wants it so.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        let To::Whole(answer, voice) = &mut self.to else { return None };
        voice.waited = self.arrived.elapsed();
        Some(self.caller.dialect().whole(self.caller, &std::mem::take(answer), voice))
    }

    /// How many bytes are held, about.
    pub(super) fn held(&self) -> usize {
        match &self.to {
            To::Soon(_) => 0,
            To::Stream(writer) => writer.held(),
            To::Whole(answer, _) => answer.len(),
        }
    }

    /// Whether more was said than one answer may.
    pub(super) fn is_too_long(&self) -> bool {
        self.said > LONGEST
    }
}

/// What an event may take in the memory of a writer, about.
fn size(event: &Event) -> usize {
    match event {
        Event::Text(text)
        | Event::Thinking(text)
        | Event::Signature(text)
        | Event::Refusal(text)
        | Event::Arguments { text, .. } => text.len(),
        Event::Call { name, id, .. } => name.len() + id.as_ref().map_or(0, String::len) + size_of::<Event>(),
        // Each is an object of a token, its bytes and its alternatives.
        Event::Logprobs(all) => all.len() * 256,
        Event::Vector(vector) => size_of_val(&vector[..]),
        Event::Usage(_) | Event::Finished { .. } => 0,
    }
}
