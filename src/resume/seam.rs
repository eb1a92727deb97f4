//! Between a server that goes on with an answer and the caller who has its beginning: lets
//! pass only what is new.

use super::{Repeats, Told, closing::Closing, stretch::Stretch};
use crate::generate::{Begun, Event, Reason, Usage};

/// The server said something else than what the caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit;

/// What is found out just before a server is asked to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// How many tokens it is told of the answer, by its own count.
    pub tokens: Option<u64>,
    /// What ends the thinking that it goes on with, where it does not tell thinking from text.
    pub closing: Option<String>,
}

/// What is still to be taken off the beginning of what a server says.
#[derive(Clone, Debug, Default)]
pub struct Seam {
    text: Stretch,
    thinking: Thoughts,
    /// Parts what comes as text, where some of it is thinking.
    closing: Option<Closing>,
    /// What would finish a stop string that began before the seam, with that string.
    stops: Vec<(String, String)>,
    /// What came and may finish one.
    held: String,
    /// Whether anything came.
    came: bool,
    over: bool,
    /// How many tokens the caller wants at most.
    limit: Option<u64>,
    /// What it was told, in tokens, and how many of them are thoughts.
    tokens: u64,
    thoughts: u64,
    /// Whether these are only about so many.
    about: bool,
    usage: Usage,
}

/// What becomes of thinking.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thoughts {
    /// It passes, once this was thought again; where it is not, nothing of it does.
    Again(Stretch),
    /// It goes on where it was cut, and must fit.
    On(Stretch),
    /// None of it: the caller has seen other thoughts, or text after them.
    Not,
}

impl Default for Thoughts {
    fn default() -> Self {
        Self::Again(Stretch::default())
    }
}

impl Seam {
    /// For a server that is asked from the start: it says all of that again. What it thinks
    /// may differ from what the caller has seen, and then nothing more of it is shown.
    pub(super) fn again(begun: &Begun) -> Self {
        let thinking = match begun.text().is_empty() {
            true => Thoughts::Again(Stretch::again(begun.thinking())),
            false => Thoughts::Not,
        };
        Self { text: Stretch::again(begun.text()), thinking, ..Self::default() }
    }

    /// For a server that is told so much of it.
    pub(super) fn after(begun: &Begun, told: Told, repeats: Repeats, limit: Option<u64>) -> Self {
        let (text, thinking) = match told {
            Told::Nothing => return Self::again(begun),
            Told::Thinking(told) if begun.text().is_empty() => {
                (Stretch::default(), Thoughts::On(Stretch::after(begun.thinking(), told, repeats)))
            }
            Told::Thinking(_) => (Stretch::after(begun.text(), 0, repeats), Thoughts::Not),
            Told::Text(told) => (Stretch::after(begun.text(), told, repeats), Thoughts::Not),
        };
        let (tokens, thoughts) = told.about(begun);
        Self { text, thinking, limit, tokens, thoughts, about: true, ..Self::default() }
    }

    /// Stop strings that hold across the seam.
    pub(super) fn stopped_by(mut self, begun: &Begun, stops: &[String]) -> Self {
        self.stops = finishes(begun.text(), stops);
        self
    }

    /// Takes what was found out before the server was asked.
    pub fn learn(&mut self, learned: Learned) {
        if let Some(tokens) = learned.tokens {
            (self.tokens, self.about) = (tokens, false);
        }
        self.closing = learned.closing.map(Closing::new);
    }

    /// How many tokens the caller wants of all of it at most.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Gives what is new of an event.
    pub fn turn(&mut self, event: Event, give: &mut dyn FnMut(Event)) -> Result<(), Misfit> {
        self.came |= matches!(event, Event::Text(_) | Event::Thinking(_));
        if self.over {
            if let Event::Usage(usage) = event {
                give(Event::Usage(self.count(usage)));
            }
            return Ok(());
        }
        let is_mute = self.is_mute();
        match event {
            Event::Text(_) | Event::Thinking(_) if is_mute => {}
            Event::Text(text) => {
                let Some(closing) = &mut self.closing else { return self.text(&text, give) };
                let (thinking, text) = closing.part(&text);
                self.think(&thinking, give)?;
                if !text.is_empty() {
                    self.text(&text, give)?;
                }
            }
            Event::Thinking(text) => self.think(&text, give)?,
            Event::Signature(_) if self.thinking != Thoughts::default() => {}
            Event::Usage(usage) => give(Event::Usage(self.count(usage))),
            Event::Finished { .. } if is_mute => {
                give(Event::Finished { reason: Reason::Length, stop: None });
            }
            Event::Finished { reason, stop } => {
                self.settle(give)?;
                if self.over {
                    return Ok(());
                }
                let stopped = reason == Reason::Stop && self.is_in_a_stop();
                if !self.text.is_over() && !stopped {
                    return Err(Misfit);
                }
                self.release(give);
                give(Event::Finished { reason, stop });
            }
            other => {
                self.settle(give)?;
                // What is said must have been said before anything else is done.
                if !self.text.is_over() {
                    return Err(Misfit);
                }
                self.release(give);
                give(other);
            }
        }
        Ok(())
    }

