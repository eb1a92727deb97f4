//! Between a server that goes on with an answer and the caller who has its beginning: lets
//! pass only what is new.

use super::{Repeats, Told, closing::Closing, strand::Strand};
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
    text: Strand,
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
    Again(Strand),
    /// It goes on where it was cut, and must fit.
    On(Strand),
    /// None of it: the caller has seen other thoughts, or text after them.
    Not,
}

impl Default for Thoughts {
    fn default() -> Self {
        Self::Again(Strand::default())
    }
}

impl Seam {
    /// For a server that is asked from the start: it says all of that again. What it thinks
    /// may differ from what the caller has seen, and then nothing more of it is shown.
    pub(super) fn again(begun: &Begun) -> Self {
        let thinking = match begun.text().is_empty() {
            true => Thoughts::Again(Strand::again(begun.thinking())),
            false => Thoughts::Not,
        };
        Self { text: Strand::again(begun.text()), thinking, ..Self::default() }
    }

    /// For a server that is told so much of it.
    pub(super) fn after(begun: &Begun, told: Told, repeats: Repeats, limit: Option<u64>) -> Self {
        let (text, thinking) = match told {
            Told::Nothing => return Self::again(begun),
            Told::Thinking(told) if begun.text().is_empty() => {
                (Strand::default(), Thoughts::On(Strand::after(begun.thinking(), told, repeats)))
            }
            Told::Thinking(_) => (Strand::after(begun.text(), 0, repeats), Thoughts::Not),
            Told::Text(told) => (Strand::after(begun.text(), told, repeats), Thoughts::Not),
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
            Thoughts::Again(strand) => match strand.take(more) {
                Ok(new) => new,
                Err(Misfit) => {
                    self.thinking = Thoughts::Not;
                    return Ok(());
                }
            },
            Thoughts::On(strand) => strand.take(more)?,
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
            Thoughts::Again(strand) if *strand == Strand::default() => {}
            Thoughts::Again(_) | Thoughts::Not => self.thinking = Thoughts::Not,
            Thoughts::On(strand) => {
                let new = strand.settle()?;
                if !strand.is_over() {
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
            reasoning_tokens: match (usage.reasoning_tokens, self.thoughts) {
                (None, 0) => None,
                (told, thoughts) => Some(told.unwrap_or(0) + thoughts),
            },
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
        let begun = begun(all);
        Seam::after(&begun, Told::Text(told), Repeats::Perhaps, None).stopped_by(&begun, &stops)
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

    /// What is shown of thoughts and text that follow on these thoughts.
    fn shown(told: Told, events: &[Event]) -> Result<(String, String), Misfit> {
        let mut begun = Begun::default();
        begun.think("hm, so it");
        let mut seam = Seam::after(&begun, told, Repeats::Hardly, None);
        let (mut thoughts, mut said) = (String::new(), String::new());
        for event in events.iter().cloned().chain([stop()]) {
            seam.turn(event, &mut |it| match it {
                Event::Thinking(text) => thoughts += &text,
                Event::Text(text) => said += &text,
                _ => {}
            })?;
        }
        Ok((thoughts, said))
    }

    #[test]
    fn thinking_goes_on_where_it_was_cut() {
        let thought = |text: &str| Event::Thinking(text.to_owned());
        let is = |told, events: &[Event], thoughts: &str, said: &str| {
            assert_eq!(shown(told, events), Ok((thoughts.to_owned(), said.to_owned())), "{events:?}");
        };
        let all = Told::Thinking(9);
        is(all, &[thought(" is"), text("a")], " is", "a");
        is(all, &[text("a")], "", "a");
        is(all, &[], "", "");
        // The last word is said again.
        is(Told::Thinking(6), &[thought(" i"), thought("t is"), text("a")], " is", "a");
        assert_eq!(shown(Told::Thinking(6), &[thought(" i"), text("a")]), Err(Misfit));
        assert_eq!(shown(Told::Thinking(6), &[thought(" no")]), Err(Misfit));
    }

    #[test]
    fn thinking_that_comes_as_text_is_shown_as_thinking() {
        let mut begun = Begun::default();
        begun.think("hm, so");
        let mut seam = Seam::after(&begun, Told::Thinking(3), Repeats::Hardly, None);
        seam.learn(Learned { tokens: None, closing: Some("</think>".to_owned()) });
        let mut out = Vec::new();
        for event in [text(" so it"), text(" is\n</th"), text("ink>\n\na"), text(" b"), stop()] {
            seam.turn(event, &mut |it| out.push(it)).unwrap();
        }
        let thought = |text: &str| Event::Thinking(text.to_owned());
        assert_eq!(out, [thought(" it"), thought(" is"), text("a"), text(" b"), stop()]);
    }

    #[test]
    fn counts_are_those_of_the_whole_answer() {
        let usage = Usage { input_tokens: Some(12), output_tokens: Some(3), ..Usage::default() };
        let counted = |limit| {
            let mut seam = Seam::after(&begun("a"), Told::Text(1), Repeats::Hardly, limit);
            assert!(seam.is_about());
            seam.learn(Learned { tokens: Some(4), closing: None });
            assert!(!seam.is_about());
            seam
        };
        let mut seam = counted(Some(5));
        seam.turn(Event::Usage(usage), &mut |_| {}).unwrap();
        assert_eq!((seam.usage().input_tokens, seam.usage().output_tokens), (Some(8), Some(7)));
        let mut mute = counted(Some(4));
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
            let told = super::super::words(&whole[..cut], whole_words);
            prop_assume!(told > 0);
            let seam = Seam::after(&begun(&whole[..cut]), Told::Text(told), Repeats::Perhaps, None);
            let echoes = echoes && !seam.text.echo().is_empty();
            let mut rest = if echoes { whole.clone() } else { whole[told..].to_owned() };
            // Going on with what it began with is not to be told from saying it again.
            let echo = seam.text.echo();
            prop_assume!(echoes || echo.is_empty() || !rest.starts_with(echo));
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
