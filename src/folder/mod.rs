//! Tells when something at some paths may have changed: a file, or anything in a folder.
//!
//! The system tells of the folders that it is asked to watch, and nothing wakes up while
//! nothing happens. A path is more than its last folder: each link on the way may be pointed
//! elsewhere, a folder may be put in the place of another, and what is not there yet may
//! appear. `trail` says which folders decide what is at a path; they are watched, and looked
//! for anew after each change among them.
//!
//! What a change means is not known here, nor whether it is one: who is told looks again.

mod trail;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use self::trail::{Identity, Trail};

/// So often it is looked again for what to watch: while we look, a path may lead elsewhere.
const LOOKS: usize = 5;

/// Something that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, or the want of one: what is in it, and who may read it.
    File(PathBuf),
    /// A folder with all that is below it: which files there are. Of a file that is being
    /// written for minutes its end is told, not each piece.
    Tree(PathBuf),
}

/// Watches some targets.
pub struct Folders {
    targets: Vec<Target>,
    arming: Arc<Mutex<Arming>>,
    news: Arc<News>,
    /// Said once: what cannot be watched, for want of permission or of watches.
    refused: BTreeSet<PathBuf>,
}

/// How a folder is watched, and which folder it was: another may be in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    recursive: bool,
    identity: Option<Identity>,
}

/// What the thread of the watcher writes down.
#[derive(Default)]
struct News {
    board: Mutex<Board>,
    came: Notify,
}

#[derive(Default)]
struct Board {
    trails: Vec<Trail>,
    /// The targets at which something happened, by their number.
    changed: BTreeSet<usize>,
}

impl Folders {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        let news = Arc::new(News::default());
        let told = news.clone();
        let watcher = notify::recommended_watcher(move |event| told.hear(event)).map_err(io::Error::other)?;
        let arming = Arming { watcher, watched: BTreeMap::new(), news: news.clone() };
        let arming = Arc::new(Mutex::new(arming));
        Ok(Self { targets: Vec::new(), arming, news, refused: BTreeSet::new() })
    }

    /// Watches these from now on. Says whether they are others than before: what happened until
    /// now at those that are new is not told of.
    pub async fn watch(&mut self, targets: Vec<Target>) -> bool {
        let are_new = self.targets != targets;
        if are_new {
            self.targets = targets;
            self.news.board().changed.clear();
            self.arm().await;
        }
        are_new
    }

    /// Waits until something happened at some targets, and then until it was quiet there for a
    /// moment, but not for ever: the targets, by their number. Safe to drop while waiting.
    pub async fn settled(&mut self, quiet: Duration, at_most: Duration) -> BTreeSet<usize> {
        while self.news.board().changed.is_empty() {
            self.news.came.notified().await;
        }
        self.until_quiet(quiet, at_most).await;
        // Before it is told what happened: what happens from here on is told again.
        self.arm().await;
        std::mem::take(&mut self.news.board().changed)
    }

    /// Waits until nothing happened for a moment, but not for ever.
    pub async fn until_quiet(&mut self, quiet: Duration, at_most: Duration) {
        let end = Instant::now() + at_most;
        while Instant::now() < end && timeout(quiet, self.news.came.notified()).await.is_ok() {}
    }

    /// Watches the folders that decide now what is at the targets.
    async fn arm(&mut self) {
        let (targets, arming) = (self.targets.clone(), self.arming.clone());
        // To watch a folder waits for the watcher's thread, and a tree of folders is walked.
        let arming = tokio::task::spawn_blocking(move || {
            arming.lock().unwrap_or_else(PoisonError::into_inner).arm(&targets)
        });
        for (path, why) in arming.await.unwrap_or_default() {
            if self.refused.insert(path.clone()) {
                tracing::warn!(path = %path.display(), "changes here are not noticed: {why}");
            }
        }
    }
}

/// The part of watching that may take a moment.
struct Arming {
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, Watched>,
    news: Arc<News>,
}

impl Arming {
    fn arm(&mut self, targets: &[Target]) -> Vec<(PathBuf, notify::Error)> {
        let mut refused = Vec::new();
        for _ in 0..LOOKS {
            let trails: Vec<Trail> = targets.iter().map(Trail::of).collect();
            let mut wanted: BTreeMap<PathBuf, Watched> = BTreeMap::new();
            for (folder, recursive) in trails.iter().flat_map(Trail::folders) {
                let watched = wanted
                    .entry(folder.to_owned())
                    .or_insert_with(|| Watched { recursive, identity: Identity::of(folder) });
                watched.recursive |= recursive;
            }
            // Before anything is watched, so that no event comes that nobody knows.
            self.news.board().trails = trails;
            if wanted == self.watched {
                break;
            }
            refused = self.change_to(wanted);
        }
        refused
    }

    fn change_to(&mut self, wanted: BTreeMap<PathBuf, Watched>) -> Vec<(PathBuf, notify::Error)> {
        for (folder, watched) in &self.watched {
            if wanted.get(folder) != Some(watched) {
                // An error means that it is gone, and its watch with it.
                let _ = self.watcher.unwatch(folder);
            }
        }
        let mut refused = Vec::new();
        for (folder, watched) in &wanted {
            if self.watched.get(folder) == Some(watched) {
                continue;
            }
            let mode = if watched.recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            match self.watcher.watch(folder, mode) {
                Ok(()) => {}
                // Gone meanwhile: the next look finds another.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => refused.push((folder.clone(), error)),
            }
        }
        self.watched = wanted;
        refused
    }
}

impl News {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what an event is about. Runs in the watcher's own thread.
    fn hear(&self, event: notify::Result<Event>) {
        let mut board = self.board();
        let Board { trails, changed } = &mut *board;
        let mut is_news = false;
        for (number, trail) in trails.iter().enumerate() {
            let is_about = match &event {
                // Something was lost: it may have been about anything.
                Err(_) => true,
                Ok(event) if event.need_rescan() => true,
                Ok(event) => {
                    matters(&event.kind, trail.is_tree())
                        && event.paths.iter().any(|it| trail.is_about(it.as_path()))
                }
            };
            if is_about {
                changed.insert(number);
                is_news = true;
            }
        }
        drop(board);
        // Also of what is known already, as it is not quiet yet.
        if is_news {
            self.came.notify_one();
        }
    }
}

/// Whether such an event can change what is at a target. To read a file is one too.
fn matters(kind: &EventKind, in_tree: bool) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        // Where no end of writing is told the pieces have to do.
        EventKind::Modify(ModifyKind::Data(_)) => !in_tree || cfg!(not(target_os = "linux")),
        EventKind::Modify(ModifyKind::Metadata(_)) => !in_tree,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) => true,
        EventKind::Other => false,
    }
}

impl Target {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Tree(path) => path,
        }
    }
}

#[cfg(test)]
mod tests;
