//! Users and groups by name, from `/etc/passwd` and `/etc/group`.
//!
//! Only the system service needs them, and its group is made by its package or
//! its unit, so directories over the network are not asked.

use std::fs;

/// The group whose members may use the daemon of the system.
pub const GROUP: &str = "lovable";

/// The number of a group.
pub fn group_id(name: &str) -> Option<u32> {
    group_line(&fs::read_to_string("/etc/group").ok()?, name).map(|(gid, _)| gid)
}

/// Whether a user belongs to a group, as a member or by its primary group.
pub fn is_member(uid: u32, group: &str) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    is_member_by(&read("/etc/passwd"), &read("/etc/group"), uid, group)
}

fn is_member_by(passwd: &str, groups: &str, uid: u32, group: &str) -> bool {
    let Some((gid, members)) = group_line(groups, group) else { return false };
    passwd.lines().any(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, user, primary, ..] = fields[..] else { return false };
        user.parse() == Ok(uid) && (primary.parse() == Ok(gid) || members.contains(&name))
    })
}

fn group_line<'a>(groups: &'a str, name: &str) -> Option<(u32, Vec<&'a str>)> {
    groups.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [found, _, gid, members] = fields[..] else { return None };
        (found == name).then_some(())?;
        Some((gid.parse().ok()?, members.split(',').filter(|it| !it.is_empty()).collect()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n\
                          bob:x:1001:990::/home/bob:/bin/sh\neve:x:1002:1002::/:/bin/sh\nbroken\n";
    const GROUPS: &str = "root:x:0:\nlovable:x:990:ada,carl\nlovable-not:x:991:eve\n";

    #[test]
    fn members_are_those_listed_and_those_whose_primary_group_it_is() {
        for (uid, member) in [(1000, true), (1001, true), (1002, false), (0, false), (7, false)] {
            assert_eq!(is_member_by(PASSWD, GROUPS, uid, "lovable"), member, "{uid}");
        }
        assert!(!is_member_by(PASSWD, GROUPS, 1000, "nobody-has-this"));
    }
}
