//! Tables for people: no borders, a header, cut to the width of the terminal by wrapping the last column.

use comfy_table::{CellAlignment, Column, ColumnConstraint, ContentArrangement, Table};

/// Builds a table whose columns have these titles. A title that begins with `>` is a column of numbers, aligned to the right.
#[must_use]
pub fn table(titles: &[&str], width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.force_no_tty();
    table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
    table.set_content_arrangement(ContentArrangement::Disabled);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    for (column, title) in table.column_iter_mut().zip(titles) {
        pad(column);
        if title.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table as lines, none of which ends with a blank.
#[must_use]
pub fn lines(table: &mut Table) -> String {
    let last = table.column_count().saturating_sub(1);
    // Only the last column may wrap: what stands before it are numbers and short words.
    for (index, column) in table.column_iter_mut().enumerate() {
        if index < last {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn pad(column: &mut Column) {
    column.set_padding((0, 2));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_wraps() {
        let mut table = table(&["NAME", ">BYTES", "WHAT"], Some(24));
        table.add_row(["a", "1", "one two three"]);
        table.add_row(["bcd", "1000", "x"]);
        insta::assert_snapshot!(lines(&mut table), @r"
        NAME  BYTES  WHAT
        a         1  one two
                     three
        bcd    1000  x
        ");
    }

    #[test]
    fn without_a_terminal_nothing_wraps() {
        let mut table = table(&["A", "B"], None);
        table.add_row(["1", &"long ".repeat(100)]);
        assert_eq!(lines(&mut table).lines().count(), 2);
    }
}
