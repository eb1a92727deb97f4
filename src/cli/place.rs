//! Which socket is asked: the one that was named, else the user's, else the system's.

use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

/// Where a daemon may be, in the order in which it is looked for.
pub(super) fn candidates(named: Option<&Path>) -> Result<Vec<PathBuf>, String> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| format!("cannot make {} absolute: {error}", path.display()))
    };
    if let Some(path) = named {
        return Ok(vec![absolute(path)?]);
    }
    if let Some(path) = std::env::var_os("LOVABLE_SOCKET").filter(|it| !it.is_empty()) {
        return Ok(vec![absolute(Path::new(&path))?]);
    }
    let uid = rustix::process::geteuid().as_raw();
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|it| it.is_absolute());
    let user = run.map_or_else(|| PathBuf::from(format!("/tmp/lovable-{uid}")), |it| it.join("lovable"));
    Ok(vec![user.join("lovabled.sock"), PathBuf::from("/run/lovable/lovabled.sock")])
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
