//! What a server's bytes come to: each frame is judged before anything of it goes on.

use bytes::Bytes;

use super::live::{Heard, Live, Mode, PRELUDE_CAP, Sense, State, Told};
use crate::{
    dialect::{Framing, Verdict, frames::FrameData},
    fault::Cause,
    generate::Operation,
};

/// The longest plain answer of words: only short ones are asked for so, and with all their log
/// probabilities they have a fraction of it. More is an answer without end.
const SHORT_CAP: usize = 16 << 20;

impl Live {
    pub(super) fn hear(&mut self, chunk: Bytes) -> Option<Told> {
        if self.mode == Mode::Plain {
            return Some(self.hear_plain(&chunk));
        }
        let mut heard = Heard::default();
        self.cutter.push(chunk.clone());
        let mut run = Run::default();
        let mut fault = None;
        let passes = !matches!(self.sense, Sense::Translate(_));
        while let Some(frame) = self.cutter.next() {
            let Ok(mut frame) = frame else {
                fault = Some(self.broke(Cause::Unreadable));
                break;
            };
            if let (Some(numbering), FrameData::Event(data)) = (&mut self.numbering, &frame.data)
                && let Some(mended) = numbering.mend(data)
            {
                frame.bytes = [b"data: ", &mended[..], b"\n\n"].concat().into();
                frame.data = FrameData::Event(mended);
            }
            let data = match &frame.data {
                FrameData::Comment => {
                    // A comment proves the socket, not the model: it is no content, and needs no passing on
                    // before there is some.
                    if passes && (self.first_token.is_some() || heard.content) {
                        run.add(&chunk, frame.bytes, &mut heard.pass);
                    }
                    continue;
                }
                FrameData::Event(data) => data,
                FrameData::Broken => {
                    fault = Some(self.bare_text(&frame.bytes));
                    break;
                }
            };
            let judged = match &mut self.sense {
                Sense::Translate(translation) => self.reader.read(data, Some(translation.ear())),
                Sense::None | Sense::Fold(_) => self.judge(data),
            };
            self.prelude += frame.bytes.len();
            match judged.verdict {
                Verdict::Content => heard.content = true,
                Verdict::Quiet | Verdict::Finish | Verdict::Usage | Verdict::Done => {}
                Verdict::Error => {
                    let data = data.clone();
                    fault = Some(self.error_inside(&data));
                    break;
                }
                Verdict::Unreadable => {
                    fault = Some(self.broke(Cause::Unreadable));
                    break;
                }
            }
            if let Err(cause) = self.keep(data) {
                fault = Some(self.broke(cause));
                break;
            }
            let done = judged.verdict == Verdict::Done;
            if self.first.is_none() && self.begun.is_some() && judged.verdict == Verdict::Content {
                // Copied, because the piece that it came in shall not stay for it.
                self.first = Some(Bytes::copy_from_slice(data));
            }
            if done && let Err(cause) = self.reader.end(true).and_then(|()| self.put_together(&mut heard)) {
                fault = Some(self.broke(cause));
                break;
            }
            if passes && !(self.drop_usage && judged.verdict == Verdict::Usage) {
                if !self.holding || done {
                    if !self.tail.is_empty() {
                        run.end(&chunk, &mut heard.pass);
                        self.flush(&mut heard);
                    }
                    run.add(&chunk, frame.bytes, &mut heard.pass);
                    heard.frames += 1;
                } else if !self.hold(frame.bytes) {
                    run.end(&chunk, &mut heard.pass);
                    self.flush(&mut heard);
                }
            }
            if done {
                heard.whole = true;
                break;
            }
        }
        run.end(&chunk, &mut heard.pass);
        let begun = self.first_token.is_some() || heard.content;
        if begun && let Sense::Translate(translation) = &mut self.sense {
            heard.add(translation.tell());
            if translation.is_misfit() {
                self.misfit = true;
                fault = Some(self.broke(Cause::Unsupported));
            } else if translation.is_over() {
                // The end of a stop string came, of which the caller has the beginning.
                match self.put_together(&mut heard) {
                    Ok(()) => heard.whole = true,
                    Err(cause) => fault = Some(self.broke(cause)),
                }
            }
        }
        if !begun && !heard.whole && fault.is_none() && self.prelude > PRELUDE_CAP {
            fault = Some(self.broke(Cause::Unreadable));
        }
        if let Some(fault) = fault {
            // Content that came before the fault in the same piece is content all the same.
            if heard.content {
                self.told.push_back(fault);
                return Some(Told::Heard(heard));
            }
            return Some(fault);
        }
        (heard.content || heard.whole || !heard.pass.is_empty()).then_some(Told::Heard(heard))
    }

