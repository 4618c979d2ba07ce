//! The lines of a dump.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DumpError, DumpSummary, KeyOf, PAGE};

pub(super) const FORMAT: &str = "pvegraph-dump";
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    Header(Header),
    Node(Node),
    Relationship(Relationship),
    End(DumpSummary),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) dialect: String,
    /// Product, version and edition, for people.
    pub(super) store: [String; 3],
    /// Epoch seconds.
    pub(super) created: i64,
}

/// Sorted, so that equal properties are equal text.
pub(super) type Properties = BTreeMap<String, Value>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) labels: Vec<String>,
    pub(super) properties: Properties,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relationship {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) from: End,
    pub(super) to: End,
    pub(super) properties: Properties,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) label: String,
    pub(super) key: Vec<Value>,
}

pub(super) fn put(out: &mut impl Write, line: &Line) -> Result<(), DumpError> {
    serde_json::to_writer(&mut *out, line)
        .map_err(io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(|source| DumpError::File { path: PathBuf::new(), action: "writing the dump", source })
}

/// Reads the whole dump once, without keeping it.
pub(super) fn check<R: BufRead + Seek>(
    dialect: &str,
    key_of: KeyOf,
    input: &mut R,
) -> Result<DumpSummary, DumpError> {
    let is_ours = |label: &str| key_of(label).is_some();
    let mut found = DumpSummary::default();
    let mut end = None;
    let mut number = 0;
    let damaged = |line, reason: String| DumpError::Damaged { line, reason };
    for line in lines(input)? {
        number += 1;
        let line = line?;
        if end.is_some() {
            return Err(damaged(number, "there is more after its end".to_owned()));
        }
        match line {
            Line::Header(header) if number == 1 => {
                if header.format != FORMAT || header.version != VERSION {
                    let reason =
                        format!("it is {} {}, not {FORMAT} {VERSION}", header.format, header.version);
                    return Err(damaged(number, reason));
                }
                if header.dialect != dialect {
                    return Err(damaged(
                        number,
                        format!(
                            "it comes from the {} store, whose keys are not those of the {dialect} store: restore it there",
                            header.dialect
                        ),
                    ));
                }
            }
            _ if number == 1 => return Err(damaged(number, "it is not a header".to_owned())),
            Line::Header(_) => return Err(damaged(number, "it is a second header".to_owned())),
            Line::Node(node) if found.relationships == 0 && node.labels.iter().any(|it| is_ours(it)) => {
                found.nodes += 1;
            }
            Line::Node(_) => {
                return Err(damaged(number, "it is a node that is not ours, or too late".to_owned()));
            }
            Line::Relationship(it) if is_ours(&it.from.label) && is_ours(&it.to.label) => {
                found.relationships += 1
            }
            Line::Relationship(_) => return Err(damaged(number, "one of its ends is not ours".to_owned())),
            Line::End(summary) => end = Some(summary),
        }
    }
    match end {
        Some(end) if end == found => Ok(found),
        Some(end) => Err(damaged(
            number,
            format!(
                "it counts {} nodes and {} relationships, and {} and {} are there",
                end.nodes, end.relationships, found.nodes, found.relationships
            ),
        )),
        None => Err(damaged(number, "the dump is cut off after it".to_owned())),
    }
}

/// The dump's lines from its beginning.
fn lines<R: BufRead + Seek>(
    input: &mut R,
) -> Result<impl Iterator<Item = Result<Line, DumpError>>, DumpError> {
    let failed = |source| DumpError::File { path: PathBuf::new(), action: "reading the dump", source };
    input.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(input.lines().enumerate().map(move |(at, line)| {
        let line = line.map_err(failed)?;
        // The parser's message may repeat the line, which is data.
        serde_json::from_str(&line).map_err(|error| DumpError::Damaged {
            line: at + 1,
            reason: format!(
                "it is not a line of a dump ({:?} in column {})",
                error.classify(),
                error.column()
            ),
        })
    }))
}

/// What is written in batches.
pub(super) trait Batched: Sized {
    /// Whether both can go into one statement.
    fn like(&self, other: &Self) -> bool;
    /// Whether both must.
    fn inseparable(&self, other: &Self) -> bool;
    fn of(line: Line) -> Option<Self>;
}

impl Batched for Node {
    fn like(&self, other: &Self) -> bool {
        self.labels == other.labels
    }

    fn inseparable(&self, _: &Self) -> bool {
        false
    }

    fn of(line: Line) -> Option<Self> {
        match line {
            Line::Node(node) => Some(node),
            _ => None,
        }
    }
}

impl Batched for Relationship {
    fn like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.from.label == other.from.label && self.to.label == other.to.label
    }

    fn inseparable(&self, other: &Self) -> bool {
        self.like(other) && self.from.key == other.from.key && self.to.key == other.to.key
    }

    fn of(line: Line) -> Option<Self> {
        match line {
            Line::Relationship(relationship) => Some(relationship),
            _ => None,
        }
    }
}

