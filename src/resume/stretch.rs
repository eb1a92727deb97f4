//! One of the two things that an answer has, text or thinking: what of it was said before,
//! and what is new.

use super::{
    Misfit, Repeats,
    same::{Same, repeats_itself},
};

/// What is still to be taken off the beginning of what a server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    /// What it was told, in case that it says all of it again.
    echo: String,
    /// What it must say again.
    exact: Same,
    /// Blanks that it will say again if its template cut them off.
    blanks: String,
    /// What came and may be said again.
    held: String,
}

impl Stretch {
    /// For a server that was told nothing of it: it says all of it again, and blanks at its end
    /// are exact as well.
    pub(super) fn again(said: &str) -> Self {
        Self { exact: Same::new(said), ..Self::default() }
    }

    /// For a server that was told so many bytes of it.
    pub(super) fn after(said: &str, told: usize, repeats: Repeats) -> Self {
        let (told, rest) = said.split_at(told);
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
            held: String::new(),
        }
    }

    /// Gives what is new with this piece.
    pub(super) fn take(&mut self, more: &str) -> Result<String, Misfit> {
        let mut text = std::mem::take(&mut self.held) + more;
        if !self.echo.is_empty() {
            if text.len() < self.echo.len() && self.echo.starts_with(&text) {
                self.held = text;
                return Ok(String::new());
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
        Ok(text)
    }

    /// Gives what was held: what came was no repetition of all that was told.
    pub(super) fn settle(&mut self) -> Result<String, Misfit> {
        if std::mem::take(&mut self.echo).is_empty() {
            return Ok(String::new());
        }
        self.take("")
    }

    /// What must still be said again.
    pub(super) fn rest(&self) -> &str {
        self.exact.rest()
    }

    /// Whether all was said again that must be.
    pub(super) fn is_over(&self) -> bool {
        self.exact.is_over()
    }

    #[cfg(test)]
    pub(super) fn echo(&self) -> &str {
        &self.echo
    }
}

/// A longer text is not looked for in what comes: all of it would have to be held.
const LONGEST_ECHO: usize = 64 << 10;
