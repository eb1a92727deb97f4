//! Thinking that comes as text: a server that goes on with a text as it is has no part in what
//! the text means, and where the thinking in it ends only the tag shows that closes it.

/// What comes is thinking up to a tag, and text after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Closing {
    tag: String,
    /// What came and may be the beginning of the tag, or blanks before it.
    held: String,
    /// Whether the tag came, and only blanks since.
    bare: bool,
    over: bool,
}

impl Closing {
    pub(super) fn new(tag: String) -> Self {
        Self { tag, ..Self::default() }
    }

    /// Parts a piece into thinking and text.
    pub(super) fn part(&mut self, more: &str) -> (String, String) {
        if self.over {
            return (String::new(), self.after(more));
        }
        let mut said = std::mem::take(&mut self.held) + more;
        if let Some(at) = said.find(&self.tag) {
            (self.over, self.bare) = (true, true);
            let text = self.after(&said[at + self.tag.len()..]);
            said.truncate(said[..at].trim_end().len());
            return (said, text);
        }
        // The longest end of it that the tag may begin with, and the blanks before that.
        let begins = |at: &usize| self.tag.starts_with(&said[*at..]);
        let ends = said.char_indices().map(|(at, _)| at);
        let end = ends.rev().take_while(|at| said.len() - at < self.tag.len()).filter(begins).last();
        let kept = said[..end.unwrap_or(said.len())].trim_end().len();
        self.held = said.split_off(kept);
        (said, String::new())
    }

    /// What was held and is neither: nothing more comes.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Templates put blanks between the tag and the text.
    fn after(&mut self, text: &str) -> String {
        let text = if self.bare { text.trim_start() } else { text };
        self.bare &= text.is_empty();
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parted<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let mut closing = Closing::new("</think>".to_owned());
        let (mut thinking, mut text) = (String::new(), String::new());
        for piece in pieces {
            let (more, said) = closing.part(piece);
            assert!(more.is_empty() || text.is_empty(), "thinking comes first");
            thinking += &more;
            text += &said;
        }
        (thinking + &closing.rest(), text)
    }

    #[test]
    fn thinking_ends_with_the_tag_and_blanks_around_it_are_nobodys() {
        let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        assert_eq!(parted(["so \n</th", "ink>\n", "\n one", "  two"]), owned(("so", "one  two")));
        assert_eq!(parted(["a < b, </thin", "g>"]), owned(("a < b, </thing>", "")));
        assert_eq!(parted(["a ", " b "]), owned(("a  b ", "")));
        assert_eq!(parted(["</think>x</think>"]), owned(("", "x</think>")));
    }

    proptest! {
        #[test]
        fn it_is_parted_the_same_however_it_is_cut(
            said in "[a<ä ]{0,6}(</think>)?[a< \n]{0,6}",
            cuts in prop::collection::vec(1_usize..5, 0..20),
        ) {
            let (mut pieces, mut rest) = (Vec::new(), said.as_str());
            for size in cuts {
                let at = (size.min(rest.len())..=rest.len()).find(|it| rest.is_char_boundary(*it)).unwrap();
                let (piece, after) = rest.split_at(at);
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(parted(pieces), parted([said.as_str()]));
        }
    }
}
