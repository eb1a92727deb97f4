//! Which socket is asked: the one that was named, else the user's, else the system's.

use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use crate::config::{PathError, Paths, Surroundings, shared_tmp_dir};

/// Where a daemon may be, in the order in which it is looked for.
pub(super) fn candidates(named: Option<&Path>) -> Result<Vec<PathBuf>, PathError> {
    let around = Surroundings::of_process();
    let mut candidates = Paths::socket_candidates(named, &around)?;
    // Anybody can make a directory of that name in /tmp; prompts go only into our own.
    let shared = shared_tmp_dir(around.uid);
    if named.is_none() && candidates.len() > 1 {
        candidates.retain(|it| it.parent() != Some(&shared) || !is_foreign(&shared, around.uid));
    }
    Ok(candidates)
}

/// Whether the directory is somebody else's, or open to others.
fn is_foreign(directory: &Path, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(it) = std::fs::symlink_metadata(directory) else { return false };
    !it.is_dir() || it.uid() != uid || it.mode() & 0o077 != 0
}

/// The first that takes a connection; without one, the first that exists; else the first.
pub(super) async fn choose(candidates: &[PathBuf]) -> PathBuf {
    if let [only] = candidates {
        return only.clone();
    }
    for candidate in candidates {
        if UnixStream::connect(candidate).await.is_ok() {
            return candidate.clone();
        }
    }
    candidates.iter().find(|it| it.exists()).or(candidates.first()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn the_first_that_takes_a_connection_is_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let [gone, stale, alive] = ["gone", "stale", "alive"].map(|it| dir.path().join(it));
        drop(UnixListener::bind(&stale).unwrap());
        let all = [gone.clone(), stale.clone(), alive.clone()];
        assert_eq!(choose(&all).await, stale);
        let _listener = UnixListener::bind(&alive).unwrap();
        assert_eq!(choose(&all).await, alive);
        assert_eq!(choose(&[gone.clone(), dir.path().join("nor this")]).await, gone);
    }

    #[test]
    fn a_directory_that_others_may_open_is_foreign() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(!is_foreign(dir.path(), uid));
        assert!(is_foreign(dir.path(), uid + 1));
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(is_foreign(dir.path(), uid));
    }
}
