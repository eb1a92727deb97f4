//! Makes one text of several lines: a `\` at a line's end goes on on the next, and
//! `"""` begins a block that ends with `"""`.

const MARK: &str = "\"\"\"";

/// Lines that belong together, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Gather {
    lines: Vec<String>,
    block: bool,
}

impl Gather {
    /// Adds a line (or several, as they were pasted), and gives the text if it is whole.
    pub(super) fn add(&mut self, line: &str) -> Option<String> {
        if self.lines.is_empty()
            && let Some(rest) = line.trim_start().strip_prefix(MARK)
        {
            self.block = true;
            return self.in_block(rest);
        }
        if self.block {
            return self.in_block(line);
        }
        match line.strip_suffix('\\') {
            Some(line) => {
                self.lines.push(line.to_owned());
                None
            }
            None => {
                self.lines.push(line.to_owned());
                self.end()
            }
        }
    }

    fn in_block(&mut self, line: &str) -> Option<String> {
        match line.trim_end().strip_suffix(MARK) {
            Some(line) => {
                self.lines.push(line.to_owned());
                self.end()
            }
            None => {
                self.lines.push(line.to_owned());
                None
            }
        }
    }

    /// Whether more must come.
    pub(super) fn is_open(&self) -> bool {
        !self.lines.is_empty()
    }

    /// What there is, for nothing more comes.
    pub(super) fn end(&mut self) -> Option<String> {
        if self.lines.is_empty() {
            return None;
        }
        let text = std::mem::take(&mut self.lines).join("\n");
        // The marks may stand on lines of their own, which are then no part of the text.
        Some(if std::mem::take(&mut self.block) { text.trim_matches('\n').to_owned() } else { text })
    }

    /// Forgets what there is.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: &[&str]) {
        let mut gather = Gather::default();
        let mut texts: Vec<_> = lines.iter().filter_map(|it| gather.add(it)).collect();
        texts.extend(gather.end());
        assert_eq!(texts, expected, "{lines:?}");
    }

    #[test]
    fn a_line_is_a_text_unless_it_says_that_more_comes() {
        check(&["a", "b"], &["a", "b"]);
        check(&["a\\", "b\\", "c", "d"], &["a\nb\nc", "d"]);
        check(&["a\\"], &["a"]);
        check(&["\\", "b"], &["\nb"]);
        check(&["", ""], &["", ""]);
    }

    #[test]
    fn a_block_ends_with_its_mark() {
        check(&["\"\"\"", "a", "", "  b\\", "\"\"\"", "c"], &["a\n\n  b\\", "c"]);
        check(&["\"\"\"a", "b\"\"\""], &["a\nb"]);
        check(&["\"\"\"a\"\"\""], &["a"]);
        check(&["\"\"\"\"\"\""], &[""]);
        check(&["\"\"\"", "a"], &["a"]);
        check(&["say \"\"\"", "b"], &["say \"\"\"", "b"]);
    }

    #[test]
    fn what_was_pasted_stays_as_it_is() {
        check(&["make \\\n  all"], &["make \\\n  all"]);
        check(&["\"\"\"\na\nb\n\"\"\""], &["a\nb"]);
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let mut gather = Gather::default();
        assert_eq!(gather.add("\"\"\"a"), None);
        assert!(gather.is_open());
        gather.forget();
        assert_eq!(gather.add("b"), Some("b".to_owned()));
        assert!(!gather.is_open());
    }
}
