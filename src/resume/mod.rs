//! May a broken answer be continued, and how are the two halves sewn together.
//!
//! `Terms` says what a request asks of every half; `plan` what the next server is told of the
//! half that the caller has; `Seam` stands between that server and the caller, and lets pass
//! only what is new. Which server is next is not known here, nor how it is asked.
//!
//! The caller's text is never guessed at: a server that is to say again what the caller has
//! must say exactly that, and is left when it says something else. Three things are left to
//! the next server to say again although it could be told them: blanks at the end, which
//! templates cut off; the last word where the model says the same every time anyway, since a
//! word that is cut in two is put together of other tokens; and everything, where a server
//! cannot go on with what another one said.

mod same;
mod seam;

pub use self::seam::{Misfit, Seam};
use crate::{
    generate::{Begun, Complete, Effort, Format, Meaning, Part, Role, Sampling, Turn},
    kind::Continuation,
};

/// What a request asks of an answer, as far as it matters to whoever goes on with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most tokens of all of it.
    pub max_tokens: Option<u64>,
    /// What ends it.
    pub stop: Vec<String>,
    /// Whether the likeliest token is always taken.
    pub greedy: bool,
    /// Whether its conversation is only words, so that a text of it says all of it.
    pub only_words: bool,
}

impl Terms {
    /// Those of a request whose answer can be gone on with at all. An answer in a given form
    /// cannot: the next server's grammar would begin at its beginning.
    pub fn of(meaning: &Meaning) -> Option<Self> {
        let (format, logprobs, choices, sampling, only_words) = match meaning {
            Meaning::Chat(it) => {
                let parts = it.turns.iter().flat_map(|it| &it.parts);
                let only_words =
                    it.tools.is_empty() && !parts.into_iter().any(|it| matches!(it, Part::Image(_)));
                (&it.format, it.logprobs, it.choices, &it.sampling, only_words)
            }
            Meaning::Complete(it) if it.echo => return None,
            Meaning::Complete(it) => (&it.format, it.logprobs, it.choices, &it.sampling, true),
            Meaning::Embed(_) => return None,
        };
        let plain = *format == Format::Text && logprobs.is_none() && choices.is_none_or(|it| it == 1);
        plain.then(|| Self {
            max_tokens: sampling.max_tokens,
            stop: sampling.stop.clone(),
            greedy: sampling.temperature == Some(0.0),
            only_words,
        })
    }
}

/// How the next server is asked.
#[derive(Debug)]
pub struct Plan {
    /// How many bytes of the text it is told; `None` asks it from the start.
    pub told: Option<usize>,
    /// How many tokens are left of the limit.
    pub max_tokens: Option<u64>,
    /// What lets pass only what is new.
    pub seam: Seam,
}

/// How careful a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// The last word is said again where it will be the same.
    WholeWords,
    /// Everything is told but blanks: the word came out differently.
    AsItIs,
    /// It is asked from the start: the server would not render the conversation.
    FromTheStart,
}

/// How a server that continues answers so is asked. `None` if it cannot go on with this one.
/// `terms` are `None` where an answer cannot be gone on with once something was said.
pub fn plan(begun: &Begun, terms: Option<&Terms>, continuation: Continuation, care: Care) -> Option<Plan> {
    if begun.is_empty() {
        // Nothing that anybody has seen: it is asked as if for the first time.
        let max_tokens = terms.and_then(|it| it.max_tokens);
        return Some(Plan { told: None, max_tokens, seam: Seam::again(begun) });
    }
    let terms = terms.filter(|_| !begun.is_beyond())?;
    let again = || Plan { told: None, max_tokens: terms.max_tokens, seam: Seam::again(begun) };
    let (may_repeat, goes_on) = match continuation {
        Continuation::Flags | Continuation::Prompt => (Repeats::Hardly, true),
        Continuation::LastTurn => (Repeats::Perhaps, true),
        // How a template lays out thoughts, calls and images is known to nobody else.
        Continuation::Rendered => (Repeats::Hardly, terms.only_words && begun.thinking().is_empty()),
        Continuation::None => (Repeats::Hardly, false),
    };
    let told = told(begun.text(), terms.greedy && care == Care::WholeWords);
    if !goes_on || care == Care::FromTheStart || begun.text()[..told].is_empty() {
        return Some(again());
    }
    let tokens = begun.tokens(told);
    let left = terms.max_tokens.map(|it| it.saturating_sub(tokens));
    let seam = Seam::after(begun, told, tokens, may_repeat, &terms.stop);
    Some(match left {
        // All were said, only their end was lost: it is asked for, and what it says with it
        // is thrown away.
        Some(0) => Plan { told: Some(told), max_tokens: Some(1), seam: seam.mute() },
        _ => Plan { told: Some(told), max_tokens: left, seam },
    })
}

/// Whether a server may say again what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// Only one that does not know its flags.
    Hardly,
    /// Some do.
    Perhaps,
}

/// The longest word that is said again.
const WORD: usize = 48;

/// How much of the text is told: all but the blanks at its end, and perhaps the last word.
fn told(text: &str, without_word: bool) -> usize {
    let trimmed = text.trim_end();
    if !without_word {
        return trimmed.len();
    }
    let word = trimmed.rfind(char::is_whitespace).unwrap_or(0);
    if trimmed.len() - word > WORD {
        return trimmed.len();
    }
    trimmed[..word].trim_end().len()
}

/// A conversation that was rendered as a text to be gone on with.
pub fn rendered(meaning: &Meaning, max_tokens: Option<u64>) -> Option<Complete> {
    let Meaning::Chat(chat) = meaning else { return None };
    Some(Complete {
        sampling: Sampling { max_tokens, ..chat.sampling.clone() },
        keep_alive: chat.keep_alive.clone(),
        context: chat.context,
        extras: chat.extras.clone(),
        ..Complete::default()
    })
}

