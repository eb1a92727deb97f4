//! `stats export`: all requests in a file that other programs open.
//!
//! CSV and JSON Lines are what the daemon writes; SQLite and Parquet are made of that here, so
//! that the daemon knows nothing of either. A file appears under its name only when it is whole.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    super::{Context, Exit, Trouble, say},
    Which,
    parquet::Parquet,
    sqlite::Sqlite,
};
use crate::{client, wire::RequestView};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table with one line for each request
    Csv,
    /// One JSON object for each request, with its attempts
    Jsonl,
    /// A database with tables of requests, attempts and candidates
    Sqlite,
    /// A table of requests, for DuckDB, pandas and their like
    Parquet,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What the file is
    #[arg(long, value_enum, value_name = "csv|jsonl|sqlite|parquet", hide_possible_values = false)]
    format: Format,
    /// Write it here; without it, or with -, to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let output = args.output.filter(|it| it.as_os_str() != "-");
    let query = args.which.query(None)?;
    let plain = |name: &'static str| (name, output.clone());
    match args.format {
        Format::Csv => copy(plain("csv"), &query, context).await,
        Format::Jsonl => copy(plain("jsonl"), &query, context).await,
        Format::Sqlite | Format::Parquet => {
            let Some(output) = output else {
                return Err(Trouble::Usage("this format needs a file: -o FILE".to_owned()));
            };
            let mut export = context.client.export("jsonl", &query).await?;
            let part = Part::of(&output)?;
            let count = match args.format {
                Format::Sqlite => convert(&mut export, Sqlite::create(&part.path)?, context).await?,
                _ => convert(&mut export, Parquet::create(&part.path)?, context).await?,
            };
            part.keep()?;
            told(count, &output, context)
        }
    }
}

/// What requests are put into, one after the other.
pub(super) trait Table {
    fn add(&mut self, request: &RequestView) -> Result<(), Trouble>;
    fn end(self) -> Result<(), Trouble>;
}

async fn convert(
    export: &mut client::Export,
    mut table: impl Table,
    context: &mut Context,
) -> Result<u64, Trouble> {
    let mut progress = Progress::begin();
    while let Some(line) = export.line().await {
        let line = line?;
        let request: RequestView = serde_json::from_slice(&line).map_err(|error| {
            Trouble::Failed(format!("a line of the export cannot be read (column {})", error.column()))
        })?;
        table.add(&request)?;
        progress.done(1, context)?;
    }
    table.end()?;
    progress.end(context)
}

