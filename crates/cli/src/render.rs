//! Rows on standard output: a table for people, JSON and CSV for programs, Markdown for documents.
//!
//! # Guarantees
//! - JSON and CSV carry values as they are. Only tables and Markdown make them readable (bytes, decimals, lists).
//! - What a remote named can't drive the terminal: control characters are escaped wherever a terminal shows them.
//! - A reader that goes away (`| head`) ends the output quietly.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use humansize::{BINARY, format_size, format_size_i};
use pvegraph_graph::Rows;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// The version of the JSON output. A change that a reader could stumble over raises it.
const JSON_VERSION: u32 = 1;

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// Columns for people
    #[default]
    Table,
    /// {"version": 1, "columns": […], "rows": [{column: value}, …]}
    Json,
    /// Comma-separated values, with a heading
    Csv,
    /// A Markdown table
    Md,
}

/// Rows with what is needed to show them.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The rows.
    pub rows: Rows,
    /// Columns whose numbers are bytes; a table shows them as KiB, MiB, ….
    pub bytes: Vec<String>,
    /// Further top-level keys of the JSON, such as `complete`. The other forms leave them out: their words belong into logs.
    pub extra: Map<String, Value>,
}

impl Report {
    /// Rows with nothing special about them.
    pub fn new(rows: Rows) -> Self {
        Self { rows, ..Self::default() }
    }

    /// The same with these columns as bytes.
    #[must_use]
    pub fn with_bytes<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.bytes.extend(columns.into_iter().map(Into::into));
        self
    }

    /// The same with one more top-level key in the JSON.
    #[must_use]
    pub fn with_extra(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    /// The same with more top-level keys in the JSON.
    #[must_use]
    pub fn with_all(mut self, extra: Map<String, Value>) -> Self {
        self.extra.extend(extra);
        self
    }

    /// Prints to standard output. A reader that has gone away is no error.
    ///
    /// # Errors
    /// Standard output can't be written to, for example because a disk is full.
    pub fn print(&self, output: Output) -> io::Result<()> {
        let stdout = io::stdout().lock();
        let terminal = stdout.is_terminal();
        let mut writer = BufWriter::new(stdout);
        match self.write(output, terminal, &mut writer).and_then(|()| writer.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// Writes in one form. `terminal` says that a terminal will show it.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, output: Output, terminal: bool, writer: &mut impl Write) -> io::Result<()> {
        match output {
            Output::Table => self.table(terminal, writer),
            Output::Json => self.json(terminal, writer),
            Output::Csv => self.csv(terminal, writer),
            Output::Md => self.markdown(writer),
        }
    }

    fn json(&self, terminal: bool, writer: &mut impl Write) -> io::Result<()> {
        let text = serde_json::to_string(&Document(self))?;
        // JSON escapes the other control characters itself; of these it only permits it.
        let text = if terminal { escaped_json(&text) } else { Cow::Borrowed(&*text) };
        writeln!(writer, "{text}")
    }

    fn csv(&self, terminal: bool, writer: &mut impl Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(writer);
        let field = |text: String| if terminal { escaped(&text) } else { text };
        csv.write_record(self.rows.columns.iter().map(|name| field(name.clone())))?;
        for row in &self.rows.rows {
            csv.write_record(row.iter().map(|value| field(plain(value))))?;
        }
        csv.flush()
    }

    fn table(&self, terminal: bool, writer: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        // Some terminals, those of consoles and of scripts among them, say that they are 0 columns wide.
        let known = terminal && table.width().is_some_and(|width| width > 0);
        table.set_content_arrangement(if known {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        table.set_header(self.rows.columns.iter().map(|name| Cell::new(escaped(name))));
        for row in &self.rows.rows {
            table.add_row(self.cells(row).map(Cell::new));
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.is_numeric(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(writer, "{}", table.trim_fmt())?;
        if self.rows.rows.is_empty() {
            writeln!(writer, "(no rows)")?;
        }
        Ok(())
    }

    fn markdown(&self, writer: &mut impl Write) -> io::Result<()> {
        let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
        let escape = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "\\<");
        let names = self.rows.columns.iter().map(|name| escape(&escaped(name))).collect();
        writeln!(writer, "{}", line(names))?;
        let rules = (0..self.rows.columns.len()).map(|at| if self.is_numeric(at) { "---:" } else { "---" });
        writeln!(writer, "{}", line(rules.map(str::to_owned).collect()))?;
        for row in &self.rows.rows {
            writeln!(writer, "{}", line(self.cells(row).map(|cell| escape(&cell)).collect()))?;
        }
        Ok(())
    }

    fn cells<'a>(&'a self, row: &'a [Value]) -> impl Iterator<Item = String> + 'a {
        row.iter().enumerate().map(|(at, value)| {
            let bytes = self.rows.columns.get(at).is_some_and(|name| self.bytes.contains(name));
            readable(value, bytes)
        })
    }

    fn is_numeric(&self, column: usize) -> bool {
        let values =
            || self.rows.rows.iter().filter_map(|row| row.get(column)).filter(|value| !value.is_null());
        values().next().is_some() && values().all(Value::is_number)
    }
}

/// The JSON document. Serialised by hand, because the order of the columns is part of it.
struct Document<'a>(&'a Report);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &JSON_VERSION)?;
        map.serialize_entry("columns", &self.0.rows.columns)?;
        map.serialize_entry("rows", &Records(&self.0.rows))?;
        for (key, value) in &self.0.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

struct Records<'a>(&'a Rows);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.rows.len()))?;
        for row in &self.0.rows {
            rows.serialize_element(&Record { columns: &self.0.columns, row })?;
        }
        rows.end()
    }
}

struct Record<'a> {
    columns: &'a [String],
    row: &'a [Value],
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().zip(self.row))
    }
}

/// A value as a program wants it in CSV: exact; nothing for null.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// A value as a person wants it in a table.
fn readable(value: &Value, bytes: bool) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => escaped(text),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(size), _, _) if bytes => format_size(size, BINARY),
            (_, Some(size), _) if bytes => format_size_i(size, BINARY),
            (None, None, Some(size)) if bytes => format_size_i(size, BINARY),
            (None, None, Some(float)) => readable_float(float),
            _ => number.to_string(),
        },
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
            items.iter().map(|item| readable(item, bytes)).collect::<Vec<_>>().join(", ")
        }
        other => escaped(&other.to_string()),
    }
}

/// Four decimals tell loads and shares apart; what is smaller still is not shown as nothing.
fn readable_float(float: f64) -> String {
    const SMALLEST: f64 = 0.000_05;
    if float != 0.0 && float.abs() < SMALLEST {
        return format!("{float:.1e}");
    }
    let text = format!("{float:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Control characters, and the marks that reorder text, in their escaped form.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if drives_terminal(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn escaped_json(text: &str) -> Cow<'_, str> {
    if !text.contains(drives_terminal) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if drives_terminal(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    Cow::Owned(text.chars().map(escape).collect())
}

fn drives_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}
