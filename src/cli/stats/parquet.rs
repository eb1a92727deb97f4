//! Requests as a Parquet file.

use std::{fs::File, io::BufWriter, path::Path, sync::Arc};

use ::parquet::{
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::{super::Trouble, export::Table};
use crate::wire::{COLUMNS, Column, RequestView, Value, flat, from_rfc3339};

/// So many requests make a group of rows, which is what is in memory.
const GROUP: usize = 65_536;

/// A file that is filled.
pub(super) struct Parquet {
    writer: SerializedFileWriter<BufWriter<File>>,
    /// The group that is gathered, column by column.
    columns: Vec<Vec<Value>>,
}

impl From<ParquetError> for Trouble {
    fn from(error: ParquetError) -> Self {
        Self::Failed(format!("cannot write the file: {error}"))
    }
}

impl Parquet {
    pub(super) fn create(path: &Path) -> Result<Self, Trouble> {
        let columns: String = COLUMNS
            .iter()
            .map(|(name, column)| of(*column).replace("NAME", name))
            .collect::<Vec<_>>()
            .join("\n");
        let schema = parse_message_type(&format!("message requests {{ {columns} }}"))?;
        let file = File::create(path)
            .map_err(|error| Trouble::Failed(format!("cannot write {}: {error}", path.display())))?;
        let properties = Arc::new(WriterProperties::builder().build());
        let writer = SerializedFileWriter::new(BufWriter::new(file), Arc::new(schema), properties)?;
        Ok(Self { writer, columns: vec![Vec::new(); COLUMNS.len()] })
    }

    fn write_group(&mut self) -> Result<(), Trouble> {
        if self.columns[0].is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for values in &mut self.columns {
            let Some(mut column) = group.next_column()? else { break };
            write(column.untyped(), &std::mem::take(values))?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }
}

impl Table for Parquet {
    fn add(&mut self, request: &RequestView) -> Result<(), Trouble> {
        for (column, value) in self.columns.iter_mut().zip(flat(request)) {
            column.push(value);
        }
        if self.columns[0].len() >= GROUP { self.write_group() } else { Ok(()) }
    }

    fn end(mut self) -> Result<(), Trouble> {
        self.write_group()?;
        self.writer.close()?;
        Ok(())
    }
}

fn of(column: Column) -> &'static str {
    match column {
        Column::Text => "optional binary NAME (UTF8);",
        Column::Time => "optional int64 NAME (TIMESTAMP(MILLIS,true));",
        Column::Int => "optional int64 NAME;",
        Column::Real => "optional double NAME;",
        Column::Bool => "optional boolean NAME;",
    }
}

/// Writes a column: what is there, and for each row whether something is.
fn write(column: &mut ColumnWriter<'_>, values: &[Value]) -> Result<(), ParquetError> {
    let levels: Vec<i16> = values.iter().map(|it| i16::from(*it != Value::Null)).collect();
    match column {
        ColumnWriter::ByteArrayColumnWriter(column) => {
            let of =
                |it: &Value| if let Value::Text(it) = it { Some(ByteArray::from(it.as_str())) } else { None };
            column.write_batch(&values.iter().filter_map(of).collect::<Vec<_>>(), Some(&levels), None)?;
        }
        ColumnWriter::Int64ColumnWriter(column) => {
            let of = |it: &Value| match it {
                Value::Int(it) => Some(*it),
                // A moment; before 1970 nothing has happened.
                Value::Text(it) => Some(from_rfc3339(it).unwrap_or(0).cast_signed()),
                Value::Null | Value::Real(_) | Value::Bool(_) => None,
            };
            column.write_batch(&values.iter().filter_map(of).collect::<Vec<_>>(), Some(&levels), None)?;
        }
        ColumnWriter::DoubleColumnWriter(column) => {
            let of = |it: &Value| if let Value::Real(it) = it { Some(*it) } else { None };
            column.write_batch(&values.iter().filter_map(of).collect::<Vec<_>>(), Some(&levels), None)?;
        }
        ColumnWriter::BoolColumnWriter(column) => {
            let of = |it: &Value| if let Value::Bool(it) = it { Some(*it) } else { None };
            column.write_batch(&values.iter().filter_map(of).collect::<Vec<_>>(), Some(&levels), None)?;
        }
        _ => return Err(ParquetError::General("a column of a type that is not written here".to_owned())),
    }
    Ok(())
}
