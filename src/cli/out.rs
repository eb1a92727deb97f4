//! Where words go: stdout is data, stderr is talk.
//!
//! Writing goes through a handle, so that tests can read what was said and a
//! broken pipe is noticed in one place.

use std::io::{self, IsTerminal, Write};

use super::Trouble;

/// When colour is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether there is colour: the flag, then `NO_COLOR`, then `CLICOLOR_FORCE`, then the terminal.
    fn decide(self, env: impl Fn(&str) -> Option<String>, terminal: bool) -> bool {
        let set = |name: &str| env(name).filter(|it| !it.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR").is_some() => false,
            Self::Auto if set("CLICOLOR_FORCE").is_some_and(|it| it != "0") => true,
            Self::Auto => {
                let off = set("CLICOLOR").is_some_and(|it| it == "0");
                terminal && !off && set("TERM").is_none_or(|it| it != "dumb")
            }
        }
    }
}

/// What words look like. It only adds to what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

/// How much room there is, and whether there is colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Cells in a line; `None` without a terminal.
    pub(super) width: Option<usize>,
    pub(super) color: bool,
}

impl Look {
    /// The text in that ink.
    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "32",
            Ink::Warn => "33",
            Ink::Bad => "31",
        };
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One of the two places that words go to.
pub struct Out {
    sink: Box<dyn Write + Send>,
    pub(super) look: Look,
    pub(super) terminal: bool,
    /// Whether it shows more than ASCII.
    utf8: bool,
}

impl Out {
    /// Data.
    pub fn stdout(color: Color) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let columns = rustix::termios::tcgetwinsize(&stdout).ok().map(|it| usize::from(it.ws_col));
        Self::new(Box::new(stdout), color, terminal, columns)
    }

    /// Talk.
    pub fn stderr(color: Color) -> Self {
        let stderr = io::stderr();
        let terminal = stderr.is_terminal();
        let columns = rustix::termios::tcgetwinsize(&stderr).ok().map(|it| usize::from(it.ws_col));
        Self::new(Box::new(stderr), color, terminal, columns)
    }

    fn new(sink: Box<dyn Write + Send>, color: Color, terminal: bool, columns: Option<usize>) -> Self {
        let env = |name: &str| std::env::var(name).ok();
        let color = color.decide(env, terminal);
        // A terminal of width 0 is one that does not know its width.
        let told = columns.filter(|it| *it > 0);
        let width = told.or_else(|| env("COLUMNS")?.parse().ok().filter(|it| *it > 0)).unwrap_or(80);
        let utf8 = is_utf8(env);
        Self { sink, look: Look { width: terminal.then_some(width), color }, terminal, utf8 }
    }

    /// Writes to `sink` as if it were no terminal.
    pub fn to(sink: Box<dyn Write + Send>) -> Self {
        Self { sink, look: Look { width: None, color: false }, terminal: false, utf8: true }
    }

    /// A line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Trouble> {
        self.text(&format!("{}\n", text.as_ref()))
    }

    /// Text as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Trouble> {
        self.bytes(text.as_bytes())
    }

    /// Text that we have drawn, with signs that this place can show.
    pub(super) fn page(&mut self, page: &str) -> Result<(), Trouble> {
        if self.utf8 { self.text(page) } else { self.text(&ascii(page)) }
    }

    /// Bytes as they are, at once.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.sink.write_all(bytes).and_then(|()| self.sink.flush()).map_err(Trouble::Output)
    }

    /// JSON as the API said it, and a line feed if it has none.
    pub(super) fn json(&mut self, raw: &[u8]) -> Result<(), Trouble> {
        self.bytes(raw)?;
        if raw.ends_with(b"\n") { Ok(()) } else { self.bytes(b"\n") }
    }

    /// JSON of a stream: the same on one line.
    pub(super) fn json_line(&mut self, raw: &[u8]) -> Result<(), Trouble> {
        // Line feeds in JSON are only ever between tokens; inside text they are escaped.
        let line: Vec<u8> = raw.iter().copied().filter(|it| !matches!(it, b'\n' | b'\r')).collect();
        self.json(&line)
    }
}

/// Whether the locale is one of UTF-8; the first of these variables that says something says it.
fn is_utf8(env: impl Fn(&str) -> Option<String>) -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|it| env(it).filter(|it| !it.is_empty()));
    said.is_some_and(|it| it.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// The same with ASCII for the signs that we draw with, cell for cell. Names stay as they are.
pub(super) fn ascii(page: &str) -> String {
    page.chars()
        .map(|it| match it {
            '▁' => '_',
            '▂' => '.',
            '▃' => '-',
            '▄' => '=',
            '▅' => '+',
            '▆' => '*',
            '▇' => '%',
            '█' | '▉' | '▊' | '▋' | '▌' => '#',
            '▏' | '▎' | '▍' => ':',
            '–' => '-',
            '…' => '~',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_says_something_says_which_signs_there_are() {
        let is = |set: &[(&str, &str)]| {
            is_utf8(|name| set.iter().find(|it| it.0 == name).map(|it| it.1.to_owned()))
        };
        assert!(is(&[("LANG", "de_DE.UTF-8")]) && is(&[("LC_ALL", "C.utf8"), ("LANG", "C")]));
        assert!(!is(&[]) && !is(&[("LANG", "C")]) && !is(&[("LC_ALL", "POSIX"), ("LANG", "en_US.UTF-8")]));
        assert!(is(&[("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8")]) && !is(&[("LANG", "de_DE.ISO-8859-1")]));
    }

    fn check(color: Color, variables: &[(&str, &str)], terminal: bool, expected: bool) {
        let env = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
        assert_eq!(color.decide(env, terminal), expected, "{color:?} {variables:?} {terminal}");
    }

    #[test]
    fn colour_is_for_terminals_unless_somebody_says_otherwise() {
        check(Color::Auto, &[], true, true);
        check(Color::Auto, &[], false, false);
        check(Color::Auto, &[("TERM", "dumb")], true, false);
        check(Color::Auto, &[("NO_COLOR", "1")], true, false);
        check(Color::Auto, &[("NO_COLOR", "")], true, true);
        check(Color::Auto, &[("CLICOLOR_FORCE", "1")], false, true);
        check(Color::Auto, &[("CLICOLOR_FORCE", "0")], false, false);
        check(Color::Auto, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true, false);
        check(Color::Auto, &[("CLICOLOR", "0")], true, false);
        check(Color::Always, &[("NO_COLOR", "1")], false, true);
        check(Color::Never, &[("CLICOLOR_FORCE", "1")], true, false);
    }

    #[test]
    fn without_colour_the_words_are_the_same() {
        let (with, without) = (Look { width: None, color: true }, Look { width: None, color: false });
        assert_eq!(with.paint(Ink::Bad, "down"), "\x1b[31mdown\x1b[0m");
        assert_eq!(without.paint(Ink::Bad, "down"), "down");
    }
}
