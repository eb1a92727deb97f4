//! Writes the stream of an answer, in the order that the official clients need.
//!
//! `message_start`, then blocks one after the other, each begun, continued and
//! ended before the next, then `message_delta` with the reason and the counts,
//! then `message_stop`. Servers of other languages may let the arguments of
//! several calls take turns; here what comes while a call is not complete waits
//! behind it. A call is complete when its arguments are a whole object.

use std::time::Duration;

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;
use serde_json::json;

use super::{
    UNSIGNED,
    understand::understand,
    whole::{self, Block, Counts, Message, call_id, input, written},
};
use crate::{
    dialect::{self, Voice, json::quote},
    generate::{Event, Meaning, Reason, Usage, estimate},
};

/// How much may wait behind a call. Arguments that take turns are short; a call that is not
/// complete after this is broken, and nothing waits for it any longer.
const MOST_WAITING: usize = 8 << 20;

/// Writes one stream.
pub(super) struct Writer {
    voice: Voice,
    begun: bool,
    /// The number of the next block.
    next: usize,
    open: Option<Open>,
    waiting: VecDeque<Waiting>,
    /// How many of those that waited have been written.
    passed: usize,
    /// Where calls wait: their place, counted from the first that ever waited.
    places: HashMap<usize, usize>,
    held: usize,
    called: bool,
    refused: bool,
    usage: Usage,
    finished: Option<(Reason, Option<String>)>,
}

/// The block that is being written.
enum Open {
    Text,
    Thinking { signed: bool },
    Call { index: usize, progress: Progress },
}

/// A block that cannot begin yet, with what came of it.
enum Waiting {
    Text(String),
    Thinking { text: String, signature: String },
    Call { index: usize, id: Option<String>, name: String, arguments: String },
}

impl Writer {
    pub(super) fn new(voice: Voice) -> Self {
        Self {
            voice,
            begun: false,
            next: 0,
            open: None,
            waiting: VecDeque::new(),
            passed: 0,
            places: HashMap::new(),
            held: 0,
            called: false,
            refused: false,
            usage: Usage::default(),
            finished: None,
        }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let usage = Usage {
            input_tokens: self.usage.input_tokens.or_else(|| self.guess()),
            output_tokens: None,
            ..self.usage
        };
        let message = written(&Message::new(&self.voice, &usage));
        emit(out, "message_start", format_args!(",\"message\":{message}"));
    }

    /// About how long the prompt is: clients want a number at the beginning, and most servers
    /// say one at the end. That one is in `message_delta`, and by the book it counts.
    fn guess(&self) -> Option<u64> {
        understand(&self.voice.request).ok().map(|it| estimate(&Meaning::Chat(it)))
    }

    /// Whether what is said now has to wait, for a call that is not complete.
    fn must_wait(&self) -> bool {
        match &self.open {
            Some(Open::Call { progress, .. }) => !progress.is_whole() || !self.waiting.is_empty(),
            Some(Open::Text | Open::Thinking { .. }) | None => false,
        }
    }

    fn text(&mut self, text: &str, out: &mut BytesMut) {
        if !matches!(self.open, Some(Open::Text)) {
            self.start(Open::Text, Block::Text { text: "" }, out);
        }
        self.delta("text_delta", "text", text, out);
    }

    fn thinking(&mut self, text: &str, out: &mut BytesMut) {
        self.start_thinking(out);
        self.delta("thinking_delta", "thinking", text, out);
    }

    fn signature(&mut self, signature: &str, out: &mut BytesMut) {
        if !matches!(self.open, Some(Open::Thinking { .. })) {
            self.start_thinking(out);
        }
        if let Some(Open::Thinking { signed }) = &mut self.open {
            *signed = true;
        }
        self.delta("signature_delta", "signature", signature, out);
    }

