//! Between a server that goes on with an answer and the caller who has its beginning: lets
//! pass only what is new.

use super::{
    Repeats,
    same::{Same, repeats_itself},
};
use crate::generate::{Begun, Event, Reason, Usage};

/// The server said something else than what the caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit;

/// What is still to be taken off the beginning of what a server says.
#[derive(Clone, Debug, Default)]
pub struct Seam {
    /// What it was told, in case that it says all of it again.
    echo: String,
    /// What it must say again.
    exact: Same,
    /// Blanks that it will say again if its template cut them off.
    blanks: String,
    /// What would finish a stop string that began before the seam, with that string.
    stops: Vec<(String, String)>,
    /// What came and may be either.
    held: String,
    thinking: Shown,
    mute: bool,
    /// Whether anything came.
    came: bool,
    over: bool,
    /// What it was told, in tokens, thoughts among them.
    tokens: u64,
    thoughts: u64,
    usage: Usage,
}

/// What becomes of thinking.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    /// It passes, once this was thought again.
    After(Same),
    /// None of it: the caller has seen other thoughts, or text after them.
    Not,
}

impl Default for Shown {
    fn default() -> Self {
        Self::After(Same::default())
    }
}

impl Seam {
    /// For a server that is asked from the start: it says all of that again. What it thinks
    /// may differ from what the caller has seen, and then nothing more of it is shown.
    pub(super) fn again(begun: &Begun) -> Self {
        let thinking =
            if begun.text().is_empty() { Shown::After(Same::new(begun.thinking())) } else { Shown::Not };
        // Blanks at the end of an exact text are exact as well.
        Self { exact: Same::new(begun.text()), thinking, ..Self::default() }
    }

    /// For a server that is told so many bytes, and so many tokens.
    pub(super) fn after(begun: &Begun, told: usize, tokens: u64, repeats: Repeats, stops: &[String]) -> Self {
        let (told, rest) = begun.text().split_at(told);
        let word = rest.trim_end();
        let least = match repeats {
            Repeats::Hardly => 32,
            Repeats::Perhaps => 8,
        };
        Self {
            // A short text, and one that repeats itself, may well come once more.
            echo: if (least..LONGEST_ECHO).contains(&told.len()) && !repeats_itself(told) {
                told.to_owned()
            } else {
                String::new()
            },
            exact: Same::new(word),
            blanks: rest[word.len()..].to_owned(),
            stops: finishes(begun.text(), stops),
            thinking: Shown::Not,
            tokens,
            thoughts: begun.thoughts(),
            ..Self::default()
        }
    }

