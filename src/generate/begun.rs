//! The beginning of an answer: all that another server must be told to go on with it.
//!
//! It is kept while an answer goes to its caller, for the case that its server fails, so
//! it is filled for every token and nearly always thrown away: two texts, and where each
//! piece of the answer ended.

use std::fmt;

use super::Event;

/// An answer as far as it went.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Begun {
    text: String,
    thinking: String,
    /// Where each piece of the text ends. Servers send a piece for each token, but for those
    /// that are no whole character.
    ends: Vec<u32>,
    /// The same of the thinking.
    thoughts: Vec<u32>,
    beyond: bool,
}

impl Begun {
    /// More text.
    pub fn say(&mut self, more: &str) {
        self.text.push_str(more);
        self.ends.push(place(self.text.len()));
    }

    /// More thinking.
    pub fn think(&mut self, more: &str) {
        // Thoughts between two texts have no place in a conversation.
        self.beyond |= !self.text.is_empty();
        self.thinking.push_str(more);
        self.thoughts.push(place(self.thinking.len()));
    }

    /// Something that no other server can go on from: a call, a refusal, a second choice.
    pub fn go_beyond(&mut self) {
        self.beyond = true;
    }

    /// Adds what was told.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Text(text) => self.say(text),
            Event::Thinking(text) => self.think(text),
            Event::Refusal(_)
            | Event::Call { .. }
            | Event::Arguments { .. }
            | Event::Logprobs(_)
            | Event::Vector(_) => self.go_beyond(),
            Event::Signature(_) | Event::Usage(_) | Event::Finished { .. } => {}
        }
    }

    /// How far it went.
    pub fn mark(&self) -> Mark {
        Mark {
            text: self.text.len(),
            thinking: self.thinking.len(),
            ends: self.ends.len(),
            thoughts: self.thoughts.len(),
        }
    }

    /// Takes back what was said since.
    pub fn back_to(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.thinking.truncate(mark.thinking);
        self.ends.truncate(mark.ends);
        self.thoughts.truncate(mark.thoughts);
        self.beyond = false;
    }

    /// All text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All thinking.
    pub fn thinking(&self) -> &str {
        &self.thinking
    }

    /// About how many tokens the thinking and so many bytes of the text have.
    pub fn tokens(&self, bytes: usize) -> u64 {
        (self.thoughts.len() + pieces(&self.ends, bytes)) as u64
    }

    /// About how many tokens so many bytes of the thinking have.
    pub fn thoughts(&self, bytes: usize) -> u64 {
        pieces(&self.thoughts, bytes) as u64
    }

    /// Whether something was said that no other server can go on from.
    pub fn is_beyond(&self) -> bool {
        self.beyond
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.thinking.is_empty() && !self.beyond
    }

    /// How many bytes are held, about.
    pub fn len(&self) -> usize {
        self.text.len() + self.thinking.len() + 4 * (self.ends.len() + self.thoughts.len())
    }
}

/// What is longer than that is not gone on with anyway.
fn place(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// How many pieces end within so many bytes.
fn pieces(ends: &[u32], bytes: usize) -> usize {
    ends.partition_point(|it| *it <= place(bytes))
}

/// How far an answer went that could be gone on with.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    text: usize,
    thinking: usize,
    ends: usize,
    thoughts: usize,
}

/// Answers reach no log.
impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Begun({} + {} bytes)", self.thinking.len(), self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pieces: &[&str]) -> Begun {
        let mut begun = Begun::default();
        for piece in pieces {
            begun.say(piece);
        }
        begun
    }

    #[test]
    fn tokens_are_counted_to_any_place() {
        let mut begun = Begun::default();
        begun.think("hm");
        begun.think("m");
        begun.say("ab");
        begun.say("c");
        assert_eq!([0, 1, 2, 3, 9].map(|it| begun.tokens(it)), [2, 2, 3, 4, 4]);
        assert_eq!([0, 1, 2, 3, 9].map(|it| begun.thoughts(it)), [0, 0, 1, 2, 2]);
        assert_eq!((begun.text(), begun.thinking()), ("abc", "hmm"));
        assert_eq!(said(&[]), Begun::default());
    }

    #[test]
    fn what_cannot_be_gone_on_with_is_known() {
        assert!(said(&[]).is_empty());
        assert!(!said(&["a"]).is_beyond());
        let mut begun = said(&["a"]);
        begun.think("again");
        assert!(begun.is_beyond());
        let mut begun = said(&[]);
        begun.add(&Event::Call { index: 0, id: None, name: "f".to_owned() });
        assert!(begun.is_beyond() && !begun.is_empty());
    }

    #[test]
    fn what_is_taken_back_was_never_said() {
        let mut begun = said(&["a"]);
        let mark = begun.mark();
        begun.say("b");
        begun.go_beyond();
        begun.back_to(mark);
        assert_eq!(begun, said(&["a"]));
    }

    #[test]
    fn no_word_of_it_is_shown() {
        assert_eq!(format!("{:?}", said(&["secret"])), "Begun(0 + 6 bytes)");
    }
}
