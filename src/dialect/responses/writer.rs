//! Writes an answer: canonical events become the events of this language.
//!
//! Items are told one after the other, as OpenAI tells them: LangChain mixes up
//! two that are open at once. Arguments of calls may take turns, so an item that
//! follows a call waits until its arguments are whole, or the answer is. The
//! whole answer is what the last event of the same stream would hold.

use std::time::Duration;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    item::{Body, Braces, Growing, Item, Piece, Status},
    object::Frame,
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
    /// The item that is being told; those before are closed.
    at: usize,
    /// The items of the calls, by the numbers of the calls.
    calls: BTreeMap<usize, usize>,
    usage: Usage,
    reason: Option<Reason>,
    /// Bytes of all that was said: the last event repeats it.
    held: usize,
}

impl Writer {
    /// A writer of the answer that `voice` gives.
    pub(super) fn new(voice: &Voice) -> Self {
        Self {
            frame: Frame::new(voice),
            sequence: 0,
            items: Vec::new(),
            at: 0,
            calls: BTreeMap::new(),
            usage: Usage::default(),
            held: 0,
            reason: None,
        }
    }

    /// Takes what came into the items.
    fn add(&mut self, event: Event) {
        match event {
            Event::Text(text) if !text.is_empty() => self.piece(false).said.text.push_str(&text),
            Event::Refusal(text) if !text.is_empty() => self.piece(true).said.text.push_str(&text),
            Event::Thinking(text) if !text.is_empty() => {
                // A proof ends a thought.
                let (thought, _) = self.reasoning(|signature| signature.is_none());
                thought.text.push_str(&text);
            }
            Event::Signature(more) if !more.is_empty() => {
                let (_, signature) = self.reasoning(|_| true);
                signature.get_or_insert_default().push_str(&more);
            }
            Event::Call { index, id, name } => {
                let call_id = id.unwrap_or_else(|| format!("call_{}_{index}", self.frame.id));
                let is_custom = self.frame.customs.contains(&name);
                let (arguments, braces) = (Growing::default(), Braces::default());
                self.calls.insert(index, self.items.len());
                self.begin(Body::Call { call_id, name, arguments, braces, is_custom });
            }
            Event::Arguments { index, text } => {
                // One that has been told to its end was whole.
                let at = self.calls.get(&index).copied().filter(|it| *it >= self.at);
                let item = at.map(|it| &mut self.items[it].body);
                if let Some(Body::Call { arguments, braces, .. }) = item {
                    arguments.text.push_str(&text);
                    braces.follow(&text);
                }
            }
            Event::Logprobs(more) if self.frame.logprobs => {
                if let Some(Item { body: Body::Message { pieces, .. }, .. }) = self.items.last_mut()
                    && let Some(piece) = pieces.last_mut()
                {
                    piece.logprobs.extend(more);
                }
            }
            Event::Usage(usage) => self.usage = usage,
            Event::Finished { reason, .. } => self.reason = Some(reason),
            // No place for these, or nothing in them.
            Event::Logprobs(_)
            | Event::Vector(_)
            | Event::Text(_)
            | Event::Refusal(_)
            | Event::Thinking(_)
            | Event::Signature(_) => {}
        }
    }

    fn begin(&mut self, body: Body) {
        self.items.push(Item::new(&self.frame.id, self.items.len(), body));
    }

    /// The part of a message to which text goes, or a refusal.
    fn piece(&mut self, is_refusal: bool) -> &mut Piece {
        let is_message = matches!(self.items.last(), Some(Item { body: Body::Message { .. }, .. }));
        if !is_message {
            self.begin(Body::Message { pieces: Vec::new(), closed: 0 });
        }
        let Some(Item { body: Body::Message { pieces, .. }, .. }) = self.items.last_mut() else {
            unreachable!("the last item was seen to be a message, or made one")
        };
        if pieces.last().is_none_or(|it| it.is_refusal != is_refusal) {
            pieces.push(Piece::new(is_refusal));
        }
        let last = pieces.len() - 1;
        &mut pieces[last]
    }

    /// The thought that goes on, where its proof lets it, or a new one.
    fn reasoning(
        &mut self,
        goes_on: impl FnOnce(&Option<String>) -> bool,
    ) -> (&mut Growing, &mut Option<String>) {
        let is_thought = match self.items.last() {
            Some(Item { body: Body::Reasoning { signature, .. }, .. }) => goes_on(signature),
            _ => false,
        };
        if !is_thought {
            self.begin(Body::Reasoning { thought: Growing::default(), signature: None });
        }
        let Some(Item { body: Body::Reasoning { thought, signature }, .. }) = self.items.last_mut() else {
            unreachable!("the last item was seen to be a thought, or made one")
        };
        (thought, signature)
    }

