//! Whose socket is it: from inode to program name.
//!
//! There is no index for this; it means walking the descriptors of every
//! process that we may look at: 1 ms for 140 processes on a 2-core virtual
//! machine. So it is done when somebody new listens, and never otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// The program names behind these sockets, where they can be read.
pub(super) fn programs(proc_root: &Path, inodes: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    let Ok(processes) = fs::read_dir(proc_root) else {
        return found;
    };
    for process in processes.flatten() {
        let is_process = process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        if is_process {
            // It may have ended meanwhile, or be none of our business.
            let _ = look_into(&process.path(), inodes, &mut found);
        }
        if found.len() == inodes.len() {
            break;
        }
    }
    found
}

fn look_into(process: &Path, inodes: &BTreeSet<u64>, found: &mut BTreeMap<u64, String>) -> io::Result<()> {
    for descriptor in fs::read_dir(process.join("fd"))? {
        let Ok(target) = fs::read_link(descriptor?.path()) else {
            continue;
        };
        let inode =
            target.to_str().and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if let Some(inode) = inode
            && inodes.contains(&inode)
        {
            found.insert(inode, fs::read_to_string(process.join("comm"))?.trim_end().to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_their_sockets() {
        let root = tempfile::tempdir().unwrap();
        for (pid, comm, inode) in [("17", "gdbserver\n", 5), ("18", "ollama\n", 6), ("self", "x\n", 7)] {
            let process = root.path().join(pid);
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("comm"), comm).unwrap();
            std::os::unix::fs::symlink(format!("socket:[{inode}]"), process.join("fd/3")).unwrap();
            std::os::unix::fs::symlink("/dev/null", process.join("fd/0")).unwrap();
        }
        fs::create_dir(root.path().join("19")).unwrap();
        let found = programs(root.path(), &BTreeSet::from([5, 6, 7, 8]));
        assert_eq!(found, BTreeMap::from([(5, "gdbserver".to_owned()), (6, "ollama".to_owned())]));
    }
}
