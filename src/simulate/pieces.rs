//! What is said, before a language gives it a form: thoughts, then text or calls of tools.
//!
//! All of it can be checked: words are numbered, JSON fits the schema that was
//! asked for, a call's arguments fit the tool's, and of an image its size is told.

use std::time::SystemTime;

use super::{
    ask::Ask,
    begun::{Begun, THINK},
    fit::fit,
    script::Script,
};

/// Word number `n`, counted from 1, as it stands in an answer: the first without
/// a space before it.
pub fn word(n: usize) -> String {
    if n == 1 { "w1".to_owned() } else { format!(" w{n}") }
}

/// An answer of `words` words.
pub fn text(words: usize) -> String {
    (1..=words).map(word).collect()
}

/// Checks a numbered answer and returns how many words it has.
///
/// The error says what stood where another word should have been.
pub fn check(text: &str) -> Result<usize, String> {
    let mut count = 0;
    for (at, found) in text.split_ascii_whitespace().enumerate() {
        let wanted = format!("w{}", at + 1);
        if found != wanted {
            return Err(format!("`{found}` where `{wanted}` belongs"));
        }
        count += 1;
    }
    Ok(count)
}

/// How many bytes of JSON go into one piece: small, so that a name or an escape is cut in two.
const CUT: usize = 6;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bit {
    Thinking(String),
    Text(String),
    /// A call begins, or more of its arguments.
    Call {
        nth: usize,
        begins: bool,
        piece: String,
    },
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
}

/// All pieces of an answer.
pub(super) struct Pieces<'a> {
    thoughts: usize,
    /// How many thoughts were thought before.
    thought: usize,
    /// Whether thoughts come as text, which shows where they end.
    bare: bool,
    body: Body<'a>,
    /// How many pieces of the body were said before.
    start: usize,
    /// How many bytes of the prompt are the beginning of the answer.
    pub(super) begun_bytes: usize,
    /// What a plain answer repeats of the beginning.
    repeats: String,
    /// The stop string that it came to.
    pub(super) stop: Option<String>,
}

enum Body<'a> {
    Numbered(usize),
    Stamped(usize),
    Sentence(Vec<&'a str>, usize),
    Cut(Vec<String>, usize),
    Calls(Vec<Call>, Vec<Bit>),
}

impl<'a> Pieces<'a> {
    /// What the script says to what is asked. `number` makes the ids of calls unique.
    pub(super) fn of(script: &'a Script, ask: &Ask, number: u64) -> Self {
        let limit = ask.max_tokens.unwrap_or(usize::MAX);
        let begun = ask.begun.clone().unwrap_or_default();
        let bare = begun.inside && begun.ends_prompt;
        let thoughts = if ask.thinks || bare { script.thoughts.saturating_sub(begun.thoughts) } else { 0 };
        let thoughts = thoughts.min(limit);
        let called = ask.called(script.calls);
        let mut body = if !called.is_empty() {
            let calls: Vec<_> = called
                .into_iter()
                .enumerate()
                .map(|(nth, tool)| Call {
                    id: format!("call_{number:06x}{nth:02x}"),
                    name: tool.name.clone(),
                    arguments: fit(&tool.parameters).to_string(),
                })
                .collect();
            let bits = bits(&calls, ask.gate.calls_come_whole());
            Body::Calls(calls, bits)
        } else if let Some(schema) = &ask.format {
            let cut = cut(&fit(schema).to_string());
            let count = cut.len();
            Body::Cut(cut, count)
        } else if !ask.images.is_empty() {
            let told = ask.images.join(", ");
            let cut: Vec<_> = told.split_inclusive(' ').map(str::to_owned).collect();
            let count = cut.len();
            Body::Cut(cut, count)
        } else if let Some(sentence) = &script.sentence {
            let words: Vec<_> = sentence.split_inclusive(char::is_whitespace).collect();
            let count = words.len();
            Body::Sentence(words, count)
        } else if script.stamps {
            Body::Stamped(script.words)
        } else {
            // A request that asks for more than the script's words gets the script's.
            Body::Numbered(script.words)
        };
        let (start, rest) = ask.begun.as_ref().map_or((0, None), |it| body.start_after(it));
        let begun_bytes = match &ask.begun {
            Some(begun) if begun.ends_prompt => {
                body.bytes_before(start, rest.as_deref()) + begun.thought_bytes
            }
            _ => 0,
        };
        if let Some(rest) = rest {
            body.say_instead(start, rest);
        }
        body.limit(start.saturating_add(limit - thoughts));
        let stop = body.stop_at(&ask.stop, start);
        let repeats = ask.begun.as_ref().filter(|it| !it.ends_prompt).map(|it| it.text.clone());
        let repeats = repeats.unwrap_or_default();
        Self { thoughts, thought: begun.thoughts, bare, body, start, begun_bytes, repeats, stop }
    }

