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
//!
//! An answer that was cut in its thinking goes on in there where the kind can. Else the model
//! thinks once more, and of that nothing is shown that differs from what the caller has seen.

mod closing;
mod rendered;
mod same;
mod seam;
mod stretch;

pub use self::{
    rendered::Rendered,
    seam::{Learned, Misfit, Seam},
};
use crate::{
    generate::{Begun, Format, Meaning, Part, Role, Sampling, Turn},
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
    /// Whether the caller had written the beginning of the answer itself.
    pub is_begun: bool,
}

impl Terms {
    /// Those of a request whose answer can be gone on with at all. An answer in a given form
    /// cannot: the next server's grammar would begin at its beginning.
    pub fn of(meaning: &Meaning) -> Option<Self> {
        let is_begun = match meaning {
            Meaning::Chat(it) => it.turns.last().is_some_and(|it| it.role == Role::Assistant),
            Meaning::Complete(_) | Meaning::Embed(_) => true,
        };
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
            is_begun,
        })
    }
}

/// How much of an answer a server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: it is asked from the start.
    Nothing,
    /// So many bytes of the thinking, in which it goes on.
    Thinking(usize),
    /// All thinking, and so many bytes of the text.
    Text(usize),
}

impl Told {
    /// The thinking and the text that are told.
    pub fn of(self, begun: &Begun) -> (&str, &str) {
        match self {
            Self::Nothing => ("", ""),
            Self::Thinking(bytes) => (&begun.thinking()[..bytes], ""),
            Self::Text(bytes) => (begun.thinking(), &begun.text()[..bytes]),
        }
    }

    /// About how many tokens that is, and how many of them are thoughts.
    fn about(self, begun: &Begun) -> (u64, u64) {
        let all = begun.thoughts(begun.thinking().len());
        match self {
            Self::Nothing => (0, 0),
            Self::Thinking(bytes) => (begun.thoughts(bytes), begun.thoughts(bytes)),
            Self::Text(bytes) => (begun.tokens(bytes), all),
        }
    }
}

/// How the next server is asked.
#[derive(Debug)]
pub struct Plan {
    /// What it is told.
    pub told: Told,
    /// How many tokens are left of the limit, about.
    pub max_tokens: Option<u64>,
    /// What lets pass only what is new.
    pub seam: Seam,
}

/// How many tokens are left. One at the least: where all were said and only the end was lost,
/// that is asked for.
pub fn left(limit: u64, tokens: u64) -> u64 {
    limit.saturating_sub(tokens).max(1)
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
    let again = |max_tokens| Plan { told: Told::Nothing, max_tokens, seam: Seam::again(begun) };
    if begun.is_empty() {
        // Nothing that anybody has seen: it is asked as if for the first time.
        return Some(again(terms.and_then(|it| it.max_tokens)));
    }
    let terms = terms.filter(|_| !begun.is_beyond())?;
    let told = match care {
        Care::FromTheStart => Told::Nothing,
        Care::WholeWords => told(begun, terms, continuation, terms.greedy),
        Care::AsItIs => told(begun, terms, continuation, false),
    };
    if told == Told::Nothing {
        return Some(again(terms.max_tokens));
    }
    let repeats = if continuation == Continuation::LastTurn { Repeats::Perhaps } else { Repeats::Hardly };
    let max_tokens = terms.max_tokens.map(|it| left(it, told.about(begun).0));
    let seam = Seam::after(begun, told, repeats, terms.max_tokens).stopped_by(begun, &terms.stop);
    Some(Plan { told, max_tokens, seam })
}

