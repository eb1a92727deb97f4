//! Follows what changes on the disk: the configuration, and the folders of models.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::reload::Reload;
use crate::{
    config::{Reading, Surroundings},
    folder::{Folders, Target},
    housekeeping::Housekeeping,
    kind::{self, Folder},
};

/// A file that is being written is read when nothing has happened to it for so long.
const QUIET: Duration = Duration::from_millis(100);
/// And after so long in any case.
const AT_MOST: Duration = Duration::from_secs(1);
/// A file that says nothing or nothing that makes sense is probably being written: it is given
/// so long to become another.
const HALF_WRITTEN: Duration = Duration::from_millis(500);
/// Nobody writes one file for longer.
const WRITTEN: Duration = Duration::from_secs(3);

/// The same for models: a person waits for one, and asking too early costs one more question.
const MODELS_QUIET: Duration = Duration::from_millis(50);
const MODELS_AT_MOST: Duration = Duration::from_millis(300);
/// A server may take a moment to see by itself what it has.
const ONCE_MORE: Duration = Duration::from_secs(1);

/// Reads the configuration again whenever one of its files changes or somebody asks for it,
/// until dropped.
pub(super) async fn configuration(mut reload: Reload, hang_up: Arc<Notify>) {
    let mut folders = folders("edits of the configuration");
    loop {
        let mut reading = reload.read().await;
        if let Some(folders) = &mut folders {
            if reload.is_doubtful(&reading) {
                folders.until_quiet(HALF_WRITTEN, WRITTEN).await;
                reading = reload.read().await;
            }
            // What happened before they were watched is seen by reading once more.
            while folders.watch(reading.files.iter().cloned().map(Target::File).collect()).await {
                reading = reload.read().await;
            }
        }
        reload.take(reading);
        tokio::select! {
            () = changed(&mut folders) => {}
            () = hang_up.notified() => {}
        }
    }
}

async fn changed(folders: &mut Option<Folders>) {
    match folders {
        Some(folders) => drop(folders.settled(QUIET, AT_MOST).await),
        None => std::future::pending().await,
    }
}

impl Reload {
    /// Whether this is probably not all of what somebody is writing.
    fn is_doubtful(&self, reading: &Reading) -> bool {
        match &reading.loaded {
            Ok(_) => reading.is_empty && !self.was_empty,
            Err(error) => self.broken.as_ref() != Some(&error.to_string()),
        }
    }
}

/// Has servers of this machine asked for their models whenever these change on the disk, until
/// dropped.
pub(super) async fn models(house: Arc<Housekeeping>) {
    let Some(mut folders) = folders("new models") else { return };
    let places = model_folders(&Surroundings::of_process());
    folders.watch(places.iter().map(|(_, path)| Target::Tree(path.clone())).collect()).await;
    // Those that are asked once more, and when.
    let mut later: BTreeSet<&str> = BTreeSet::new();
    let mut at = Instant::now();
    loop {
        let kinds = tokio::select! {
            changed = folders.settled(MODELS_QUIET, MODELS_AT_MOST) => {
                let kinds = changed.iter().filter_map(|it| places.get(*it)).map(|(kind, _)| *kind);
                let kinds: BTreeSet<&str> = kinds.collect();
                later.extend(&kinds);
                at = Instant::now() + ONCE_MORE;
                kinds
            }
            () = sleep_until(at), if !later.is_empty() => std::mem::take(&mut later),
        };
        kinds.iter().for_each(|it| house.models_changed(it));
    }
}

fn folders(what: &str) -> Option<Folders> {
    match Folders::new() {
        Ok(folders) => Some(folders),
        Err(error) => {
            tracing::warn!(%error, "{what} are not noticed by themselves");
            None
        }
    }
}

/// Where models are, by kind.
fn model_folders(around: &Surroundings<'_>) -> Vec<(&'static str, PathBuf)> {
    let place = |folder: &Folder| match folder {
        Folder::Variable(name, below) => Some(PathBuf::from(around.var(name)?).join(below)),
        Folder::Home(below) => Some(around.home.as_ref()?.join(below)),
        Folder::Pointer(file, below) => {
            let named = std::fs::read_to_string(around.home.as_ref()?.join(file)).ok()?;
            Some(PathBuf::from(named.trim()).join(below))
        }
        Folder::System(path) => Some(PathBuf::from(path)),
    };
    let all = kind::KINDS.iter().flat_map(|kind| {
        let places = kind.model_folders().iter().filter_map(place);
        places.filter(|it| it.is_absolute()).map(|it| (kind.id(), it))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::System;

    #[test]
    fn models_are_looked_for_where_the_environment_and_the_home_say() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".lmstudio-home-pointer"), "/big/lm\n").unwrap();
        let env = |name: &str| (name == "OLLAMA_MODELS").then(|| "/big/ollama".into());
        let around =
            Surroundings { system: System::Linux, uid: 1000, home: Some(home.path().to_owned()), env: &env };
        let found = model_folders(&around);
        let has = |kind: &str, path: PathBuf| found.contains(&(kind, path));
        assert!(has("ollama", "/big/ollama/manifests".into()), "{found:?}");
        assert!(has("ollama", home.path().join(".ollama/models/manifests")), "{found:?}");
        assert!(has("ollama", "/usr/share/ollama/.ollama/models/manifests".into()), "{found:?}");
        assert!(has("lmstudio", "/big/lm/models".into()), "{found:?}");
    }
}