/// The dump's nodes, or its relationships, in batches that each fit one statement: of a page, or of more where they are
/// inseparable.
pub(super) fn batches<T: Batched, R: BufRead + Seek>(
    input: &mut R,
) -> Result<impl Iterator<Item = Result<Vec<T>, DumpError>>, DumpError> {
    let mut items = lines(input)?
        .filter_map(|line| match line {
            Ok(line) => T::of(line).map(Ok),
            Err(error) => Some(Err(error)),
        })
        .peekable();
    Ok(std::iter::from_fn(move || {
        let mut batch = match items.next()? {
            Ok(first) => vec![first],
            Err(error) => return Some(Err(error)),
        };
        while let Some(next) = items.next_if(|next| match (next, batch.last()) {
            (Ok(next), Some(last)) if batch.len() < PAGE => last.like(next),
            (Ok(next), Some(last)) => last.inseparable(next),
            _ => false,
        }) {
            match next {
                Ok(next) => batch.push(next),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(batch))
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const HEADER: &str = r#"{"header":{"format":"pvegraph-dump","version":1,"dialect":"neo4j","store":["","",""],"created":1}}"#;
    const NODE: &str =
        r#"{"node":{"labels":["ProxmoxVM"],"properties":{"cpu":0.30000000000000004,"n":1,"x":1.0}}}"#;

    fn checked(lines: &[&str]) -> Result<DumpSummary, String> {
        check("neo4j", crate::dump::own_key, &mut Cursor::new(lines.join("\n")))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_dump_is_counted() {
        let relationship = r#"{"relationship":{"type":"T","from":{"label":"ProxmoxVM","key":[1]},"to":{"label":"ProxmoxDisk","key":["a",2]},"properties":{}}}"#;
        let end = r#"{"end":{"nodes":1,"relationships":1}}"#;
        assert_eq!(
            checked(&[HEADER, NODE, relationship, end]),
            Ok(DumpSummary { nodes: 1, relationships: 1 })
        );
    }

    #[test]
    fn what_is_no_whole_dump_is_refused_and_not_repeated() {
        let end = r#"{"end":{"nodes":1,"relationships":0}}"#;
        let embedded = HEADER.replace(r#""dialect":"neo4j""#, r#""dialect":"embedded""#);
        let foreign = NODE.replace("ProxmoxVM", "Person");
        let alike = NODE.replace("ProxmoxVM", "ProxmoxVMBackup");
        let lease = NODE.replace("ProxmoxVM", "PvegraphLease");
        for (lines, reason) in [
            (vec![HEADER, NODE], "line 2 of the dump: the dump is cut off"),
            (vec![HEADER, end], "counts 1 nodes"),
            (vec![HEADER, NODE, NODE, end], "2 and 0 are there"),
            (vec![HEADER, NODE, end, NODE], "more after its end"),
            (vec![NODE, end], "line 1 of the dump: it is not a header"),
            (vec![HEADER, HEADER], "second header"),
            (vec![&embedded], "comes from the embedded store"),
            (vec![HEADER, &foreign, end], "not ours"),
            (vec![HEADER, &alike, end], "not ours"),
            (vec![HEADER, &lease, end], "not ours"),
            (
                vec![HEADER, r#"{"node":{"labels":["ProxmoxVM"],"properties":"hunter2"}}"#],
                "line 2 of the dump: it is not a line",
            ),
            (vec![HEADER, r#"{"node":"#], "not a line of a dump"),
            (vec![""], "line 0"),
        ] {
            let error = checked(&lines).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_node_s_line_is_the_same_after_reading_it() {
        let Line::Node(node) = serde_json::from_str(NODE).unwrap() else { panic!("no node") };
        assert_eq!(serde_json::to_string(&Line::Node(node)).unwrap(), NODE);
    }

    #[test]
    fn a_batch_holds_what_one_statement_can_write() {
        let other = NODE.replace("ProxmoxVM", "ProxmoxNode");
        let mut lines = vec![HEADER, &other];
        lines.extend(vec![NODE; PAGE + 1]);
        let mut input = Cursor::new(lines.join("\n"));
        let sizes: Vec<usize> =
            batches::<Node, _>(&mut input).unwrap().map(|batch| batch.unwrap().len()).collect();
        assert_eq!(sizes, [1, PAGE, 1]);
    }

    #[test]
    fn what_is_between_two_nodes_stays_in_one_batch() {
        let line = |to: usize| {
            format!(
                r#"{{"relationship":{{"type":"T","from":{{"label":"ProxmoxVM","key":[1]}},"to":{{"label":"ProxmoxVM","key":[{to}]}},"properties":{{}}}}}}"#
            )
        };
        let mut lines: Vec<String> = (1..PAGE).map(line).collect();
        lines.extend(vec![line(PAGE); 3]);
        lines.extend(vec![line(PAGE + 1); PAGE + 2]);
        lines.push(line(PAGE + 2));
        let mut input = Cursor::new(lines.join("\n"));
        let sizes: Vec<usize> =
            batches::<Relationship, _>(&mut input).unwrap().map(|batch| batch.unwrap().len()).collect();
        assert_eq!(sizes, [PAGE + 2, PAGE + 2, 1]);
    }
}