    pub(super) fn count(&self) -> usize {
        self.thoughts + self.said()
    }

    /// How many tokens of the answer were in the prompt.
    pub(super) fn begun(&self) -> usize {
        self.start + self.thought
    }

    /// How many of them are thoughts, which come first.
    pub(super) fn thoughts(&self) -> usize {
        self.thoughts
    }

    /// How many are no thoughts.
    pub(super) fn said(&self) -> usize {
        self.body.count().saturating_sub(self.start)
    }

    /// Piece `index`, counted from 0; beyond the end it goes on counting.
    pub(super) fn at(&self, index: usize) -> Bit {
        let Some(said) = index.checked_sub(self.thoughts) else {
            let thought = thought(index + self.thought);
            return if self.bare { Bit::Text(thought) } else { Bit::Thinking(thought) };
        };
        match self.body.at(said + self.start) {
            Bit::Text(text) if self.bare && said == 0 => Bit::Text(THINK.1.to_owned() + &text),
            bit => bit,
        }
    }

    /// The text of a plain answer of llama.cpp: it says again what it was told.
    pub(super) fn text_with_begun(&self) -> String {
        format!("{}{}", self.repeats, self.text())
    }

    pub(super) fn thinking(&self) -> String {
        let thoughts = if self.bare { 0 } else { self.thoughts };
        (0..thoughts).map(|it| thought(it + self.thought)).collect()
    }

    pub(super) fn text(&self) -> String {
        if matches!(self.body, Body::Calls(..)) {
            return String::new();
        }
        (0..self.count())
            .map(|index| match self.at(index) {
                Bit::Text(text) => text,
                Bit::Thinking(_) | Bit::Call { .. } => String::new(),
            })
            .collect()
    }

    pub(super) fn calls(&self) -> &[Call] {
        match &self.body {
            Body::Calls(calls, _) => calls,
            Body::Numbered(_) | Body::Stamped(_) | Body::Sentence(..) | Body::Cut(..) => &[],
        }
    }

    /// The number of the block that piece `index` belongs to: the thoughts, the text, each
    /// call are one each.
    pub(super) fn block(&self, index: usize) -> usize {
        let before = usize::from(self.thoughts > 0);
        match self.at(index) {
            Bit::Thinking(_) => 0,
            Bit::Text(_) => before,
            Bit::Call { nth, .. } => before + nth,
        }
    }

    /// Whether a block begins with piece `index`.
    pub(super) fn begins(&self, index: usize) -> bool {
        index == 0 || self.block(index - 1) != self.block(index)
    }
}

impl Body<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Numbered(count) | Self::Stamped(count) | Self::Sentence(_, count) | Self::Cut(_, count) => {
                *count
            }
            Self::Calls(_, bits) => bits.len(),
        }
    }

    fn at(&self, index: usize) -> Bit {
        match self {
            Self::Numbered(_) => Bit::Text(word(index + 1)),
            Self::Stamped(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Bit::Text(format!("{} ", now.as_nanos()))
            }
            Self::Sentence(words, _) => Bit::Text(words[index % words.len()].to_owned()),
            Self::Cut(cut, _) => Bit::Text(cut.get(index).cloned().unwrap_or_else(|| word(index + 1))),
            Self::Calls(_, bits) => bits.get(index).cloned().unwrap_or_else(|| Bit::Text(word(index + 1))),
        }
    }

    /// At most so many pieces; calls are whole.
    fn limit(&mut self, most: usize) {
        match self {
            Self::Numbered(count) | Self::Stamped(count) | Self::Sentence(_, count) | Self::Cut(_, count) => {
                *count = most.min(*count);
            }
            Self::Calls(..) => {}
        }
    }

    /// How many pieces were said before, and the rest of one that was cut in two. What begins
    /// otherwise is no answer of this server's: it says all of its own after it.
    fn start_after(&self, begun: &Begun) -> (usize, Option<String>) {
        if let Self::Stamped(_) = self {
            let stamps = begun.text.split_ascii_whitespace().filter(|it| it.parse::<u128>().is_ok());
            return (stamps.count(), None);
        }
        let begins =
            |said: &str| if begun.ends_prompt { begun.text.ends_with(said) } else { begun.text == said };
        let (mut said, mut found) = (String::new(), (0, None));
        for index in 0..self.count() {
            let Bit::Text(piece) = self.at(index) else { break };
            for (at, _) in piece.char_indices().skip(1) {
                if begins(&format!("{said}{}", &piece[..at])) {
                    found = (index, Some(piece[at..].to_owned()));
                }
            }
            said.push_str(&piece);
            if begins(&said) {
                found = (index + 1, None);
            }
        }
        found
    }

    /// How many bytes of JSON the pieces have that were said before.
    fn bytes_before(&self, start: usize, rest: Option<&str>) -> usize {
        let texts = self.texts().unwrap_or_default();
        let cut = rest.and_then(|rest| texts.get(start)?.strip_suffix(rest)).unwrap_or_default();
        let said = texts.iter().take(start).map(String::as_str).collect::<String>() + cut;
        serde_json::Value::from(said).to_string().len() - 2
    }

    /// All texts, where there is nothing else.
    fn texts(&self) -> Option<Vec<String>> {
        let text = |index| match self.at(index) {
            Bit::Text(text) => Some(text),
            Bit::Thinking(_) | Bit::Call { .. } => None,
        };
        (0..self.count()).map(text).collect()
    }

    /// Says this in place of one piece: the rest of one that was cut in two.
    fn say_instead(&mut self, index: usize, text: String) {
        if let Some(mut texts) = self.texts()
            && let Some(piece) = texts.get_mut(index)
        {
            *piece = text;
            let count = texts.len();
            *self = Self::Cut(texts, count);
        }
    }

    /// Ends the text before one of these; the beginning of one is held back. What was said
    /// before is not looked at.
    fn stop_at(&mut self, stops: &[String], start: usize) -> Option<String> {
        if stops.is_empty() {
            return None;
        }
        let mut texts = self.texts()?;
        let new = texts.get(start..).unwrap_or_default().concat();
        let (mut place, stop) = stops.iter().filter_map(|it| Some((new.find(it.as_str())?, it))).min()?;
        let mut index = start;
        while place > 0 && place >= texts[index].len() {
            place -= texts[index].len();
            index += 1;
        }
        let stop = stop.clone();
        texts[index].truncate(place);
        texts.truncate(index + usize::from(place > 0));
        let count = texts.len();
        *self = Self::Cut(texts, count);
        Some(stop)
    }
}

