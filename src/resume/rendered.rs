//! A conversation that a server renders as the text that the model sees, for that text to be
//! gone on with as it is.
//!
//! Where the answer has only text so far, that stands behind the conversation. How thinking is
//! laid out only the template knows: it renders the beginning as a turn of the model, and what
//! it closes the thinking with shows where the thinking will end.

use super::{Told, continued};
use crate::generate::{Begun, Complete, Meaning, Sampling};

/// What is to be rendered, and what becomes of it.
#[derive(Clone, PartialEq)]
pub struct Rendered {
    /// What is rendered.
    pub meaning: Meaning,
    thinking: String,
    text: String,
    complete: Complete,
}

impl Rendered {
    /// The conversation with so much of its answer. `None` if it is none.
    pub fn of(meaning: &Meaning, begun: &Begun, told: Told, max_tokens: Option<u64>) -> Option<Self> {
        let Meaning::Chat(chat) = meaning else { return None };
        let (thinking, text) = told.of(begun);
        let complete = Complete {
            sampling: Sampling { max_tokens, ..chat.sampling.clone() },
            keep_alive: chat.keep_alive.clone(),
            context: chat.context,
            extras: chat.extras.clone(),
            ..Complete::default()
        };
        let meaning = match thinking {
            "" => meaning.clone(),
            _ => continued(meaning, begun, told, max_tokens),
        };
        Some(Self { meaning, thinking: thinking.to_owned(), text: text.to_owned(), complete })
    }

    /// The text to go on with, and what closes its thinking, given the rendering. `None` where
    /// the template leaves the thinking out, or closes it in a way that is not known.
    pub fn as_text(self, rendering: &str) -> Option<(Meaning, Option<String>)> {
        let (prompt, closing) = cut(rendering, &self.thinking, &self.text)?;
        Some((Meaning::Complete(Complete { prompt, ..self.complete }), closing))
    }
}

fn cut(rendering: &str, thinking: &str, text: &str) -> Option<(String, Option<String>)> {
    // Templates cut blanks off both.
    let (thinking, inner) = (thinking.trim(), text.trim_start());
    if thinking.is_empty() {
        return Some((format!("{rendering}{text}"), None));
    }
    let end = rendering.rfind(thinking)? + thinking.len();
    if text.is_empty() {
        return Some((rendering[..end].to_owned(), Some(closing(&rendering[end..])?)));
    }
    let end = end + rendering[end..].find(inner)? + inner.len();
    Some((rendering[..end].to_owned(), None))
}

/// The tag that comes next.
fn closing(rest: &str) -> Option<String> {
    let rest = rest.trim_start();
    let tag = &rest[..=rest.find('>')?];
    (tag.starts_with("</") && !tag.contains(char::is_whitespace)).then(|| tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Chat, Part, Role, Turn};

    #[test]
    fn thinking_is_told_as_the_template_lays_it_out() {
        let check = |rendering: &str, thinking: &str, text: &str, expected: Option<(&str, Option<&str>)>| {
            let expected = expected.map(|(prompt, tag)| (prompt.to_owned(), tag.map(str::to_owned)));
            assert_eq!(cut(rendering, thinking, text), expected, "{rendering:?}");
        };
        check("U: hi A: ", "", " one", Some(("U: hi A:  one", None)));
        check(
            "U: hi A: <think>\nhm\n</think>\n\n<end>",
            "hm\n",
            "",
            Some(("U: hi A: <think>\nhm", Some("</think>"))),
        );
        check("hm A: <t>hm</t>one two<end>", "hm", " one", Some(("hm A: <t>hm</t>one", None)));
        // The template leaves it out, or ends it otherwise.
        check("U: hi A: <end>", "hm", "", None);
        check("A: <|channel|>analysis hm<|end|>", "hm", "", None);
        check("A: hm </ no>", "hm", "", None);
    }

    #[test]
    fn the_beginning_is_rendered_as_a_turn_only_where_there_is_thinking() {
        let turns = vec![Turn::text(Role::User, "hi")];
        let chat = Meaning::Chat(Chat { turns, ..Chat::default() });
        let mut begun = Begun::default();
        begun.say("one");
        assert_eq!(Rendered::of(&chat, &begun, Told::Text(3), None).unwrap().meaning, chat);
        let mut begun = Begun::default();
        begun.think("hm");
        let rendered = Rendered::of(&chat, &begun, Told::Thinking(2), Some(5)).unwrap();
        let Meaning::Chat(it) = &rendered.meaning else { panic!() };
        let thought = Part::Thinking { text: "hm".to_owned(), signature: None };
        assert_eq!(it.turns[1].parts, [thought]);
        let (Meaning::Complete(asked), closing) = rendered.as_text("<think>hm</think>").unwrap() else {
            panic!()
        };
        assert_eq!((asked.prompt.as_str(), asked.sampling.max_tokens), ("<think>hm", Some(5)));
        assert_eq!(closing.as_deref(), Some("</think>"));
    }
}
