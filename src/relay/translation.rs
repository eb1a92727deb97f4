//! What one attempt says, turned into what the caller hears in its own language:
//! events in, and out come the bytes of a stream or one whole answer.

use bytes::{Bytes, BytesMut};
use memchr::{memchr_iter, memmem};
use tokio::time::Instant;

use super::keeping::CALL_CAP;
use crate::{
    dialect::{Door, Framing, Voice, Writer, bridge::Calling},
    generate::{Answer, Begun, Event, Usage},
    resume::{Learned, Seam},
};

/// The most that one answer may say when it is translated: some languages repeat all
/// of it at the end, so their writers hold it.
const LONGEST: usize = 32 << 20;

/// Turns what a server says into the caller's language.
pub(super) struct Translation {
    caller: Door,
    arrived: Instant,
    calling: Calling,
    /// What was told, where another server may have to go on with it.
    begun: Option<Begun>,
    /// Lets pass only what is new, where the server goes on with what another one began.
    seam: Option<Seam>,
    misfit: bool,
    /// Whether calls are told once they are whole: somebody else could make them.
    holds: bool,
    /// A call and what came after it.
    back: Vec<Event>,
    back_bytes: usize,
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
    /// Whether what is told is kept, so that another server can go on with it.
    pub(super) keeps: bool,
    /// Whether calls are told once they are whole.
    pub(super) holds: bool,
}

impl Translation {
    /// `forced` as in `Asked::forced`.
    pub(super) fn new(listener: Listener, forced: Option<String>) -> Self {
        let Listener { door, stream, voice, arrived, keeps, holds } = listener;
        let to = if stream { To::Soon(Some(voice)) } else { To::Whole(Answer::default(), voice) };
        Self {
            caller: door,
            arrived,
            // What was forced is a call, and no text to go on with.
            begun: (keeps && forced.is_none()).then(Begun::default),
            calling: Calling::new(forced),
            seam: None,
            misfit: false,
            holds,
            back: Vec::new(),
            back_bytes: 0,
            heard: Vec::new(),
            to,
            said: 0,
        }
    }

    /// One that goes on where `begun` ends. `first` is the data of the first frame with
    /// content that the caller of a stream has, if it has any.
    pub(super) fn of_begun(listener: Listener, begun: Begun, first: Option<&[u8]>) -> Self {
        let mut it = Self::new(listener, None);
        if let (To::Soon(voice), Some(first)) = (&mut it.to, first)
            && let Some(voice) = voice.take()
        {
            let mut writer = it.caller.dialect().writer_after(it.caller, voice, first);
            // It has begun, whatever was in it.
            writer.write(Event::Text(String::new()), &mut BytesMut::new());
            it.to = To::Stream(writer);
        }
        let (thinking, text) = (begun.thinking().to_owned(), begun.text().to_owned());
        let events = [Event::Thinking(thinking), Event::Text(text)];
        it.begin();
        for event in events.into_iter().filter(|it| size(it) > 0) {
            it.say(event, &mut BytesMut::new());
        }
        it.begun = Some(begun);
        it
    }

    /// Goes on with what another server says.
    pub(super) fn go_on(&mut self, seam: Seam, holds: bool) {
        self.holds = holds;
        self.heard.clear();
        self.back.clear();
        self.back_bytes = 0;
        self.misfit = false;
        self.seam = Some(seam);
    }

    /// What was told, if it was kept.
    pub(super) fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// Keeps it no longer.
    pub(super) fn forget(&mut self) {
        if self.back.is_empty() {
            self.begun = None;
        }
    }

    /// Whether the server said something else than what the caller has.
    pub(super) fn is_misfit(&self) -> bool {
        self.misfit
    }

    /// Whether the answer has come to its end although the server goes on.
    pub(super) fn is_over(&self) -> bool {
        self.seam.as_ref().is_some_and(Seam::is_over)
    }

    /// Takes what was found out before the server was asked to go on.
    pub(super) fn learn(&mut self, learned: Learned) {
        if let Some(seam) = &mut self.seam {
            seam.learn(learned);
        }
    }

    /// The counts of the whole answer, where this server only went on with it, and whether they
    /// are an estimate.
    pub(super) fn usage(&self) -> Option<(Usage, bool)> {
        self.seam.as_ref().map(|it| (it.usage(), it.is_about()))
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
        if self.misfit {
            return Piece::new(self.caller, out);
        }
        self.say_the_calls(&mut out);
        if let To::Stream(writer) = &mut self.to {
            writer.finish(self.arrived.elapsed(), &mut out);
        }
        Piece::new(self.caller, out)
    }

