//! Writes an answer: canonical events become the events of this language.
//!
//! Items are numbered as they begin. At most one message or thought is open; it
//! is closed when something else begins. Calls stay open until the end, since
//! their arguments may take turns, each under its own number. The whole answer
//! is what the last event of the same stream would hold.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    item::{Body, Item, Piece, Status},
    object::Frame,
    tool,
};
use crate::{
    dialect::Voice,
    generate::{Answer, Event, Reason, Said, Usage},
};

/// Writes one stream.
pub(super) struct Writer {
    frame: Frame,
    /// The number of the next event.
    sequence: u64,
    items: Vec<Item>,
    /// Whether the last item is a message or a thought to which more may come.
    open: bool,
    /// The items of the calls, by the numbers of the calls.
    calls: BTreeMap<usize, usize>,
    /// Text that waits for its log probabilities.
    held: Option<String>,
    usage: Usage,
    reason: Option<Reason>,
}

impl Writer {
    /// A writer of the answer that `voice` gives.
    pub(super) fn new(voice: &Voice) -> Self {
        Self {
            frame: Frame::new(voice),
            sequence: 0,
            items: Vec::new(),
            open: false,
            calls: BTreeMap::new(),
            held: None,
            usage: Usage::default(),
            reason: None,
        }
    }

    fn add(&mut self, event: Event, out: &mut BytesMut) {
        self.begin(out);
        match event {
            // The text before waits for these.
            Event::Logprobs(logprobs) if self.frame.logprobs => {
                let text = self.held.take().unwrap_or_default();
                self.say(text, logprobs, out);
                return;
            }
            Event::Text(text) if text.is_empty() => return,
            _ => self.let_go(out),
        }
        match event {
            Event::Text(text) if self.frame.logprobs => self.held = Some(text),
            Event::Text(text) => self.say(text, Vec::new(), out),
            Event::Refusal(text) if !text.is_empty() => {
                self.piece(true, out);
                if let Some(piece) = self.last_piece() {
                    piece.text.push_str(&text);
                }
                self.emit_part("response.refusal.delta", json!({"delta": text}), out);
            }
            Event::Thinking(text) if !text.is_empty() => self.think(&text, out),
            Event::Signature(more) if !more.is_empty() => {
                let is_thought =
                    self.open && matches!(self.items.last(), Some(Item { body: Body::Reasoning { .. }, .. }));
                if !is_thought {
                    self.start("rs", Body::Reasoning { text: String::new(), signature: None }, out);
                    self.open = true;
                }
                if let Some(Item { body: Body::Reasoning { signature, .. }, .. }) = self.items.last_mut() {
                    signature.get_or_insert_default().push_str(&more);
                }
            }
            Event::Call { index, id, name } => {
                let call_id = id.unwrap_or_else(|| format!("call_{}_{index}", self.frame.id));
                let is_custom = self.frame.customs.contains(&name);
                let prefix = if is_custom { "ctc" } else { "fc" };
                self.start(prefix, Body::Call { call_id, name, text: String::new(), is_custom }, out);
                self.calls.insert(index, self.items.len() - 1);
            }
            Event::Arguments { index, text: more } => {
                let Some(&at) = self.calls.get(&index) else { return };
                let Body::Call { text, is_custom, .. } = &mut self.items[at].body else { return };
                text.push_str(&more);
                // The input of a custom tool stands inside the arguments.
                if !*is_custom && !more.is_empty() {
                    self.emit_item(at, "response.function_call_arguments.delta", json!({"delta": more}), out);
                }
            }
            Event::Usage(usage) => self.usage = usage,
            Event::Finished { reason, .. } => self.reason = Some(reason),
            // No place for these, or nothing in them.
            Event::Logprobs(_)
            | Event::Vector(_)
            | Event::Refusal(_)
            | Event::Thinking(_)
            | Event::Signature(_) => {}
        }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if self.sequence == 0 {
            self.emit("response.created", json!({"response": self.frame.begun()}), out);
            self.emit("response.in_progress", json!({"response": self.frame.begun()}), out);
        }
    }

    /// The answer is whole: closes everything; gives the word for how it ended, and the object.
    fn close(&mut self, out: &mut BytesMut) -> (&'static str, Value) {
        self.begin(out);
        self.let_go(out);
        if self.items.is_empty() {
            // Clients look for what was said, even if it was nothing.
            self.piece(false, out);
        }
        let last = match self.reason {
            Some(Reason::Stop | Reason::ToolCalls | Reason::Other) => Status::Completed,
            Some(Reason::Length | Reason::ContentFilter) | None => Status::Incomplete,
        };
        let end = self.items.len() - 1;
        self.close_open(last, out);
        let calls: Vec<usize> =
            (0..=end).filter(|at| matches!(self.items[*at].body, Body::Call { .. })).collect();
        for at in calls {
            self.close_call(at, if at == end { last } else { Status::Completed }, out);
        }
        let shown = self.items.iter().enumerate();
        let output = shown.map(|(at, it)| it.show(if at == end { last } else { Status::Completed }));
        self.frame.ended(self.reason, output.collect(), self.usage)
    }

