//! Texts that are said again.

/// A text that is to be said again, and how far that has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Same {
    text: String,
    at: usize,
}

impl Same {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), at: 0 }
    }

    pub(super) fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    pub(super) fn is_over(&self) -> bool {
        self.at == self.text.len()
    }

    /// Takes off what is said again; what is new is left. False where it is something else.
    pub(super) fn take(&mut self, said: &mut String) -> bool {
        let rest = &self.text[self.at..];
        if rest.starts_with(said.as_str()) {
            self.at += said.len();
            said.clear();
        } else if said.starts_with(rest) {
            said.drain(..rest.len());
            self.at = self.text.len();
        } else {
            return false;
        }
        if self.is_over() {
            *self = Self::default();
        }
        true
    }
}

/// Whether a text is the same over and over, so that going on with it looks like saying it again:
/// whether more than half of it is both its beginning and its end.
pub(super) fn repeats_itself(text: &str) -> bool {
    let text = text.as_bytes();
    // How much of the beginning ends at each place.
    let mut borders = vec![0_usize; text.len()];
    for at in 1..text.len() {
        let mut border = borders[at - 1];
        while border > 0 && text[at] != text[border] {
            border = borders[border - 1];
        }
        borders[at] = border + usize::from(text[at] == text[border]);
    }
    borders.last().is_some_and(|border| 2 * border >= text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_taken_off_and_what_is_new_is_left() {
        let mut same = Same::new("one two");
        let mut take = |said: &str| {
            let mut said = said.to_owned();
            same.take(&mut said).then_some(said)
        };
        assert_eq!(take("one").as_deref(), Some(""));
        assert_eq!(take(" too"), None);
        assert_eq!(take(" two, three").as_deref(), Some(", three"));
        assert!(same.is_over());
    }

    #[test]
    fn a_text_that_repeats_itself_is_known() {
        for (text, expected) in [
            ("", false),
            ("a", false),
            ("ab", false),
            ("aa", true),
            ("abab", true),
            ("ababa", true),
            ("abcab", false),
        ] {
            assert_eq!(repeats_itself(text), expected, "{text}");
        }
        assert!(!repeats_itself(&("a".repeat(1 << 16) + "b")), "and in no time");
    }
}