    /// A piece of a plain answer.
    fn hear_plain(&mut self, chunk: &[u8]) -> Told {
        self.plain.extend_from_slice(chunk);
        if self.operation != Operation::Embed && self.plain.len() > SHORT_CAP {
            return self.broke(Cause::Unreadable);
        }
        // White space between its parts proves the socket, not the model.
        let content = chunk.iter().any(|byte| !byte.is_ascii_whitespace());
        Told::Heard(Heard { content, ..Heard::default() })
    }

    /// Lets go what was held.
    fn flush(&mut self, heard: &mut Heard) {
        heard.frames += self.tail.len() as u64;
        heard.pass.append(&mut self.tail);
    }

    /// Adds a good frame to what is put together.
    fn keep(&mut self, data: &[u8]) -> Result<(), Cause> {
        let Sense::Fold(fold) = &mut self.sense else { return Ok(()) };
        fold.add(data);
        if fold.is_broken() { Err(Cause::Unreadable) } else { Ok(()) }
    }

    /// Text where an event should be: an error body in place of a stream (LM Studio,
    /// a server that cannot stream), or a proxy's words (llama.cpp's router).
    fn bare_text(&mut self, bytes: &Bytes) -> Told {
        match self.at.dialect().judge_plain(self.at, self.operation, bytes, None) {
            Err(Cause::ErrorEvent) => self.error_inside(&bytes.clone()),
            Ok(_) | Err(_) => self.broke(Cause::Unreadable),
        }
    }

    /// The body ended cleanly.
    pub(super) fn ended(&mut self) -> Told {
        if self.mode == Mode::Plain {
            return self.ended_plain();
        }
        if self.at.dialect().framing() == Framing::Lines && self.cutter.rest() > 0 {
            // The last line may do without its end, and there is no other way to tell that it is whole.
            if let Some(told) = self.hear(Bytes::from_static(b"\n")) {
                return told;
            }
        }
        let rest = self.cutter.take_rest();
        if !rest.is_empty() {
            return self.bare_text(&rest);
        }
        let mut heard = Heard { whole: true, ..Heard::default() };
        if !matches!(self.sense, Sense::Translate(_)) {
            self.flush(&mut heard);
            heard.pass.push(self.reader.missing_terminator());
        }
        match self.reader.end(true).and_then(|()| self.put_together(&mut heard)) {
            Ok(()) => {
                self.state = State::Over;
                Told::Heard(heard)
            }
            Err(cause) => self.broke(cause),
        }
    }

    fn ended_plain(&mut self) -> Told {
        let mut heard = Heard { whole: true, ..Heard::default() };
        if self.passing {
            // Its framing alone can tell now that it is whole.
            self.state = State::Over;
            return Told::Heard(heard);
        }
        let events = match &mut self.sense {
            Sense::Translate(translation) => Some(translation.ear()),
            Sense::None | Sense::Fold(_) => None,
        };
        let judged = self.at.dialect().judge_plain(self.at, self.operation, &self.plain, events);
        match judged.and_then(|plain| self.put_together(&mut heard).map(|()| plain)) {
            Ok(plain) => {
                self.plain_judged = Some((plain.usage, plain.reason));
                self.state = State::Over;
                Told::Heard(heard)
            }
            Err(Cause::ErrorEvent) => {
                let body = std::mem::take(&mut self.plain);
                self.error_inside(&body)
            }
            Err(cause) => self.broke(cause),
        }
    }
}

/// Joins frames that lie side by side in one chunk, so that they go on in one write.
#[derive(Default)]
struct Run {
    start: usize,
    end: usize,
}

impl Run {
    fn add(&mut self, chunk: &Bytes, frame: Bytes, pass: &mut Vec<Bytes>) {
        let at = (frame.as_ptr() as usize).wrapping_sub(chunk.as_ptr() as usize);
        if at > chunk.len() || at + frame.len() > chunk.len() {
            self.end(chunk, pass);
            pass.push(frame);
            return;
        }
        if at != self.end || self.start == self.end {
            self.end(chunk, pass);
            self.start = at;
        }
        self.end = at + frame.len();
    }

    fn end(&mut self, chunk: &Bytes, pass: &mut Vec<Bytes>) {
        if self.start < self.end {
            pass.push(chunk.slice(self.start..self.end));
        }
        self.start = self.end;
    }
}
