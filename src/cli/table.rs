//! Tables that fit the terminal.
//!
//! When the room is short, first the columns that matter least leave, then the
//! ones that may shrink do. Without a terminal there is no width, and nothing
//! is left out.

use super::{
    out::{Ink, Look},
    say,
};

/// A column: its title and what may happen to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    /// Below this it does not shrink; `usize::MAX` when it does not shrink at all.
    least: usize,
    /// The higher, the sooner it leaves; 0 stays.
    leaves: u8,
    right: bool,
}

impl Column {
    /// A column that stays as it is.
    pub(super) const fn new(title: &'static str) -> Self {
        Self { title, least: usize::MAX, leaves: 0, right: false }
    }

    /// It may shrink to `least` cells.
    pub(super) const fn shrinks(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// It may leave; higher numbers leave first.
    pub(super) const fn leaves(self, leaves: u8) -> Self {
        Self { leaves, ..self }
    }

    /// Its cells end at the same place, as numbers do.
    pub(super) const fn right(self) -> Self {
        Self { right: true, ..self }
    }
}

/// A cell: what is in it and how it looks.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    ink: Ink,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), ink: Ink::Plain }
    }
}

impl Cell {
    /// A cell in some ink.
    pub(super) fn inked(text: impl Into<String>, ink: Ink) -> Self {
        Self { text: text.into(), ink }
    }
}

const GAP: usize = 2;

/// The table as text, one line per row, each ending with a line feed.
pub(super) fn table(columns: &[Column], rows: &[Vec<Cell>], look: Look) -> String {
    let widths = fit(columns, rows, look.width);
    let mut text = String::new();
    let titles: Vec<Cell> = columns.iter().map(|it| Cell::inked(it.title, Ink::Dim)).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let cells = columns.iter().zip(row).zip(&widths);
        let mut shown =
            cells.filter_map(|((column, cell), width)| Some((column, cell, (*width)?))).peekable();
        while let Some((column, cell, width)) = shown.next() {
            let content = say::cut(&cell.text, width);
            let padding = width - say::width(&content);
            if column.right {
                text.extend(std::iter::repeat_n(' ', padding));
            }
            text.push_str(&look.paint(cell.ink, &content));
            // No blanks at the end of a line.
            if shown.peek().is_some() {
                let after = if column.right { GAP } else { padding + GAP };
                text.extend(std::iter::repeat_n(' ', after));
            }
        }
        text.push('\n');
    }
    text
}

/// The width of each column; `None` where it left.
fn fit(columns: &[Column], rows: &[Vec<Cell>], room: Option<usize>) -> Vec<Option<usize>> {
    let natural = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|it| say::width(&it.text));
        cells.chain([say::width(columns[at].title)]).max().unwrap_or(0)
    };
    let mut widths: Vec<Option<usize>> = (0..columns.len()).map(|it| Some(natural(it))).collect();
    let Some(room) = room else { return widths };
    let needed = |widths: &[Option<usize>], shrunk: bool| {
        let shown = widths.iter().zip(columns).filter_map(|(width, column)| {
            Some((*width)?.min(if shrunk { column.least } else { usize::MAX }))
        });
        shown.fold(0, |sum, it| sum + it + GAP).saturating_sub(GAP)
    };
    while needed(&widths, true) > room {
        let present = (0..columns.len()).filter(|it| widths[*it].is_some() && columns[*it].leaves > 0);
        let Some(least) = present.max_by_key(|it| columns[*it].leaves) else { break };
        widths[least] = None;
    }
    while needed(&widths, false) > room {
        // The widest gives first, so that all that shrink end about equal.
        let shrinking =
            (0..columns.len()).filter(|it| widths[*it].is_some_and(|width| width > columns[*it].least));
        let Some(widest) = shrinking.max_by_key(|it| widths[*it]) else { break };
        widths[widest] = widths[widest].map(|it| it - 1);
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::new("ID").shrinks(4), Column::new("N").right(), Column::new("URL").shrinks(6).leaves(1)];

    fn draw(width: Option<usize>) -> String {
        let rows = [
            vec!["ollama".into(), "12".into(), "http://127.0.0.1:11434".into()],
            vec!["a-very-long-name".into(), "7".into(), "unix:/x".into()],
        ];
        table(&COLUMNS, &rows, Look { width, color: false })
    }

    #[test]
    fn without_a_width_nothing_is_left_out() {
        insta::assert_snapshot!(draw(None), @r"
        ID                 N  URL
        ollama            12  http://127.0.0.1:11434
        a-very-long-name   7  unix:/x
        ");
    }

    #[test]
    fn wide_columns_give_first() {
        insta::assert_snapshot!(draw(Some(30)), @r"
        ID             N  URL
        ollama        12  http://127.…
        a-very-long…   7  unix:/x
        ");
    }

    #[test]
    fn a_column_that_matters_less_leaves() {
        insta::assert_snapshot!(draw(Some(14)), @r"
        ID           N
        ollama      12
        a-very-lo…   7
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_once_the_smallest_fits() {
        for width in 10..80 {
            for line in draw(Some(width)).lines() {
                assert!(say::width(line) <= width, "{width}: {line}");
            }
        }
    }
}
