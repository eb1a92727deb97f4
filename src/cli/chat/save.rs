//! Writes a conversation to a file.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::conversation::Conversation;

/// How a file looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Markdown,
    Json,
}

impl Form {
    /// What the name asks for.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "md" | "markdown" => Some(Self::Markdown),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The conversation in this form.
    pub(super) fn of_conversation(self, conversation: &Conversation) -> String {
        match self {
            Self::Markdown => conversation.markdown(),
            Self::Json => conversation.json(),
        }
    }
}

/// A name as a shell would read it: `~/` is the person's home.
pub(super) fn expand(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// Writes a file that is not there yet; `AlreadyExists` otherwise.
pub(super) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// Writes a file anew. What was in it stays until the new text is whole.
pub(super) fn write_over(path: &Path, text: &str) -> io::Result<()> {
    // A link leads to the file that is meant.
    let path = &path.canonicalize()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lovable-new");
    let new = path.with_file_name(name);
    let written = std::fs::write(&new, text)
        .and_then(|()| std::fs::set_permissions(&new, std::fs::metadata(path)?.permissions()))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_form() {
        for (name, form) in [
            ("a.md", Some(Form::Markdown)),
            ("a.MD", Some(Form::Markdown)),
            ("a.json", Some(Form::Json)),
            ("a.txt", None),
            ("a", None),
            (".md", None),
        ] {
            assert_eq!(Form::of(Path::new(name)), form, "{name}");
        }
    }

    #[test]
    fn a_tilde_is_home() {
        let home = Some(Path::new("/home/x"));
        assert_eq!(expand("~/a.md".into(), home), Path::new("/home/x/a.md"));
        assert_eq!(expand("a~/b.md".into(), home), Path::new("a~/b.md"));
        assert_eq!(expand("~/a.md".into(), None), Path::new("~/a.md"));
    }

    #[test]
    fn a_file_that_is_there_is_only_written_over_when_that_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.md");
        write_new(&path, "one").unwrap();
        assert_eq!(write_new(&path, "two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        write_over(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