fn thought(index: usize) -> String {
    if index == 0 { "t1".to_owned() } else { format!(" t{}", index + 1) }
}

/// Calls one after the other: each begins, and then its arguments come in pieces.
fn bits(calls: &[Call], whole: bool) -> Vec<Bit> {
    let mut bits = Vec::new();
    for (nth, call) in calls.iter().enumerate() {
        if whole {
            bits.push(Bit::Call { nth, begins: true, piece: call.arguments.clone() });
            continue;
        }
        bits.push(Bit::Call { nth, begins: true, piece: String::new() });
        let pieces = cut(&call.arguments);
        bits.extend(pieces.into_iter().map(|piece| Bit::Call { nth, begins: false, piece }));
    }
    bits
}

fn cut(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for character in text.chars() {
        if pieces.last().is_some_and(|it| it.len() >= CUT) {
            pieces.push(String::new());
        }
        if let Some(last) = pieces.last_mut() {
            last.push(character);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_text_shows_what_is_missing_doubled_or_torn() {
        assert_eq!(check(&text(12)), Ok(12));
        assert_eq!(check(""), Ok(0));
        assert_eq!(check("w1 w3"), Err("`w3` where `w2` belongs".to_owned()));
        assert_eq!(check("w1 w1"), Err("`w1` where `w2` belongs".to_owned()));
        assert_eq!(check("w1 w"), Err("`w` where `w2` belongs".to_owned()));
    }

    #[test]
    fn what_is_cut_is_whole_again_when_put_together() {
        let text = "{\"a\":\"äöü and more\"}";
        assert!(cut(text).len() > 3);
        assert_eq!(cut(text).concat(), text);
        assert_eq!(cut("").concat(), "");
    }

    #[test]
    fn a_text_ends_before_its_stop_string() {
        let mut body = Body::Numbered(8);
        assert_eq!(body.stop_at(&["w5".to_owned()], 0), Some("w5".to_owned()));
        assert_eq!(body.texts().unwrap().concat(), "w1 w2 w3 w4 ");
        let mut body = Body::Numbered(8);
        assert_eq!(body.stop_at(&["3 w4".to_owned()], 2), Some("3 w4".to_owned()));
        assert_eq!((body.texts().unwrap().concat().as_str(), body.count()), ("w1 w2 w", 3));
        assert_eq!(Body::Numbered(8).stop_at(&["w9".to_owned()], 0), None);
        assert_eq!(Body::Numbered(8).stop_at(&["w2".to_owned()], 3), None);
    }

    #[test]
    fn an_answer_goes_on_where_it_was_cut() {
        let check = |text: &str, ends_prompt, expected: (usize, Option<&str>)| {
            let begun = Begun { text: text.to_owned(), ends_prompt, ..Begun::default() };
            let (start, rest) = Body::Numbered(12).start_after(&begun);
            assert_eq!((start, rest.as_deref()), expected, "for {text:?}");
        };
        check("w1 w2", false, (2, None));
        check("w1 w2 ", false, (2, Some("w3")));
        check("w1 w", false, (1, Some("2")));
        check("Hello", false, (0, None));
        check("Count: w1 w2", true, (2, None));
        check("Count: w1 w2", false, (0, None));
        check("Count for me.", true, (0, None));
    }
}
