//! Whose listeners are trusted: our own, and those of the system.
//!
//! On a machine with several people anyone may listen on a free port and look
//! like an Ollama; what is sent there, they read. A prompt goes only to a
//! process of the same user (or of a container that this user runs), of root
//! and of the system's own accounts.

use std::{fs, ops::Range, os::unix::fs::MetadataExt, path::Path};

use crate::{
    scan::{place, table::Table},
    server::{Address, Endpoint},
};

/// Which user ids are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    own: u32,
    subordinate: Vec<Range<u32>>,
    first_ordinary: u32,
}

/// What `useradd` and everybody else has taken for the first person's id.
const FIRST_ORDINARY: u32 = 1000;
/// Ids that systemd gives to services with `DynamicUser=`.
const DYNAMIC_SERVICES: Range<u32> = 61184..65520;
/// `nobody`. A container also shows it for an owner that it has no name for,
/// so it says nothing about who that is.
const NOBODY: u32 = 65534;

impl Owners {
    /// Reads what the system says about its users, below `etc`.
    pub fn read(own: u32, etc: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(etc.join(name)).unwrap_or_default();
        let name = name_of(own, &text("passwd"));
        Self {
            own,
            subordinate: subordinate_of(own, name.as_deref(), &text("subuid")),
            first_ordinary: first_ordinary(&text("login.defs")),
        }
    }

    /// Whether what listens at this address of this machine now is trusted, by
    /// the owner of the socket; `proc_root` is where the kernel shows sockets.
    pub fn trust_listener(&self, endpoint: &Endpoint, proc_root: &Path) -> bool {
        self.trust(owner_of(endpoint, proc_root))
    }

    /// Whether a listener of this owner may be sent prompts without being asked
    /// about; `None` is an owner that could not be read.
    pub fn trust(&self, uid: Option<u32>) -> bool {
        let Some(uid) = uid.filter(|it| *it != NOBODY) else {
            return false;
        };
        uid == self.own
            || uid < self.first_ordinary
            || DYNAMIC_SERVICES.contains(&uid)
            || self.subordinate.iter().any(|it| it.contains(&uid))
    }
}

/// The user who listens at this address of this machine now; `proc_root` is where the kernel
/// shows sockets. `None` if that cannot be read, or there are several.
pub fn owner_of(endpoint: &Endpoint, proc_root: &Path) -> Option<u32> {
    match endpoint.address() {
        Address::Unix(path) => fs::metadata(path).ok().map(|it| it.uid()),
        Address::Tcp { port, .. } => {
            let mut listeners = Vec::new();
            Table::open(proc_root)?.read(&mut listeners).ok()?;
            place::owner(&listeners, endpoint.ip()?, *port)
        }
    }
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn subordinate_of(uid: u32, name: Option<&str>, subuid: &str) -> Vec<Range<u32>> {
    let ranges = subuid.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        if Some(whose) != name && whose.parse() != Ok(uid) {
            return None;
        }
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        Some(start..start.saturating_add(count))
    });
    ranges.collect()
}

fn first_ordinary(login_defs: &str) -> u32 {
    let value = login_defs.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("UID_MIN")).then(|| words.next()?.parse().ok()).flatten()
    });
    value.unwrap_or(FIRST_ORDINARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(own: u32) -> (tempfile::TempDir, Owners) {
        let etc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(etc.path().join(name), text).unwrap();
        write(
            "passwd",
            "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nbob:x:1001:1001:::\n",
        );
        write("subuid", "ada:100000:65536\n1000:300000:10\nbob:165536:65536\nbroken\n");
        write("login.defs", "# UID_MIN 5\nUID_MIN\t\t\t 1000\nUID_MAX 60000\n");
        let owners = Owners::read(own, etc.path());
        (etc, owners)
    }

    #[test]
    fn ours_and_the_systems_are_trusted_and_nobody_elses() {
        for (own, uid, trusted) in [
            (1000, Some(1000), true),
            (1000, Some(0), true),
            (1000, Some(997), true),
            (1000, Some(999), true),
            (1000, Some(1001), false),
            (1000, Some(61183), false),
            (1000, Some(61184), true),
            (1000, Some(65519), true),
            (1000, Some(65520), false),
            (1000, Some(65534), false),
            (1000, Some(99_999), false),
            (1000, Some(100_000), true),
            (1000, Some(165_535), true),
            (1000, Some(165_536), false),
            (1000, Some(300_009), true),
            (1000, Some(300_010), false),
            (1000, None, false),
            // Root's daemon, and a system service of its own account.
            (0, Some(0), true),
            (0, Some(1000), false),
            (997, Some(1000), false),
            (997, Some(997), true),
            (65534, Some(65534), false),
        ] {
            assert_eq!(machine(own).1.trust(uid), trusted, "{uid:?} seen by {own}");
        }
    }

    #[test]
    fn a_system_that_says_nothing_has_the_usual_ids() {
        let owners = Owners::read(1000, Path::new("/nonexistent"));
        assert!(owners.trust(Some(999)) && !owners.trust(Some(1001)));
    }
}
