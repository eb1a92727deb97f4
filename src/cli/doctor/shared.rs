//! The check of the database that outcomes are shared in.

use super::{
    super::say,
    checks::{Finding, found},
    facts::Facts,
};

pub(super) fn postgres(facts: &Facts) -> Vec<Finding> {
    let Some(it) = facts.status.as_ref().and_then(|it| it.postgres.as_ref()) else { return Vec::new() };
    let name = say::clean(&it.database);
    let waiting = say::plural(it.waiting, "outcome");
    let Some(problem) = &it.problem else {
        return match (it.deleted_unsent, it.refused) {
            (true, _) => found(
                format!("outcomes were deleted here before PostgreSQL at {name} had them"),
                "give [stats] max_size more room: lovablectl config edit",
            ),
            (false, 0) => Vec::new(),
            (false, refused) => found(
                format!("PostgreSQL at {name} refused {}", say::plural(refused, "outcome")),
                "see whether somebody has added a constraint to lovable.outcomes there",
            ),
        };
    };
    let setting = "mend [stats] postgres: lovablectl config edit";
    let (why, fix) = match problem.as_str() {
        "unreachable" => (
            "cannot be reached",
            "see whether it runs and the address is right; what waits is sent by itself",
        ),
        "slow" => ("takes too long", "see what it is busy with; what waits is sent by itself"),
        "broken" => ("breaks the connection", "see whether that is PostgreSQL at all, and what its log says"),
        "no_tls" => (
            "does not encrypt connections",
            "turn on ssl there; where the way to it is safe, add ?sslmode=disable to [stats] postgres",
        ),
        "tls" => (
            "does not prove who it is",
            "name the file of who vouches for it: ?sslrootcert=/path/ca.pem in [stats] postgres",
        ),
        "login" => ("refuses the user or the password", setting),
        "no_database" => {
            ("has no such database", "createdb it there, or mend [stats] postgres: lovablectl config edit")
        }
        "not_allowed" => (
            "does not let the user do what is needed",
            "once: grant create on database … to …; then insert on lovable.outcomes and select on lovable.version are enough",
        ),
        "read_only" => ("is a read-only copy", setting),
        "newer" => ("has tables of a newer lovable", "update lovable on this machine"),
        "unread" => ("gets nothing: what is stored here cannot be read", "lovablectl status says why"),
        _ => ("takes nothing", "lovablectl status says why; look into its log"),
    };
    found(format!("PostgreSQL at {name} {why}; {waiting} wait"), fix)
}
