//! Canned reports: the files in `queries/`, each the single source of its text, its question and its columns.
//!
//! A report has three answers: yes, no, unknown. What the last run of each cluster could not see whole is told with the rows, so
//! that an empty answer is never falsely clean.

use std::collections::BTreeMap;

use include_dir::{Dir, include_dir};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::labels::SYNC_RUN;
use crate::store::{Rows, Statement, Store, StoreError};

static FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../queries");

/// A canned report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Its short name on the command line, such as `R1`.
    pub code: String,
    /// Its title: the file's first line, which Neo4j Browser takes as a favourite's name.
    pub title: String,
    /// What it answers.
    pub question: String,
    /// `info` or `warning`: whether a row is a finding.
    pub severity: String,
    /// Parameters with their defaults.
    pub params: BTreeMap<String, Value>,
    /// Its columns, with units.
    pub columns: String,
    /// The collectors that the answer rests on.
    pub needs: Vec<String>,
    /// What to know when reading it.
    pub note: Option<String>,
    /// The statement, as it pastes into Neo4j Browser.
    #[serde(skip)]
    pub body: String,
}

/// A file in `queries/` that is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("queries/{file}: {problem}")]
pub struct InvalidReport {
    file: String,
    problem: String,
}

impl Report {
    /// Reads a report from its file's text.
    pub fn parse(file: &str, text: &str) -> Result<Self, InvalidReport> {
        let wrong = |problem: &str| InvalidReport { file: file.to_owned(), problem: problem.to_owned() };
        let header: Vec<&str> =
            text.lines().take_while(|line| line.starts_with("//")).map(|line| line[2..].trim()).collect();
        let body: String = text.lines().skip(header.len()).collect::<Vec<_>>().join("\n");
        let (title, rest) = header.split_first().ok_or_else(|| wrong("no header comment"))?;
        let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in rest {
            let (key, value) =
                line.split_once(": ").ok_or_else(|| wrong(&format!("not `// key: value`: {line:?}")))?;
            fields.entry(key).or_default().push(value);
        }
        let mut params = BTreeMap::new();
        for param in fields.remove("param").unwrap_or_default() {
            let (name, value) =
                param.split_once(" = ").ok_or_else(|| wrong(&format!("not `name = default`: {param:?}")))?;
            let value = serde_json::from_str(value)
                .map_err(|error| wrong(&format!("the default of {name} is not JSON: {error}")))?;
            params.insert(name.to_owned(), value);
        }
        let mut one = |key: &str| {
            fields.remove(key).map(|lines| lines.join(" ")).ok_or_else(|| wrong(&format!("no `{key}:`")))
        };
        let report = Self {
            code: one("code")?,
            title: (*title).to_owned(),
            question: one("question")?,
            severity: one("severity")?,
            columns: one("columns")?,
            needs: one("needs")?.split_whitespace().map(str::to_owned).collect(),
            note: one("note").ok(),
            params,
            body,
        };
        match fields.keys().next() {
            Some(key) => Err(wrong(&format!("unknown key `{key}:`"))),
            None => Ok(report),
        }
    }

    /// The columns that hold bytes, for those who print them.
    pub fn byte_columns(&self) -> Vec<String> {
        self.columns
            .split(", ")
            .filter_map(|column| column.strip_suffix(" (bytes)"))
            .map(str::to_owned)
            .collect()
    }

    /// The statement with its parameters, `given` before the defaults.
    pub fn statement(&self, given: &Map<String, Value>) -> Statement {
        let mut statement = Statement::new(self.body.clone());
        for (name, default) in &self.params {
            statement.params.insert(name.clone(), given.get(name).unwrap_or(default).clone());
        }
        statement
    }
}

/// All reports, by code.
pub fn reports() -> Result<Vec<Report>, InvalidReport> {
    let mut reports = FILES
        .files()
        .map(|file| {
            let name = file.path().display().to_string();
            let text = file
                .contents_utf8()
                .ok_or_else(|| InvalidReport { file: name.clone(), problem: "not UTF-8".to_owned() })?;
            Report::parse(&name, text)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // `R2` before `R17`: by letter, then by number.
    reports.sort_by_key(|report| {
        let digits: String = report.code.chars().filter(char::is_ascii_digit).collect();
        (report.code.chars().next(), digits.parse::<u32>().unwrap_or(0), report.code.clone())
    });
    Ok(reports)
}

/// Something that the last run of a cluster could not see whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// The cluster.
    pub cluster_id: String,
    /// What was collected.
    pub collector: String,
    /// On which node; `None` for the whole cluster.
    pub node: Option<String>,
    /// `filtered`, `partial` or `failed`; `never` where no run collected it.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
}

impl std::fmt::Display for Unseen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cluster_id, collector, node, status, reason } = self;
        write!(f, "{cluster_id}: {collector}")?;
        if let Some(node) = node {
            write!(f, " on {node}")?;
        }
        write!(f, " {status}")?;
        match reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// A report's rows, and what to know before they are believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The rows.
    pub rows: Rows,
    /// What its inputs lack; empty where the answer is whole.
    pub unseen: Vec<Unseen>,
}

