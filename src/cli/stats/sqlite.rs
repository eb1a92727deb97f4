//! Requests as a SQLite database.

use std::path::Path;

use rusqlite::{Connection, params, params_from_iter, types::ToSql};

use super::{super::Trouble, export::Table};
use crate::wire::{AttemptView, COLUMNS, CandidateView, Column, RequestView, Value, flat};

/// So many requests are written in one transaction.
const AT_ONCE: i64 = 20_000;

const OTHERS: &str = "
CREATE TABLE attempts (
  request INTEGER NOT NULL REFERENCES requests (id), number INTEGER NOT NULL,
  server TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL,
  after_ms REAL NOT NULL, first_token_ms REAL, total_ms REAL NOT NULL, requests INTEGER NOT NULL,
  stage TEXT, cause TEXT, status INTEGER, fault TEXT,
  input_tokens INTEGER, output_tokens INTEGER, cost_usd REAL,
  PRIMARY KEY (request, number)
) WITHOUT ROWID;
CREATE TABLE candidates (
  request INTEGER NOT NULL REFERENCES requests (id), attempt INTEGER,
  place INTEGER NOT NULL, server TEXT NOT NULL, model TEXT NOT NULL,
  rank INTEGER, behind TEXT, excluded TEXT
);
";
const INDEXES: &str = "
CREATE INDEX requests_by_request_id ON requests (request_id);
CREATE INDEX requests_by_at ON requests (at);
CREATE INDEX candidates_by_request ON candidates (request);
";

/// A database that is filled.
pub(super) struct Sqlite {
    db: Connection,
    insert: String,
    count: i64,
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(format!("cannot write the database: {error}"))
    }
}

impl Sqlite {
    pub(super) fn create(path: &Path) -> Result<Self, Trouble> {
        let db = Connection::open(path)?;
        // Half a file is deleted, so nothing has to be recovered of it.
        db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        let columns: Vec<_> =
            COLUMNS.iter().map(|(name, column)| format!("{name} {}", of(*column))).collect();
        db.execute_batch(&format!(
            "CREATE TABLE requests (id INTEGER PRIMARY KEY, {});",
            columns.join(", ")
        ))?;
        db.execute_batch(OTHERS)?;
        db.execute_batch("BEGIN")?;
        let places = vec!["?"; COLUMNS.len() + 1].join(", ");
        Ok(Self { db, insert: format!("INSERT INTO requests VALUES ({places})"), count: 0 })
    }

    fn attempt(&self, number: i64, it: &AttemptView) -> Result<(), Trouble> {
        let insert = "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
        let fault = it.fault.as_ref();
        let stage = fault.and_then(|it| serde_json::to_value(it.stage).ok()?.as_str().map(str::to_owned));
        self.db.prepare_cached(insert)?.execute(params![
            self.count,
            number,
            it.server.as_str(),
            it.kind.as_str(),
            it.model.as_str(),
            it.after_ms,
            it.first_token_ms,
            it.total_ms,
            it.requests,
            stage,
            fault.map(|it| &it.cause),
            fault.and_then(|it| it.status),
            fault.map(|it| &it.message),
            it.usage.input_tokens.map(|it| it.cast_signed()),
            it.usage.output_tokens.map(|it| it.cast_signed()),
            it.cost_usd,
        ])?;
        Ok(())
    }

    fn candidates(&self, attempt: Option<i64>, those: &[CandidateView]) -> Result<(), Trouble> {
        let mut insert = self.db.prepare_cached("INSERT INTO candidates VALUES (?,?,?,?,?,?,?,?)")?;
        for (place, it) in those.iter().enumerate() {
            insert.execute(params![
                self.count,
                attempt,
                i64::try_from(place + 1).unwrap_or(i64::MAX),
                it.server.as_str(),
                it.model.as_str(),
                it.rank,
                it.behind,
                it.excluded,
            ])?;
        }
        Ok(())
    }
}

impl Table for Sqlite {
    fn add(&mut self, request: &RequestView) -> Result<(), Trouble> {
        self.count += 1;
        let id: Box<dyn ToSql> = Box::new(self.count);
        let values = std::iter::once(id).chain(flat(request).into_iter().map(sql));
        self.db.prepare_cached(&self.insert)?.execute(params_from_iter(values))?;
        for (attempt, number) in request.attempts.iter().zip(1..) {
            self.attempt(number, attempt)?;
            self.candidates(Some(number), &attempt.candidates)?;
        }
        if request.attempts.is_empty() {
            self.candidates(None, &request.candidates)?;
        }
        if self.count % AT_ONCE == 0 {
            self.db.execute_batch("COMMIT; BEGIN")?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Trouble> {
        self.db.execute_batch(INDEXES)?;
        self.db.execute_batch("COMMIT")?;
        self.db.close().map_err(|(_, error)| error.into())
    }
}

fn of(column: Column) -> &'static str {
    match column {
        Column::Text | Column::Time => "TEXT",
        Column::Int | Column::Bool => "INTEGER",
        Column::Real => "REAL",
    }
}

fn sql(value: Value) -> Box<dyn ToSql> {
    match value {
        Value::Null => Box::new(rusqlite::types::Null),
        Value::Text(it) => Box::new(it),
        Value::Int(it) => Box::new(it),
        Value::Real(it) => Box::new(it),
        Value::Bool(it) => Box::new(it),
    }
}