    /// Whether the answer has come to its end although the server goes on.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The counts of the whole answer, as far as they are known.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether these counts are an estimate: what was told was not counted by a tokenizer.
    pub fn is_about(&self) -> bool {
        self.about
    }

    /// Whether all was said but the end, so that whatever comes with that is thrown away.
    fn is_mute(&self) -> bool {
        self.limit.is_some_and(|it| it <= self.tokens)
    }

    fn think(&mut self, more: &str, give: &mut dyn FnMut(Event)) -> Result<(), Misfit> {
        let new = match &mut self.thinking {
            Thoughts::Again(stretch) => match stretch.take(more) {
                Ok(new) => new,
                Err(Misfit) => {
                    self.thinking = Thoughts::Not;
                    return Ok(());
                }
            },
            Thoughts::On(stretch) => stretch.take(more)?,
            Thoughts::Not => return Ok(()),
        };
        if !new.is_empty() {
            give(Event::Thinking(new));
        }
        Ok(())
    }

    /// The thinking is over.
    fn end_thinking(&mut self, give: &mut dyn FnMut(Event)) -> Result<(), Misfit> {
        if let Some(closing) = &mut self.closing {
            let rest = closing.rest();
            self.think(&rest, give)?;
        }
        match &mut self.thinking {
            Thoughts::Again(stretch) if *stretch == Stretch::default() => {}
            Thoughts::Again(_) | Thoughts::Not => self.thinking = Thoughts::Not,
            Thoughts::On(stretch) => {
                let new = stretch.settle()?;
                if !stretch.is_over() {
                    return Err(Misfit);
                }
                self.thinking = Thoughts::default();
                if !new.is_empty() {
                    give(Event::Thinking(new));
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, more: &str, give: &mut dyn FnMut(Event)) -> Result<(), Misfit> {
        if more.is_empty() {
            return Ok(());
        }
        self.end_thinking(give)?;
        let new = self.text.take(more)?;
        self.say(new, give);
        Ok(())
    }

    /// Says what is new, unless it may finish a stop string.
    fn say(&mut self, new: String, give: &mut dyn FnMut(Event)) {
        if new.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.held) + &new;
        if let Some((_, stop)) = self.stops.iter().find(|(rest, _)| text.starts_with(rest)) {
            self.over = true;
            return give(Event::Finished { reason: Reason::Stop, stop: Some(stop.clone()) });
        }
        self.stops.retain(|(rest, _)| rest.starts_with(&text));
        if self.stops.is_empty() {
            give(Event::Text(text));
        } else {
            self.held = text;
        }
    }

    /// Whether what is still to be said again is the beginning of a stop string, which a server
    /// that says it keeps to itself.
    fn is_in_a_stop(&self) -> bool {
        let said = self.text.rest();
        self.stops.iter().any(|(rest, stop)| {
            let begun = &stop[..stop.len() - rest.len()];
            begun.ends_with(said) || said.ends_with(begun)
        })
    }

    /// What came was no repetition of all that was told.
    fn settle(&mut self, give: &mut dyn FnMut(Event)) -> Result<(), Misfit> {
        self.end_thinking(give)?;
        let new = self.text.settle()?;
        self.say(new, give);
        Ok(())
    }

    fn release(&mut self, give: &mut dyn FnMut(Event)) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            give(Event::Text(held));
        }
        self.stops.clear();
    }

    /// What the server was told is not its prompt but the answer's beginning.
    fn count(&mut self, usage: Usage) -> Usage {
        // Ollama leaves out a count of nothing.
        let answer = usage.output_tokens.or((!self.came && usage.input_tokens.is_some()).then_some(0));
        let is_mute = self.is_mute();
        let answer = answer.map(|it| if is_mute { self.tokens } else { it + self.tokens });
        self.usage = Usage {
            input_tokens: usage.input_tokens.map(|it| it.saturating_sub(self.tokens)),
            output_tokens: answer,
            cached_tokens: usage.cached_tokens,
            // Who does not tell thoughts from words leaves them uncounted, however many were told.
            reasoning_tokens: usage.reasoning_tokens.map(|it| it + self.thoughts),
            written_tokens: usage.written_tokens,
        };
        self.usage
    }
}

/// What would finish each stop string that the text ends in the middle of.
fn finishes(text: &str, stops: &[String]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for stop in stops {
        for (at, _) in stop.char_indices().skip(1) {
            let (begun, rest) = stop.split_at(at);
            if text.ends_with(begun) {
                all.push((rest.to_owned(), stop.clone()));
            }
        }
    }
    all
}

#[cfg(test)]
#[path = "seam_tests.rs"]
mod tests;