    /// Begins an item.
    fn start(&mut self, prefix: &str, body: Body, out: &mut BytesMut) {
        self.close_open(Status::Completed, out);
        let at = self.items.len();
        self.items.push(Item { id: format!("{prefix}_{}_{at}", self.frame.id), body });
        let shown = self.items[at].show(Status::InProgress);
        self.emit("response.output_item.added", json!({"output_index": at, "item": shown}), out);
    }

    /// Sees to it that text, or a refusal, has a part to go to.
    fn piece(&mut self, is_refusal: bool, out: &mut BytesMut) {
        let is_message = self.open && matches!(self.items.last(), Some(Item { body: Body::Message(_), .. }));
        if !is_message {
            self.start("msg", Body::Message(Vec::new()), out);
            self.open = true;
        }
        let Some(Item { body: Body::Message(pieces), .. }) = self.items.last_mut() else { return };
        match pieces.last() {
            Some(last) if last.is_refusal == is_refusal => return,
            Some(_) => self.close_piece(out),
            None => {}
        }
        let piece = Piece { text: String::new(), is_refusal, logprobs: Vec::new() };
        let shown = piece.show();
        let Some(Item { body: Body::Message(pieces), .. }) = self.items.last_mut() else { return };
        pieces.push(piece);
        self.emit_part("response.content_part.added", json!({"part": shown}), out);
    }

    /// The part that is open.
    fn last_piece(&mut self) -> Option<&mut Piece> {
        match self.items.last_mut() {
            Some(Item { body: Body::Message(pieces), .. }) => pieces.last_mut(),
            _ => None,
        }
    }

    fn say(&mut self, text: String, logprobs: Vec<Value>, out: &mut BytesMut) {
        if text.is_empty() && logprobs.is_empty() {
            return;
        }
        self.piece(false, out);
        let fields = json!({"delta": text, "logprobs": logprobs});
        if let Some(piece) = self.last_piece() {
            piece.text.push_str(&text);
            piece.logprobs.extend(logprobs);
        }
        self.emit_part("response.output_text.delta", fields, out);
    }

    /// Says the text that waits for log probabilities which did not come.
    fn let_go(&mut self, out: &mut BytesMut) {
        if let Some(text) = self.held.take() {
            self.say(text, Vec::new(), out);
        }
    }

    fn think(&mut self, more: &str, out: &mut BytesMut) {
        // A proof ends a thought.
        let goes_on = self.open
            && matches!(self.items.last(), Some(Item { body: Body::Reasoning { signature: None, .. }, .. }));
        if !goes_on {
            self.start("rs", Body::Reasoning { text: String::new(), signature: None }, out);
            self.open = true;
        }
        let at = self.items.len() - 1;
        let Body::Reasoning { text, .. } = &mut self.items[at].body else { return };
        let begins = text.is_empty();
        text.push_str(more);
        if begins {
            let part = json!({"type": "summary_text", "text": ""});
            let fields = json!({"summary_index": 0, "part": part});
            self.emit_item(at, "response.reasoning_summary_part.added", fields, out);
        }
        let fields = json!({"summary_index": 0, "delta": more});
        self.emit_item(at, "response.reasoning_summary_text.delta", fields, out);
    }