    /// Nothing more is said: only the counts and the end are wanted.
    pub(super) fn mute(mut self) -> Self {
        self.mute = true;
        self
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
        match event {
            Event::Text(_) | Event::Thinking(_) if self.mute => {}
            Event::Text(text) => {
                if self.thinking != Shown::default() {
                    self.thinking = Shown::Not;
                }
                self.text(text, give)?;
            }
            Event::Thinking(text) => self.think(text, give),
            Event::Signature(_) if self.thinking != Shown::default() => {}
            Event::Usage(usage) => give(Event::Usage(self.count(usage))),
            Event::Finished { .. } if self.mute => {
                give(Event::Finished { reason: Reason::Length, stop: None });
            }
            Event::Finished { reason, stop } => {
                self.settle(give)?;
                if self.over {
                    return Ok(());
                }
                let stopped = reason == Reason::Stop && self.is_in_a_stop();
                if !self.exact.is_over() && !stopped {
                    return Err(Misfit);
                }
                self.release(give);
                give(Event::Finished { reason, stop });
            }
            other => {
                self.settle(give)?;
                // What is said must have been said before anything else is done.
                if !self.exact.is_over() {
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

    fn think(&mut self, mut text: String, give: &mut dyn FnMut(Event)) {
        let Shown::After(same) = &mut self.thinking else { return };
        if !same.take(&mut text) {
            self.thinking = Shown::Not;
        } else if !text.is_empty() {
            give(Event::Thinking(text));
        }
    }

    fn text(&mut self, more: String, give: &mut dyn FnMut(Event)) -> Result<(), Misfit> {
        let mut text = std::mem::take(&mut self.held) + &more;
        if text.is_empty() {
            return Ok(());
        }
        if !self.echo.is_empty() {
            if text.len() < self.echo.len() && self.echo.starts_with(&text) {
                self.held = text;
                return Ok(());
            }
            if text.starts_with(&self.echo) {
                text.drain(..self.echo.len());
            }
            self.echo.clear();
        }
        if !self.exact.is_over() && !self.exact.take(&mut text) {
            return Err(Misfit);
        }
        if !self.blanks.is_empty() {
            let same = text.chars().zip(self.blanks.chars()).take_while(|(a, b)| a == b);
            let same: usize = same.map(|(it, _)| it.len_utf8()).sum();
            text.drain(..same);
            self.blanks.drain(..same);
            if !text.is_empty() {
                self.blanks.clear();
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        if let Some((_, stop)) = self.stops.iter().find(|(rest, _)| text.starts_with(rest)) {
            self.over = true;
            give(Event::Finished { reason: Reason::Stop, stop: Some(stop.clone()) });
            return Ok(());
        }
        self.stops.retain(|(rest, _)| rest.starts_with(&text));
        if self.stops.is_empty() {
            give(Event::Text(text));
        } else {
            self.held = text;
        }
        Ok(())
    }

    /// Whether what is still to be said again is the beginning of a stop string, which a server
    /// that says it keeps to itself.
    fn is_in_a_stop(&self) -> bool {
        self.stops.iter().any(|(rest, stop)| {
            let begun = &stop[..stop.len() - rest.len()];
            begun.ends_with(self.exact.rest()) || self.exact.rest().ends_with(begun)
        })
    }

    /// What came was no repetition of all that was told.
    fn settle(&mut self, give: &mut dyn FnMut(Event)) -> Result<(), Misfit> {
        if std::mem::take(&mut self.echo).is_empty() {
            return Ok(());
        }
        self.text(String::new(), give)
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
        let answer = answer.map(|it| if self.mute { self.tokens } else { it + self.tokens });
        self.usage = Usage {
            input_tokens: usage.input_tokens.map(|it| it.saturating_sub(self.tokens)),
            output_tokens: answer,
            cached_tokens: usage.cached_tokens,
            reasoning_tokens: match (usage.reasoning_tokens, self.thoughts) {
                (None, 0) => None,
                (told, thoughts) => Some(told.unwrap_or(0) + thoughts),
            },
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

/// A longer text is not looked for in what comes: all of it would have to be held.
const LONGEST_ECHO: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begun(text: &str) -> Begun {
        let mut begun = Begun::default();
        begun.say(text);
        begun
    }

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    fn stop() -> Event {
        Event::Finished { reason: Reason::Stop, stop: None }
    }

    /// What passes of these pieces, then `#` and the reason.
    fn sewn(seam: &mut Seam, pieces: &[&str]) -> Result<String, Misfit> {
        let mut out = String::new();
        for event in pieces.iter().map(|it| text(it)).chain([stop()]) {
            seam.turn(event, &mut |event| match event {
                Event::Text(text) => out.push_str(&text),
                Event::Finished { stop, .. } => out.push_str(&format!("#{}", stop.unwrap_or_default())),
                other => panic!("{other:?}"),
            })?;
        }
        Ok(out)
    }

    fn check(seam: Seam, pieces: &[&str], expected: &str) {
        assert_eq!(sewn(&mut seam.clone(), pieces), Ok(expected.to_owned()), "for {pieces:?}");
    }

    fn after(all: &str, told: usize, stops: &[&str]) -> Seam {
        let stops: Vec<String> = stops.iter().map(|it| (*it).to_owned()).collect();
        Seam::after(&begun(all), told, 1, Repeats::Perhaps, &stops)
    }

    #[test]
    fn what_is_new_passes_as_it_comes() {
        check(after("a b", 3, &[]), &[" c", " d"], " c d#");
        check(after("a b", 3, &[]), &[], "#");
        check(after("la la la la la la", 17, &[]), &[" la", " la la la la la"], " la la la la la la#");
    }

    #[test]
    fn what_is_said_again_is_taken_off() {
        let said = "One, two, three";
        check(after(said, said.len(), &[]), &["One, ", "two, three", ", four"], ", four#");
        check(after(said, said.len(), &[]), &["One, ", "too"], "One, too#");
        check(after(said, said.len(), &[]), &["One"], "One#");
        check(Seam::again(&begun(said)), &["One, ", "two, three, four"], ", four#");
        assert_eq!(sewn(&mut Seam::again(&begun(said)), &["One, ", "too"]), Err(Misfit));
        assert_eq!(sewn(&mut Seam::again(&begun(said)), &["One"]), Err(Misfit));
    }

    #[test]
    fn a_word_that_was_cut_is_said_again() {
        check(after("an unbel", 2, &[]), &[" un", "believ", "able"], "ievable#");
        assert_eq!(sewn(&mut after("an unbel", 2, &[]), &[" un", "couth"]), Err(Misfit));
    }

    #[test]
    fn blanks_at_the_end_are_not_doubled() {
        check(after("a \n", 1, &[]), &[" ", "\nb"], "b#");
        check(after("a \n", 1, &[]), &["b"], "b#");
        check(after("a ", 1, &[]), &["  b"], " b#");
        check(after("a b ", 1, &[]), &[" b", "c"], "c#");
    }

    #[test]
    fn a_stop_string_holds_across_the_seam() {
        check(after("a EN", 4, &["END"]), &["D of it"], "#END");
        check(after("a E", 3, &["END"]), &["N", "D of it"], "#END");
        check(after("a E", 3, &["END"]), &["N", "T"], "NT#");
        check(after("a E", 3, &["END"]), &["N"], "N#");
        check(after("aa", 2, &["aab", "ac"]), &["c"], "#ac");
        check(after("a EN", 1, &["END"]), &[" "], "#");
    }

    #[test]
    fn thoughts_that_were_shown_are_not_shown_again() {
        let mut begun = Begun::default();
        begun.think("hm, so");
        let check = |begun: &Begun, thoughts: &[&str], expected: &[&str]| {
            let (mut seam, mut shown) = (Seam::again(begun), Vec::new());
            let thoughts = thoughts.iter().map(|it| Event::Thinking((*it).to_owned()));
            for event in thoughts.chain([text("a")]) {
                seam.turn(event, &mut |it| {
                    if let Event::Thinking(text) = it {
                        shown.push(text);
                    }
                })
                .unwrap();
            }
            assert_eq!(shown, expected);
        };
        check(&begun, &["hm", ", so it", " is"], &[" it", " is"]);
        check(&begun, &["hm", "m, so", " it"], &[]);
        check(&begun, &["hm"], &[]);
        begun.say("a");
        check(&begun, &["hm, so", " it"], &[]);
    }

    #[test]
    fn counts_are_those_of_the_whole_answer() {
        let usage = Usage { input_tokens: Some(12), output_tokens: Some(3), ..Usage::default() };
        let mut seam = Seam::after(&begun("a"), 1, 4, Repeats::Hardly, &[]);
        seam.turn(Event::Usage(usage), &mut |_| {}).unwrap();
        assert_eq!((seam.usage().input_tokens, seam.usage().output_tokens), (Some(8), Some(7)));
        let mut mute = Seam::after(&begun("a"), 1, 4, Repeats::Hardly, &[]).mute();
        let mut out = Vec::new();
        for event in [text("x"), Event::Usage(usage), stop()] {
            mute.turn(event, &mut |it| out.push(it)).unwrap();
        }
        assert_eq!(mute.usage().output_tokens, Some(4));
        assert_eq!(out.last(), Some(&Event::Finished { reason: Reason::Length, stop: None }));
        let mut again = Seam::again(&begun("a"));
        again.turn(Event::Usage(usage), &mut |_| {}).unwrap();
        assert_eq!(again.usage(), usage);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_is_whole(
            words in prop::collection::vec("[a-cä]{1,3}|[ \n]{1,2}", 1..12),
            cut in 0_usize..200,
            pieces in prop::collection::vec(1_usize..4, 1..60),
            whole_words: bool,
            echoes: bool,
        ) {
            let whole = words.concat();
            let cut = (0..=cut.min(whole.len())).rev().find(|it| whole.is_char_boundary(*it)).unwrap();
            let told = super::super::told(&whole[..cut], whole_words);
            prop_assume!(told > 0);
            let seam = Seam::after(&begun(&whole[..cut]), told, 1, Repeats::Perhaps, &[]);
            let echoes = echoes && !seam.echo.is_empty();
            let mut rest = if echoes { whole.clone() } else { whole[told..].to_owned() };
            // Going on with what it began with is not to be told from saying it again.
            prop_assume!(echoes || seam.echo.is_empty() || !rest.starts_with(&seam.echo));
            let mut said = Vec::new();
            for size in pieces {
                let at = (size.min(rest.len())..=rest.len()).find(|it| rest.is_char_boundary(*it)).unwrap();
                said.push(rest.drain(..at).collect::<String>());
            }
            said.push(rest);
            let said: Vec<&str> = said.iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
            let new = sewn(&mut seam.clone(), &said).unwrap();
            prop_assert_eq!(format!("{}{}", &whole[..cut], new), format!("{whole}#"));
        }
    }
}