    fn tell_into(&mut self, out: &mut BytesMut) {
        self.begin();
        let mut heard = std::mem::take(&mut self.heard);
        let mut seam = self.seam.take();
        for event in heard.drain(..) {
            let Some(seam) = &mut seam else {
                self.say_and_keep(event, out);
                continue;
            };
            if seam.turn(event, &mut |event| self.say_and_keep(event, out)).is_err() {
                self.misfit = true;
                break;
            }
        }
        (self.heard, self.seam) = (heard, seam);
    }

    fn say_and_keep(&mut self, event: Event, out: &mut BytesMut) {
        let Some(begun) = &mut self.begun else { return self.say(event, out) };
        let is_call = matches!(event, Event::Call { .. } | Event::Arguments { .. });
        let waits = self.holds && (is_call || !self.back.is_empty()) && !matches!(event, Event::Usage(_));
        if !waits {
            begun.add(&event);
            return self.say(event, out);
        }
        self.back_bytes += size(&event);
        self.back.push(event);
        if self.back_bytes > CALL_CAP {
            self.begun = None;
            self.say_the_calls(out);
        }
    }

    fn say_the_calls(&mut self, out: &mut BytesMut) {
        self.back_bytes = 0;
        for event in std::mem::take(&mut self.back) {
            self.say(event, out);
        }
    }

    fn say(&mut self, event: Event, out: &mut BytesMut) {
        self.said += size(&event);
        self.calling.turn(event, |event| match &mut self.to {
            To::Soon(_) => {}
            To::Stream(writer) => writer.write(event, out),
            To::Whole(answer, _) => answer.add(event),
        });
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
        let made = match &self.to {
            To::Soon(_) => 0,
            To::Stream(writer) => writer.held(),
            To::Whole(answer, _) => answer.len(),
        };
        self.back_bytes + made
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Operation, Reason};

    fn translation(door: Door, stream: bool, forced: Option<&str>) -> Translation {
        let voice = Voice {
            id: "5".to_owned(),
            model: "m".to_owned(),
            at_ms: 0,
            waited: std::time::Duration::ZERO,
            asks_usage: false,
            operation: Operation::Chat,
            request: Bytes::from_static(b"{}"),
        };
        let listener = Listener { door, stream, voice, arrived: Instant::now(), keeps: true, holds: true };
        Translation::new(listener, forced.map(str::to_owned))
    }

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    fn stop() -> Event {
        Event::Finished { reason: Reason::Stop, stop: None }
    }

    #[test]
    fn every_frame_that_is_told_is_counted() {
        for (door, end) in [(Door::OpenAiChat, "\n\n"), (Door::OllamaChat, "\n"), (Door::Messages, "\n\n")] {
            let mut translation = translation(door, true, None);
            translation.ear().extend([text("a\n\nb"), text("c")]);
            let mut pieces = vec![translation.tell()];
            translation.ear().push(stop());
            pieces.push(translation.tell_the_end());
            assert!(translation.whole().is_none(), "a stream is not told twice");
            for piece in pieces {
                let written = std::str::from_utf8(&piece.bytes).unwrap();
                assert_eq!(written.matches(end).count() as u64, piece.frames, "{door} {written}");
                assert!(piece.frames > 0 && written.ends_with(end), "{door} {written}");
            }
        }
    }

    #[test]
    fn a_whole_answer_is_held_until_it_is_whole() {
        let mut translation = translation(Door::OllamaChat, false, Some("f"));
        translation.ear().extend([text("{"), text("}")]);
        assert!(translation.tell().bytes.is_empty());
        assert!(translation.held() >= 2);
        translation.ear().push(stop());
        assert!(translation.tell_the_end().bytes.is_empty());
        let whole = String::from_utf8(translation.whole().unwrap().to_vec()).unwrap();
        assert!(whole.contains("tool_calls"), "a forced call is a call: {whole}");
        assert_eq!(translation.held(), 0);
    }

    #[test]
    fn an_answer_without_end_is_too_long_whatever_a_writer_does_with_it() {
        let mut translation = translation(Door::OpenAiChat, true, None);
        let piece = "x".repeat(LONGEST / 4 + 1);
        for times in 1..=4 {
            translation.ear().push(text(&piece));
            translation.tell();
            assert_eq!(translation.is_too_long(), times == 4);
        }
    }
}