/// What the report's inputs lack, by the last run of each cluster that is in the graph.
pub async fn unseen(store: &dyn Store, needs: &[String]) -> Result<Vec<Unseen>, StoreError> {
    // A guest is known by the listing and by its node's listing; a report needs `guests` and gets all three.
    let mut wanted: Vec<&str> = needs.iter().map(String::as_str).collect();
    if wanted.contains(&"guests") {
        wanted.extend(["qemu", "lxc"]);
    }
    let clusters = store
        .read(Statement::new(
            "MATCH (c:ProxmoxCluster) RETURN c.cluster_id AS cluster_id ORDER BY cluster_id",
        ))
        .await?;
    let mut unseen = Vec::new();
    for cluster in clusters.rows.iter().filter_map(|row| row.first()?.as_str()) {
        let rows = store.read(last_collected(cluster)).await?;
        let text = |row: &[Value], at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
        for collector in needs {
            if !rows.rows.iter().any(|row| text(row, 0).as_deref() == Some(collector)) {
                unseen.push(Unseen {
                    cluster_id: cluster.to_owned(),
                    collector: collector.clone(),
                    node: None,
                    status: "never".to_owned(),
                    reason: Some("no finished run has collected it".to_owned()),
                });
            }
        }
        for row in &rows.rows {
            let (Some(collector), Some(status)) = (text(row, 0), text(row, 2)) else { continue };
            if wanted.contains(&collector.as_str()) && status != "complete" {
                unseen.push(Unseen {
                    cluster_id: cluster.to_owned(),
                    collector,
                    node: text(row, 1),
                    status,
                    reason: text(row, 3),
                });
            }
        }
    }
    Ok(unseen)
}

fn last_collected(cluster: &str) -> Statement {
    Statement::new(format!(
        "MATCH (r:{SYNC_RUN})\nWHERE r.cluster_id = $cluster_id AND r.finished_at IS NOT NULL\n\
         WITH max(r.tag) AS last\nMATCH (r:{SYNC_RUN})-[c:COLLECTED]->(:ProxmoxCluster)\n\
         WHERE r.cluster_id = $cluster_id AND r.tag = last\n\
         RETURN c.collector AS collector, c.node AS node, c.status AS status, c.reason AS reason\n\
         ORDER BY collector, node"
    ))
    .with("cluster_id", cluster)
}

/// Runs a report.
pub async fn run(
    store: &dyn Store,
    report: &Report,
    given: &Map<String, Value>,
) -> Result<Answer, StoreError> {
    let rows = store.read(report.statement(given)).await?;
    Ok(Answer { rows, unseen: unseen(store, &report.needs).await? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_report_parses_and_declares_the_parameters_it_uses() {
        let reports = reports().unwrap();
        assert_eq!(
            reports.iter().map(|report| report.code.as_str()).collect::<Vec<_>>(),
            ["Q1", "Q2", "Q3", "Q4", "Q5", "Q6", "Q7", "Q8", "R1", "R2", "R17", "R17b"]
        );
        for report in reports {
            for name in report.params.keys() {
                assert!(report.body.contains(&format!("${name}")), "{} does not use ${name}", report.code);
            }
            let used = report.body.matches('$').count();
            assert!(used >= report.params.len() && (used > 0) != report.params.is_empty(), "{}", report.code);
        }
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text =
            "// T\n// code: X\n// question: q\n// severty: info\n// columns: a\n// needs: guests\nRETURN 1";
        let error = Report::parse("X.cypher", text).unwrap_err().to_string();
        assert_eq!(error, "queries/X.cypher: no `severity:`");
    }

    #[test]
    fn given_parameters_come_before_defaults() {
        let report = reports().unwrap().into_iter().find(|report| report.code == "R17").unwrap();
        let given = Map::from_iter([("cpu".to_owned(), Value::from(0.5))]);
        let statement = report.statement(&given);
        assert_eq!(statement.params["cpu"], 0.5);
        assert_eq!(statement.params["memory"], 0.9);
    }
}