    /// Tells what is new, as far as it is its turn.
    fn tell(&mut self, out: &mut BytesMut) {
        self.open(out);
        let sequence = &mut self.sequence;
        let mut tell = |kind: &str, fields: Value| emit(kind, fields, sequence, out);
        let end = self.items.len();
        for (at, item) in self.items.iter_mut().enumerate().skip(self.at) {
            if at + 1 == end || !item.is_whole() {
                item.more(&mut tell);
                return;
            }
            item.close(Status::Completed, &mut tell);
            self.at += 1;
        }
    }

    fn open(&mut self, out: &mut BytesMut) {
        if self.sequence == 0 {
            for kind in ["response.created", "response.in_progress"] {
                emit(kind, json!({"response": self.frame.begun()}), &mut self.sequence, out);
            }
        }
    }

    /// The answer is whole: tells the rest; gives the word for how it ended, and the object.
    fn close(&mut self, out: &mut BytesMut) -> (&'static str, Value) {
        if self.items.is_empty() {
            // Clients look for what was said, even if it was nothing.
            self.piece(false);
        }
        self.open(out);
        let is_cut = match self.reason {
            Some(Reason::Stop | Reason::ToolCalls | Reason::Other) => false,
            Some(Reason::Length | Reason::ContentFilter) | None => true,
        };
        let sequence = &mut self.sequence;
        let mut tell = |kind: &str, fields: Value| emit(kind, fields, sequence, out);
        let end = self.items.len();
        let mut output = Vec::with_capacity(end);
        for (at, item) in self.items.iter_mut().enumerate() {
            let ends_here = is_cut && (at + 1 == end || !item.is_whole());
            let status = if ends_here { Status::Incomplete } else { Status::Completed };
            if at >= self.at {
                item.close(status, &mut tell);
            }
            output.push(item.show(status));
        }
        self.at = end;
        self.frame.ended(self.reason, output, self.usage)
    }
}

impl crate::dialect::Writer for Writer {
    fn write(&mut self, event: Event, out: &mut BytesMut) {
        // Text waits for its log probabilities, which come after it.
        let waits = self.frame.logprobs && matches!(event, Event::Text(_));
        if waits {
            self.tell(out);
        }
        self.held += match &event {
            Event::Text(text) | Event::Thinking(text) | Event::Arguments { text, .. } => text.len(),
            _ => 0,
        };
        self.add(event);
        if !waits {
            self.tell(out);
        }
    }

    fn held(&self) -> usize {
        self.held
    }

    fn finish(&mut self, _took: Duration, out: &mut BytesMut) {
        // Without a reason the answer is not whole, and an end without the last event says so.
        if self.reason.is_some() {
            let (word, response) = self.close(out);
            let fields = json!({"response": response});
            emit(&format!("response.{word}"), fields, &mut self.sequence, out);
        }
    }
}

/// Writes one event, and counts it.
pub(super) fn emit(kind: &str, mut fields: Value, sequence: &mut u64, out: &mut BytesMut) {
    fields["type"] = kind.into();
    fields["sequence_number"] = (*sequence).into();
    *sequence += 1;
    out.extend_from_slice(format!("event: {kind}\ndata: {fields}\n\n").as_bytes());
}

/// Writes a whole answer.
pub(super) fn whole(answer: &Answer, voice: &Voice) -> Bytes {
    let mut writer = Writer::new(voice);
    let mut logprobs = answer.logprobs.iter();
    let mut texts = answer.said.iter().filter(|it| matches!(it, Said::Text(_))).count();
    for said in &answer.said {
        match said.clone() {
            Said::Text(text) => {
                texts -= 1;
                let theirs = those_of(&text, texts == 0, &mut logprobs);
                writer.add(Event::Text(text));
                writer.add(Event::Logprobs(theirs));
            }
            Said::Refusal(text) => writer.add(Event::Refusal(text)),
            Said::Thinking { text, signature } => {
                writer.add(Event::Thinking(text));
                writer.add(Event::Signature(signature.unwrap_or_default()));
            }
            Said::Call { index, id, name, arguments } => {
                writer.add(Event::Call { index, id, name });
                writer.add(Event::Arguments { index, text: arguments });
            }
        }
    }
    writer.usage = answer.usage;
    writer.reason = answer.reason;
    writer.close(&mut BytesMut::new()).1.to_string().into()
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
