//! The tables, and what is said to a database about them.
//!
//! The columns of an outcome are those of the exports, in their order: a new one there is a new
//! one here, added by whoever knows it first. What else changes is a step of `STEPS`. Both
//! numbers stand in `lovable.version`.

use crate::wire::{COLUMNS, Column};

/// Whoever has this lock makes tables; the others wait. Any number that nobody else takes.
pub(super) const LOCK: &str = "set local lock_timeout = '20s'; select pg_advisory_xact_lock(7811321942)";

/// Whether there are tables at all.
pub(super) const IS_THERE: &str = "select to_regclass('lovable.version') is not null";
/// Whether there is a place for them: who may not make one may still use it.
pub(super) const HAS_SCHEMA: &str = "select to_regnamespace('lovable') is not null";
pub(super) const NEW_SCHEMA: &str = "create schema lovable";
/// How far they are.
pub(super) const VERSION: &str = "select layout, columns from lovable.version";

/// From nothing to the present layout. A step never changes again; a new one comes behind.
pub(super) const STEPS: [&str; 1] = [r#"
create table lovable.version (layout integer not null, columns integer not null);
insert into lovable.version values (0, 0);
create table lovable.outcomes (
  id uuid primary key,
  daemon text not null,
  written_at timestamptz not null default now(),
  attempt_list jsonb not null,
  "at" timestamptz not null
);
create index outcomes_by_at on lovable.outcomes ("at");
create index outcomes_by_daemon on lovable.outcomes (daemon, "at");
comment on table lovable.outcomes is 'One row for each request that a lovable daemon has answered';
comment on column lovable.outcomes.daemon is 'Which daemon, by a name that it gave itself';
"#];

/// How far tables are when all is done, as the database counts: steps and columns.
pub(super) fn present() -> (i32, i32) {
    let count = |it: usize| i32::try_from(it).unwrap_or(i32::MAX);
    (count(STEPS.len()), count(COLUMNS.len()))
}

/// What brings tables from there to the present, in one go; empty where nothing is to be done.
pub(super) fn upgrade((layout, columns): (i32, i32)) -> String {
    let skip = |it: i32| usize::try_from(it).unwrap_or(0);
    let (to_layout, to_columns) = present();
    let mut text: String = STEPS.iter().skip(skip(layout)).copied().collect();
    for (name, column) in COLUMNS.iter().skip(skip(columns)) {
        let of = of(*column);
        text.push_str(&format!("alter table lovable.outcomes add column if not exists \"{name}\" {of};\n"));
    }
    if !text.is_empty() {
        text.push_str(&format!(
            "update lovable.version set layout = {to_layout}, columns = greatest(columns, {to_columns});\n"
        ));
    }
    text
}

/// Puts outcomes in: `$1` is all of them as JSON, `$2` who sends them. One that is there already
/// stays as it is; the right to insert is enough.
pub(super) fn insert() -> String {
    let (mut names, mut types) = (String::new(), String::new());
    for (name, column) in &COLUMNS {
        names.push_str(&format!(", \"{name}\""));
        types.push_str(&format!(", \"{name}\" {}", of(*column)));
    }
    format!(
        "insert into lovable.outcomes (id, daemon, attempt_list{names}) \
         select id, $2, attempt_list{names} \
         from jsonb_to_recordset($1::jsonb) as it (id uuid, attempt_list jsonb{types}) \
         on conflict do nothing"
    )
}

fn of(column: Column) -> &'static str {
    match column {
        Column::Text => "text",
        Column::Time => "timestamptz",
        Column::Int => "bigint",
        Column::Real => "double precision",
        Column::Bool => "boolean",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_from_anywhere_to_the_present_and_stay_there() {
        assert_eq!(upgrade(present()), "");
        let new = upgrade((0, 0));
        assert!(new.starts_with(STEPS[0]));
        assert_eq!(new.matches("add column").count(), COLUMNS.len());
        let (layout, columns) = present();
        let one_more = upgrade((layout, columns - 1));
        assert_eq!((one_more.matches("add column").count(), one_more.contains("create")), (1, false));
        // What a newer one has added is none of our business.
        assert_eq!(upgrade((layout, columns + 3)), "");
    }

    #[test]
    fn every_column_of_the_exports_is_put_in() {
        let insert = insert();
        for (name, _) in COLUMNS {
            assert_eq!(insert.matches(&format!(", \"{name}\"")).count(), 3, "{name}");
        }
    }
}