/// What a server is told that continues answers so.
fn told(begun: &Begun, terms: &Terms, continuation: Continuation, without_word: bool) -> Told {
    let (text, thinks_on) = match continuation {
        Continuation::Flags | Continuation::Prompt | Continuation::LastTurn => (true, false),
        Continuation::Parts => (true, true),
        // How a template lays out calls and images is known to nobody else.
        Continuation::Rendered => (terms.only_words, terms.only_words),
        Continuation::None => (false, false),
    };
    let (said, thought) = (begun.text(), begun.thinking());
    let told = words(said, without_word);
    if text && told > 0 {
        return Told::Text(told);
    }
    // Where the text has begun the thinking is whole, and needs to be told as it is.
    let told = if said.is_empty() { words(thought, without_word) } else { thought.len() };
    if thinks_on && !terms.is_begun && told > 0 { Told::Thinking(told) } else { Told::Nothing }
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

/// How much of a text is told: all but the blanks at its end, and perhaps the last word;
/// nothing if that has only blanks.
fn words(text: &str, without_word: bool) -> usize {
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

/// The request with the beginning of its answer as the last that was said.
pub fn continued(meaning: &Meaning, begun: &Begun, told: Told, max_tokens: Option<u64>) -> Meaning {
    let (thinking, text) = told.of(begun);
    let mut meaning = meaning.clone();
    let limit = |sampling: &mut Sampling| sampling.max_tokens = max_tokens;
    match &mut meaning {
        Meaning::Chat(chat) => {
            limit(&mut chat.sampling);
            let own = chat.turns.last_mut().filter(|it| it.role == Role::Assistant);
            match own.and_then(|it| it.parts.last_mut()) {
                // The caller had written the beginning of the answer itself.
                Some(Part::Text(own)) => own.push_str(text),
                _ => {
                    let thought = Part::Thinking { text: thinking.to_owned(), signature: None };
                    let thought = Some(thought).filter(|_| !thinking.is_empty());
                    let said = Some(Part::Text(text.to_owned())).filter(|_| !text.is_empty());
                    let parts = thought.into_iter().chain(said).collect();
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
    use crate::generate::{Chat, Complete};

    fn begun(pieces: &[&str]) -> Begun {
        let mut begun = Begun::default();
        pieces.iter().for_each(|it| begun.say(it));
        begun
    }

    fn terms(max_tokens: Option<u64>, greedy: bool) -> Terms {
        Terms { max_tokens, stop: Vec::new(), greedy, only_words: true, is_begun: false }
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
            assert_eq!(&text[..words(text, false)], as_it_is, "{text:?}");
            assert_eq!(&text[..words(text, true)], whole_words, "{text:?}");
        }
        let long = format!("a {}", "x".repeat(WORD + 1));
        assert_eq!(words(&long, true), long.len());
    }

    #[test]
    fn the_limit_is_what_is_left_of_it() {
        let begun = begun(&["a", " b", " c"]);
        let check = |limit, greedy, expected| {
            let plan =
                plan(&begun, Some(&terms(limit, greedy)), Continuation::Flags, Care::WholeWords).unwrap();
            assert_eq!((plan.told, plan.max_tokens), expected);
        };
        check(None, false, (Told::Text(5), None));
        check(Some(8), false, (Told::Text(5), Some(5)));
        check(Some(8), true, (Told::Text(3), Some(6)));
        check(Some(3), false, (Told::Text(5), Some(1)));
        let again = plan(&begun, Some(&terms(Some(8), false)), Continuation::None, Care::WholeWords).unwrap();
        assert_eq!((again.told, again.max_tokens), (Told::Nothing, Some(8)));
    }

    #[test]
    fn an_answer_that_was_cut_in_its_thinking_goes_on_in_there_where_the_kind_can() {
        let check = |thinking: &str, text: &str, greedy, expected: [Told; 3]| {
            let mut begun = Begun::default();
            begun.think(thinking);
            if !text.is_empty() {
                begun.say(text);
            }
            let kinds = [Continuation::Parts, Continuation::Rendered, Continuation::Flags];
            let told =
                kinds.map(|it| plan(&begun, Some(&terms(None, greedy)), it, Care::WholeWords).unwrap().told);
            assert_eq!(told, expected, "{thinking:?} {text:?}");
        };
        let both = |told| [told, told, Told::Nothing];
        check("a bc ", "", false, both(Told::Thinking(4)));
        check("a bc ", "", true, both(Told::Thinking(1)));
        check("a", "", true, both(Told::Nothing));
        check("a bc\n", "\n", false, both(Told::Thinking(5)));
        check("a bc\n", "d", true, both(Told::Thinking(5)));
        check("a", "b c", true, [Told::Text(1); 3]);
        let mut begun = Begun::default();
        begun.think("a b");
        let own = Terms { is_begun: true, ..terms(None, false) };
        let told = plan(&begun, Some(&own), Continuation::Parts, Care::AsItIs).unwrap().told;
        assert_eq!(told, Told::Nothing);
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
        let both = |thinking: &str, text: &str| {
            let mut begun = begun(&[text]);
            if !thinking.is_empty() {
                begun = Begun::default();
                begun.think(thinking);
                begun.say(text);
            }
            begun
        };
        let told = |meaning: &Meaning, thinking: &str, text: &str, left| {
            continued(meaning, &both(thinking, text), Told::Text(text.len()), left)
        };
        let Meaning::Chat(it) = told(&chat, "", "a b", Some(5)) else { panic!() };
        assert_eq!(it.turns, [hi.clone(), Turn::text(Role::Assistant, "a b")]);
        assert_eq!(it.sampling.max_tokens, Some(5));
        let Meaning::Chat(it) = told(&chat, "hm", "a b", None) else { panic!() };
        assert_eq!(it.turns[1].parts.len(), 2);
        let inside = continued(&chat, &both("hm, so", ""), Told::Thinking(3), None);
        let Meaning::Chat(it) = inside else { panic!() };
        let thought = Part::Thinking { text: "hm,".to_owned(), signature: None };
        assert_eq!(it.turns[1].parts, [thought]);
        let turns = vec![hi, Turn::text(Role::Assistant, "{")];
        let chat = Meaning::Chat(Chat { turns, ..Chat::default() });
        let Meaning::Chat(it) = told(&chat, "", "a", None) else { panic!() };
        assert_eq!(it.turns[1], Turn::text(Role::Assistant, "{a"));
        let text = Meaning::Complete(Complete { prompt: "x".to_owned(), ..Complete::default() });
        let Meaning::Complete(it) = told(&text, "", " y", None) else { panic!() };
        assert_eq!(it.prompt, "x y");
    }
}