    /// A thought goes on until it is signed; what comes then is another.
    fn start_thinking(&mut self, out: &mut BytesMut) {
        if !matches!(self.open, Some(Open::Thinking { signed: false })) {
            let block = Block::Thinking { thinking: "", signature: "" };
            self.start(Open::Thinking { signed: false }, block, out);
        }
    }

    fn call(&mut self, index: usize, id: Option<&str>, name: &str, out: &mut BytesMut) {
        let id = call_id(&self.voice, index, id);
        let block = Block::ToolUse { id, name, input: input("") };
        self.start(Open::Call { index, progress: Progress::default() }, block, out);
    }

    fn arguments(&mut self, text: &str, out: &mut BytesMut) {
        self.delta("input_json_delta", "partial_json", text, out);
        if let Some(Open::Call { progress, .. }) = &mut self.open {
            progress.take(text);
        }
    }

    fn start(&mut self, open: Open, block: Block<'_>, out: &mut BytesMut) {
        self.close(out);
        let (index, block) = (self.next, written(&block));
        emit(out, "content_block_start", format_args!(",\"index\":{index},\"content_block\":{block}"));
        self.next += 1;
        self.open = Some(open);
    }

    fn close(&mut self, out: &mut BytesMut) {
        if let Some(Open::Thinking { signed: false }) = self.open {
            self.delta("signature_delta", "signature", UNSIGNED, out);
        }
        if self.open.take().is_some() {
            emit(out, "content_block_stop", format_args!(",\"index\":{}", self.next - 1));
        }
    }

    fn delta(&self, kind: &str, name: &str, text: &str, out: &mut BytesMut) {
        let index = self.next.saturating_sub(1);
        let text = quote(text);
        let delta = format_args!(",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{name}\":{text}}}");
        emit(out, "content_block_delta", delta);
    }

    fn wait(&mut self, event: Event) {
        match event {
            Event::Text(more) | Event::Refusal(more) => {
                self.held += more.len();
                match self.waiting.back_mut() {
                    Some(Waiting::Text(text)) => text.push_str(&more),
                    _ => self.waiting.push_back(Waiting::Text(more)),
                }
            }
            Event::Thinking(more) => {
                self.held += more.len();
                match self.waiting.back_mut() {
                    Some(Waiting::Thinking { text, signature }) if signature.is_empty() => {
                        text.push_str(&more);
                    }
                    _ => {
                        let signature = String::new();
                        self.waiting.push_back(Waiting::Thinking { text: more, signature });
                    }
                }
            }
            Event::Signature(more) => {
                self.held += more.len();
                match self.waiting.back_mut() {
                    Some(Waiting::Thinking { signature, .. }) => signature.push_str(&more),
                    _ => {
                        let text = String::new();
                        self.waiting.push_back(Waiting::Thinking { text, signature: more });
                    }
                }
            }
            Event::Call { index, id, name } => {
                self.held += name.len() + size_of::<Waiting>();
                self.places.insert(index, self.passed + self.waiting.len());
                self.waiting.push_back(Waiting::Call { index, id, name, arguments: String::new() });
            }
            Event::Arguments { index, text } => {
                let place = self.places.get(&index).and_then(|it| it.checked_sub(self.passed));
                if let Some(Waiting::Call { arguments, .. }) = place.and_then(|it| self.waiting.get_mut(it)) {
                    self.held += text.len();
                    arguments.push_str(&text);
                }
            }
            Event::Logprobs(_) | Event::Vector(_) | Event::Usage(_) | Event::Finished { .. } => {}
        }
    }

