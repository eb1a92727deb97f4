//! Unit files, as far as the supervisor obeys them.

use std::path::PathBuf;

/// The settings of a unit, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Unit(Vec<(String, String)>);

/// What specifiers stand for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) home: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) config: PathBuf,
}

impl Unit {
    /// Reads a unit; whatever is no setting in a section must be a comment.
    pub(crate) fn read(text: &str, places: &Places) -> Self {
        let mut settings = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';', '[']) {
                continue;
            }
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no setting: {line:?}"));
            settings.push((name.to_owned(), places.fill(value)));
        }
        Self(settings)
    }

    /// All values of a setting that may be there several times.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|it| it.0 == name).map(|it| it.1.as_str()).collect()
    }

    /// The value of a setting.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last().copied()
    }

    /// A setting in seconds.
    pub(crate) fn seconds(&self, name: &str) -> Option<u64> {
        self.get(name).map(|it| it.parse().unwrap())
    }

    /// The same with another value.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Places {
    fn fill(&self, value: &str) -> String {
        let path = |it: &PathBuf| it.display().to_string();
        let filled = value.replace("%h", &path(&self.home)).replace("%t", &path(&self.run));
        let filled = filled.replace("%E", &path(&self.config)).replace("%%", "\u{0}");
        assert!(!filled.contains('%'), "a specifier that nobody knows here: {value}");
        filled.replace('\u{0}', "%")
    }
}

/// Words as a unit has them: quotes hold blanks together, a backslash takes what follows as it is.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut some) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(it) = chars.next() {
        match it {
            '"' => (quoted, some) = (!quoted, true),
            '\\' => word.extend(chars.next()),
            ' ' if !quoted => {
                if some || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                some = false;
            }
            it => word.push(it),
        }
    }
    if some || !word.is_empty() {
        words.push(word);
    }
    words
}

#[test]
fn quotes_hold_words_together() {
    assert_eq!(words(r#"a "b c" d\"e "" "#), ["a", "b c", "d\"e", ""]);
}