/// Writes what the daemon says, as it comes.
async fn copy(
    (format, output): (&str, Option<PathBuf>),
    query: &client::StatsQuery,
    context: &mut Context,
) -> Result<Exit, Trouble> {
    let mut export = context.client.export(format, query).await?;
    let Some(output) = output else {
        while let Some(piece) = export.piece().await {
            context.out.bytes(&piece?)?;
        }
        return Ok(Exit::Fine);
    };
    let part = Part::of(&output)?;
    let failed =
        |error: std::io::Error| Trouble::Failed(format!("cannot write {}: {error}", output.display()));
    let mut file = BufWriter::new(File::create(&part.path).map_err(failed)?);
    let mut progress = Progress::begin();
    // Names of programs and models may hold line ends in CSV; of so many lines it says "about" for that.
    let head = u64::from(format == "csv");
    while let Some(piece) = export.piece().await {
        let piece = piece?;
        file.write_all(&piece).map_err(failed)?;
        progress.done(memchr::memchr_iter(b'\n', &piece).count() as u64, context)?;
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    part.keep()?;
    let count = progress.end(context)?.saturating_sub(head);
    told(count, &output, context)
}

fn told(count: u64, output: &Path, context: &mut Context) -> Result<Exit, Trouble> {
    let size = fs::metadata(output).map_or_else(|_| say::UNKNOWN.to_owned(), |it| say::bytes(it.len()));
    context.talk.line(format!("{} in {} ({size})", say::plural(count, "request"), output.display()))?;
    Ok(Exit::Fine)
}

/// A file that is not whole yet, beside its place; dropped, it is deleted.
struct Part {
    path: PathBuf,
    whole: PathBuf,
}

impl Part {
    fn of(whole: &Path) -> Result<Self, Trouble> {
        let mut path = whole.as_os_str().to_owned();
        path.push(".part");
        let part = Self { path: path.into(), whole: whole.to_owned() };
        if whole.is_dir() {
            return Err(Trouble::Usage(format!("{} is a directory", whole.display())));
        }
        match fs::remove_file(&part.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Trouble::Failed(format!("cannot write {}: {error}", part.path.display())))
            }
            Ok(()) | Err(_) => Ok(part),
        }
    }

    fn keep(&self) -> Result<(), Trouble> {
        fs::rename(&self.path, &self.whole)
            .map_err(|error| Trouble::Failed(format!("cannot write {}: {error}", self.whole.display())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is gone already where it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

/// Says on stderr how far it is, once that takes longer than a moment.
struct Progress {
    count: u64,
    said: Instant,
    is_said: bool,
}

impl Progress {
    fn begin() -> Self {
        Self { count: 0, said: Instant::now(), is_said: false }
    }

    fn done(&mut self, more: u64, context: &mut Context) -> Result<(), Trouble> {
        self.count += more;
        let (pause, end) = match context.talk.terminal {
            true => (Duration::from_millis(300), ""),
            false => (Duration::from_secs(5), "\n"),
        };
        if self.said.elapsed() < pause {
            return Ok(());
        }
        (self.said, self.is_said) = (Instant::now(), true);
        let begin = if context.talk.terminal { "\r" } else { "" };
        context.talk.text(&format!("{begin}{} so far{end}", say::plural(self.count, "request")))
    }

    fn end(self, context: &mut Context) -> Result<u64, Trouble> {
        if self.is_said && context.talk.terminal {
            context.talk.text("\r\x1b[K")?;
        }
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use ::parquet::{file::reader::FileReader, file::reader::SerializedFileReader, record::RowAccessor};

    use super::{super::super::sample, *};
    use crate::wire::COLUMNS;

    fn at(name: &str) -> usize {
        COLUMNS.iter().position(|(it, _)| *it == name).unwrap()
    }

    #[test]
    fn databases_and_tables_have_what_was_put_into_them() {
        let directory = tempfile::tempdir().unwrap();
        let (database, table) = (directory.path().join("a.db"), directory.path().join("a.parquet"));
        let request = sample::request();
        let mut sqlite = Sqlite::create(&database).unwrap();
        let mut parquet = Parquet::create(&table).unwrap();
        for _ in 0..3 {
            sqlite.add(&request).unwrap();
            parquet.add(&request).unwrap();
        }
        sqlite.end().unwrap();
        parquet.end().unwrap();

        let database = rusqlite::Connection::open(database).unwrap();
        let one = |query: &str| database.query_row(query, (), |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(one("SELECT sum(sent_bytes) FROM requests WHERE stream AND server = 'ollama'"), 3 * 4_096);
        assert_eq!(one("SELECT count(*) FROM attempts WHERE cause = 'refused' AND number = 1"), 3);
        assert_eq!(
            one("SELECT count(*) FROM candidates WHERE attempt = 1 AND excluded IS NULL AND rank = 2"),
            3
        );
        assert_eq!(one("SELECT count(*) FROM requests WHERE failure IS NULL AND at > '2026'"), 3);

        let reader = SerializedFileReader::new(File::open(table).unwrap()).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|it| it.unwrap()).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].get_string(at("request_id")).unwrap(), &request.request_id);
        assert_eq!(rows[2].get_long(at("sent_bytes")).unwrap(), 4_096);
        assert_eq!(rows[1].get_double(at("queued_ms")).unwrap(), 40.0);
        assert!(rows[0].get_string(at("failure")).is_err(), "it is null");
    }

    #[test]
    fn half_a_file_is_not_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("out");
        let part = Part::of(&whole).unwrap();
        fs::write(&part.path, "half").unwrap();
        drop(part);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let part = Part::of(&whole).unwrap();
        fs::write(&part.path, "all").unwrap();
        part.keep().unwrap();
        drop(part);
        assert_eq!(fs::read_to_string(whole).unwrap(), "all");
        assert!(matches!(Part::of(directory.path()), Err(Trouble::Usage(_))));
    }
}