/// The request with the beginning of its answer as the last that was said.
pub fn continued(meaning: &Meaning, text: &str, thinking: &str, max_tokens: Option<u64>) -> Meaning {
    let mut meaning = meaning.clone();
    let limit = |sampling: &mut Sampling| sampling.max_tokens = max_tokens;
    match &mut meaning {
        Meaning::Chat(chat) => {
            limit(&mut chat.sampling);
            if !thinking.is_empty() {
                chat.effort = Some(Effort::Off);
            }
            let own = chat.turns.last_mut().filter(|it| it.role == Role::Assistant);
            match own.and_then(|it| it.parts.last_mut()) {
                // The caller had written the beginning of the answer itself.
                Some(Part::Text(own)) => own.push_str(text),
                _ => {
                    let thought = Part::Thinking { text: thinking.to_owned(), signature: None };
                    let parts = Some(thought).filter(|_| !thinking.is_empty()).into_iter();
                    let parts = parts.chain([Part::Text(text.to_owned())]).collect();
                    chat.turns.push(Turn { role: Role::Assistant, name: None, parts });
                }
            }
        }
        Meaning::Complete(complete) => {
            limit(&mut complete.sampling);
            complete.prompt.push_str(text);
        }
        Meaning::Embed(_) => {}
    }
    meaning
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Chat;

    fn begun(pieces: &[&str]) -> Begun {
        let mut begun = Begun::default();
        pieces.iter().for_each(|it| begun.say(it));
        begun
    }

    fn terms(max_tokens: Option<u64>, greedy: bool) -> Terms {
        Terms { max_tokens, stop: Vec::new(), greedy, only_words: true }
    }

    #[test]
    fn what_is_told_ends_with_a_letter_and_with_a_whole_word_where_that_costs_nothing() {
        for (text, as_it_is, whole_words) in [
            ("a b", "a b", "a"),
            ("a b \n", "a b", "a"),
            ("a\n\n", "a", ""),
            ("ab", "ab", ""),
            ("  ", "", ""),
            ("ä ö", "ä ö", "ä"),
        ] {
            assert_eq!(&text[..told(text, false)], as_it_is, "{text:?}");
            assert_eq!(&text[..told(text, true)], whole_words, "{text:?}");
        }
        let long = format!("a {}", "x".repeat(WORD + 1));
        assert_eq!(told(&long, true), long.len());
    }

    #[test]
    fn the_limit_is_what_is_left_of_it() {
        let begun = begun(&["a", " b", " c"]);
        let check = |limit, greedy, expected| {
            let plan =
                plan(&begun, Some(&terms(limit, greedy)), Continuation::Flags, Care::WholeWords).unwrap();
            assert_eq!((plan.told, plan.max_tokens), expected);
        };
        check(None, false, (Some(5), None));
        check(Some(8), false, (Some(5), Some(5)));
        check(Some(8), true, (Some(3), Some(6)));
        check(Some(3), false, (Some(5), Some(1)));
        let again = plan(&begun, Some(&terms(Some(8), false)), Continuation::None, Care::WholeWords).unwrap();
        assert_eq!((again.told, again.max_tokens), (None, Some(8)));
    }

    #[test]
    fn only_plain_text_is_gone_on_with() {
        let chat = |edit: fn(&mut Chat)| {
            let mut chat = Chat::default();
            edit(&mut chat);
            Terms::of(&Meaning::Chat(chat)).is_some()
        };
        assert!(chat(|_| {}));
        assert!(!chat(|it| it.format = Format::Json));
        assert!(!chat(|it| it.logprobs = Some(0)));
        assert!(!chat(|it| it.choices = Some(2)));
        assert!(Terms::of(&Meaning::Complete(Complete::default())).is_some());
        assert!(Terms::of(&Meaning::Complete(Complete { echo: true, ..Complete::default() })).is_none());
        let mut called = begun(&["a"]);
        called.go_beyond();
        assert!(plan(&called, Some(&terms(None, false)), Continuation::Flags, Care::AsItIs).is_none());
        assert!(plan(&begun(&["a"]), None, Continuation::Flags, Care::AsItIs).is_none());
        assert!(plan(&begun(&[]), None, Continuation::None, Care::AsItIs).is_some(), "nobody saw anything");
    }

    #[test]
    fn the_beginning_is_the_last_turn_or_the_end_of_the_prompt() {
        let hi = Turn::text(Role::User, "hi");
        let chat = Meaning::Chat(Chat { turns: vec![hi.clone()], ..Chat::default() });
        let Meaning::Chat(it) = continued(&chat, "a b", "", Some(5)) else { panic!() };
        assert_eq!(it.turns, [hi.clone(), Turn::text(Role::Assistant, "a b")]);
        assert_eq!((it.sampling.max_tokens, it.effort), (Some(5), None));
        let Meaning::Chat(it) = continued(&chat, "a b", "hm", None) else { panic!() };
        assert_eq!((it.turns[1].parts.len(), it.effort), (2, Some(Effort::Off)));
        let turns = vec![hi, Turn::text(Role::Assistant, "{")];
        let chat = Meaning::Chat(Chat { turns, ..Chat::default() });
        let Meaning::Chat(it) = continued(&chat, "a", "", None) else { panic!() };
        assert_eq!(it.turns[1], Turn::text(Role::Assistant, "{a"));
        let text = Meaning::Complete(Complete { prompt: "x".to_owned(), ..Complete::default() });
        let Meaning::Complete(it) = continued(&text, " y", "", None) else { panic!() };
        assert_eq!(it.prompt, "x y");
    }
}