    /// Closes the message or the thought that is open.
    fn close_open(&mut self, status: Status, out: &mut BytesMut) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let at = self.items.len() - 1;
        match &self.items[at].body {
            Body::Message(_) => self.close_piece(out),
            Body::Reasoning { text, .. } if !text.is_empty() => {
                let part = json!({"type": "summary_text", "text": text});
                let text = json!({"summary_index": 0, "text": text});
                self.emit_item(at, "response.reasoning_summary_text.done", text, out);
                let part = json!({"summary_index": 0, "part": part});
                self.emit_item(at, "response.reasoning_summary_part.done", part, out);
            }
            Body::Reasoning { .. } | Body::Call { .. } => {}
        }
        self.close_item(at, status, out);
    }

    /// Closes the part that came last of the message that is open.
    fn close_piece(&mut self, out: &mut BytesMut) {
        let Some(piece) = self.last_piece() else { return };
        let (kind, fields) = match piece.is_refusal {
            true => ("response.refusal.done", json!({"refusal": piece.text})),
            false => ("response.output_text.done", json!({"text": piece.text, "logprobs": piece.logprobs})),
        };
        let shown = piece.show();
        self.emit_part(kind, fields, out);
        self.emit_part("response.content_part.done", json!({"part": shown}), out);
    }

    fn close_call(&mut self, at: usize, status: Status, out: &mut BytesMut) {
        let Body::Call { text, is_custom, .. } = &mut self.items[at].body else { return };
        if *is_custom {
            *text = tool::custom_input(text);
            let input = text.clone();
            if !input.is_empty() {
                self.emit_item(at, "response.custom_tool_call_input.delta", json!({"delta": input}), out);
            }
            self.emit_item(at, "response.custom_tool_call_input.done", json!({"input": input}), out);
        } else {
            // Clients parse them, and a tool without parameters may be called with nothing.
            if text.trim().is_empty() && status == Status::Completed {
                text.push_str("{}");
                let fields = json!({"delta": "{}"});
                self.emit_item(at, "response.function_call_arguments.delta", fields, out);
            }
            let Body::Call { text, name, .. } = &self.items[at].body else { return };
            let fields = json!({"name": name, "arguments": text});
            self.emit_item(at, "response.function_call_arguments.done", fields, out);
        }
        self.close_item(at, status, out);
    }

    fn close_item(&mut self, at: usize, status: Status, out: &mut BytesMut) {
        let shown = self.items[at].show(status);
        self.emit("response.output_item.done", json!({"output_index": at, "item": shown}), out);
    }

    /// An event of the part that came last.
    fn emit_part(&mut self, kind: &str, mut fields: Value, out: &mut BytesMut) {
        let at = self.items.len() - 1;
        if let Body::Message(pieces) = &self.items[at].body {
            fields["content_index"] = pieces.len().saturating_sub(1).into();
        }
        self.emit_item(at, kind, fields, out);
    }

    /// An event of an item.
    fn emit_item(&mut self, at: usize, kind: &str, mut fields: Value, out: &mut BytesMut) {
        fields["item_id"] = self.items[at].id.as_str().into();
        fields["output_index"] = at.into();
        self.emit(kind, fields, out);
    }

    fn emit(&mut self, kind: &str, fields: Value, out: &mut BytesMut) {
        emit(kind, fields, self.sequence, out);
        self.sequence += 1;
    }
}

impl crate::dialect::Writer for Writer {
    fn write(&mut self, event: Event, out: &mut BytesMut) {
        self.add(event, out);
    }

    fn finish(&mut self, out: &mut BytesMut) {
        // Without a reason the answer is not whole, and an end without the last event says so.
        if self.reason.is_some() {
            let (word, response) = self.close(out);
            self.emit(&format!("response.{word}"), json!({"response": response}), out);
        }
    }
}

/// Writes one event.
pub(super) fn emit(kind: &str, mut fields: Value, sequence: u64, out: &mut BytesMut) {
    fields["type"] = kind.into();
    fields["sequence_number"] = sequence.into();
    out.extend_from_slice(format!("event: {kind}\ndata: {fields}\n\n").as_bytes());
}

/// Writes a whole answer.
pub(super) fn whole(answer: &Answer, voice: &Voice) -> Bytes {
    let mut writer = Writer::new(voice);
    let mut unseen = BytesMut::new();
    let mut logprobs = answer.logprobs.iter();
    let texts = answer.said.iter().filter(|it| matches!(it, Said::Text(_))).count();
    let mut nth = 0;
    for said in &answer.said {
        for event in events(said) {
            writer.add(event, &mut unseen);
            unseen.clear();
        }
        if let Said::Text(text) = said {
            nth += 1;
            let all = nth == texts;
            let theirs = those_of(text, all, &mut logprobs);
            writer.add(Event::Logprobs(theirs), &mut unseen);
        }
    }
    writer.usage = answer.usage;
    writer.reason = answer.reason;
    writer.close(&mut unseen).1.to_string().into()
}

/// The log probabilities of a text: of as many tokens as it takes, or all that are left.
fn those_of<'a>(text: &str, all: bool, logprobs: &mut impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let mut length = 0;
    let mut taken = Vec::new();
    while all || length < text.len() {
        let Some(token) = logprobs.next() else { break };
        length += token["token"].as_str().map_or(1, str::len).max(1);
        taken.push(token.clone());
    }
    taken
}

/// A part of a whole answer as events.
fn events(said: &Said) -> Vec<Event> {
    match said.clone() {
        Said::Text(text) => vec![Event::Text(text)],
        Said::Refusal(text) => vec![Event::Refusal(text)],
        Said::Thinking { text, signature } => {
            let proof = signature.map(Event::Signature);
            std::iter::once(Event::Thinking(text)).chain(proof).collect()
        }
        Said::Call { index, id, name, arguments } => {
            vec![Event::Call { index, id, name }, Event::Arguments { index, text: arguments }]
        }
    }
}