    /// Writes what waited, as far as it need not wait any longer. `force` is when nothing more comes.
    fn go_on(&mut self, force: bool, out: &mut BytesMut) {
        loop {
            if let Some(Open::Call { progress, .. }) = &self.open
                && !progress.is_whole()
                && !force
                && self.held <= MOST_WAITING
            {
                return;
            }
            let Some(next) = self.waiting.pop_front() else { return };
            self.passed += 1;
            match next {
                Waiting::Text(text) => {
                    self.held = self.held.saturating_sub(text.len());
                    self.text(&text, out);
                }
                Waiting::Thinking { text, signature } => {
                    self.held = self.held.saturating_sub(text.len() + signature.len());
                    if !text.is_empty() {
                        self.thinking(&text, out);
                    }
                    if !signature.is_empty() {
                        self.signature(&signature, out);
                    }
                }
                Waiting::Call { index, id, name, arguments } => {
                    let size = name.len() + arguments.len() + size_of::<Waiting>();
                    self.held = self.held.saturating_sub(size);
                    self.places.remove(&index);
                    self.call(index, id.as_deref(), &name, out);
                    if !arguments.is_empty() {
                        self.arguments(&arguments, out);
                    }
                }
            }
        }
    }
}

impl dialect::Writer for Writer {
    fn write(&mut self, event: Event, out: &mut BytesMut) {
        match event {
            Event::Usage(usage) => {
                self.usage = usage;
                return;
            }
            Event::Finished { reason, stop } => {
                self.begin(out);
                self.finished = Some((reason, stop));
                return;
            }
            // Nobody can ask for these in this language.
            Event::Logprobs(_) | Event::Vector(_) => return,
            Event::Text(_)
            | Event::Thinking(_)
            | Event::Signature(_)
            | Event::Refusal(_)
            | Event::Call { .. }
            | Event::Arguments { .. } => {}
        }
        self.begin(out);
        self.called |= matches!(event, Event::Call { .. });
        self.refused |= matches!(event, Event::Refusal(_));
        match event {
            Event::Arguments { index, text } if matches!(&self.open, Some(Open::Call { index: open, .. }) if *open == index) =>
            {
                // After a whole object there can only be white space.
                if !matches!(&self.open, Some(Open::Call { progress, .. }) if progress.is_whole()) {
                    self.arguments(&text, out);
                }
                self.go_on(false, out);
            }
            // Of a call that is not there, or not there any more.
            Event::Arguments { index, .. } if !self.places.contains_key(&index) => {}
            event if self.must_wait() => {
                self.wait(event);
                self.go_on(false, out);
            }
            Event::Text(text) | Event::Refusal(text) => self.text(&text, out),
            Event::Thinking(text) => self.thinking(&text, out),
            Event::Signature(text) => self.signature(&text, out),
            Event::Call { index, id, name } => self.call(index, id.as_deref(), &name, out),
            Event::Arguments { .. }
            | Event::Logprobs(_)
            | Event::Vector(_)
            | Event::Usage(_)
            | Event::Finished { .. } => {}
        }
    }

    fn held(&self) -> usize {
        self.held
    }

    fn finish(&mut self, _took: Duration, out: &mut BytesMut) {
        // Without a reason the answer is not whole, whoever says so.
        let Some((reason, stop)) = self.finished.take() else { return };
        self.begin(out);
        self.go_on(true, out);
        self.close(out);
        let reason = whole::stop_reason(reason, stop.is_some(), self.called, self.refused);
        let usage = written(&Counts::at_last(&self.usage));
        let delta = json!({"stop_reason": reason, "stop_sequence": stop});
        emit(out, "message_delta", format_args!(",\"delta\":{delta},\"usage\":{usage}"));
        emit(out, "message_stop", format_args!(""));
    }
}

/// Writes an event of this type; `more` are its other fields.
fn emit(out: &mut BytesMut, kind: &str, more: std::fmt::Arguments<'_>) {
    use std::fmt::Write as _;
    // Writing to memory that grows cannot fail.
    let _ = write!(out, "event: {kind}\ndata: {{\"type\":\"{kind}\"{more}}}\n\n");
}

/// How far the arguments of a call have come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    depth: usize,
    begun: bool,
    in_text: bool,
    escaped: bool,
}

impl Progress {
    fn take(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.begun = true;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn is_whole(self) -> bool {
        self.begun && self.depth == 0 && !self.in_text
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
