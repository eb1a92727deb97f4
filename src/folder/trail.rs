//! The way to a path: what on it decides what is there.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use super::Target;

/// More links than this are a circle; the system gives up at as many.
const MOST_LINKS: usize = 40;

/// Which folder it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self { device: facts.dev(), inode: facts.ino() })
    }
}

/// What has to be watched to know what is at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    /// Folders of which the entries matter.
    folders: BTreeSet<PathBuf>,
    /// Those entries, and the folders themselves.
    entries: BTreeSet<PathBuf>,
    /// The folder of which everything matters.
    tree: Option<PathBuf>,
    is_tree: bool,
}

impl Trail {
    /// Follows the way as it is now.
    pub(super) fn of(target: &Target) -> Self {
        let mut trail = Self { is_tree: matches!(target, Target::Tree(_)), ..Self::default() };
        let Some(end) = trail.follow(target.path()) else { return trail };
        if trail.is_tree && end.is_dir() {
            trail.entries.insert(end.clone());
            trail.tree = Some(end);
        } else if let Some(folder) = end.parent() {
            trail.look_at(folder.to_owned(), end.clone());
        }
        trail
    }

    /// The folders to watch, and whether with all that is below.
    pub(super) fn folders(&self) -> impl Iterator<Item = (&Path, bool)> {
        let trees = self.tree.iter().map(|it| (it.as_path(), true));
        self.folders.iter().map(|it| (it.as_path(), false)).chain(trees)
    }

    pub(super) fn is_tree(&self) -> bool {
        self.is_tree
    }

    /// Whether something that happened at this path may change what is at the end.
    pub(super) fn is_about(&self, path: &Path) -> bool {
        self.entries.contains(path) || self.tree.as_ref().is_some_and(|it| path.starts_with(it))
    }

    /// Goes to the end, or as far as there is a way; remembers the links.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut here = PathBuf::from("/");
        let mut ahead: Vec<OsString> = steps(path);
        let mut links = 0;
        while let Some(step) = ahead.pop() {
            if step == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&step);
            match fs::symlink_metadata(&next) {
                // The next step may appear here.
                Err(_) => {
                    self.look_at(here, next);
                    return None;
                }
                Ok(facts) if facts.is_symlink() => {
                    self.look_at(here.clone(), next.clone());
                    links += 1;
                    let to = fs::read_link(&next).ok().filter(|_| links <= MOST_LINKS)?;
                    if to.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    ahead.extend(steps(&to));
                }
                Ok(_) => here = next,
            }
        }
        Some(here)
    }

    fn look_at(&mut self, folder: PathBuf, entry: PathBuf) {
        self.entries.insert(entry);
        self.entries.insert(folder.clone());
        self.folders.insert(folder);
    }
}

/// The steps of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let step = |it: Component<'_>| match it {
        Component::Normal(step) => Some(step.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}
