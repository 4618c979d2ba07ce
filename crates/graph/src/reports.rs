//! Canned reports: the files in `queries/`, each the single source of its text, its question and its columns.
//!
//! A report has three answers: yes, no, unknown. What the last run of each cluster could not see whole is told with the rows, so
//! that an empty answer is never falsely clean; a graph into which no cluster was ever synced knows nothing at all.

use std::collections::{BTreeMap, BTreeSet};

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

/// A parameter whose value is of another kind than the report compares with. The store would not refuse it: the comparison
/// gives null, and with it an answer without rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter {name:?} of report {code} is a {wanted}, and not the {found}")]
pub struct InvalidParam {
    code: String,
    name: String,
    wanted: String,
    found: String,
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "truth value",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
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

    /// Checks that each given parameter is of its default's kind. Null is always allowed.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self, given: &Map<String, Value>) -> Result<(), InvalidParam> {
        for (name, default) in &self.params {
            let Some(value) = given.get(name).filter(|value| !value.is_null()) else { continue };
            if !default.is_null() && kind(value) != kind(default) {
                return Err(InvalidParam {
                    code: self.code.clone(),
                    name: name.clone(),
                    wanted: format!("{}, such as {default}", kind(default)),
                    found: format!("{} {value}", kind(value)),
                });
            }
        }
        Ok(())
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
    /// `filtered`, `partial` or `failed`; `never` where no run collected it; `unfinished` where the last run has no end.
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
    /// When the run ended that saw each cluster last, in epoch seconds, by `cluster_id`.
    pub as_of: BTreeMap<String, i64>,
}

/// Stands for a cluster where there is none.
const NO_CLUSTER: &str = "(none)";

/// What concerns a run as a whole, and no collector of it.
const WHOLE_RUN: &str = "cluster";

/// What the report's inputs lack, by the last runs of each cluster that the graph knows, and when each was seen last.
///
/// # Errors
/// The store's.
pub async fn unseen(
    store: &dyn Store,
    needs: &[String],
) -> Result<(Vec<Unseen>, BTreeMap<String, i64>), StoreError> {
    let runs = store.read(all_runs()).await?;
    let nodes = store.read(Statement::new("MATCH (c:ProxmoxCluster) RETURN c.cluster_id AS cluster_id"));
    let nodes = nodes.await?;
    // A cluster that no run could read yet is not in the graph, but its runs are.
    let clusters: BTreeSet<&str> =
        runs.rows.iter().chain(&nodes.rows).filter_map(|row| row.first()?.as_str()).collect();
    let mut as_of = BTreeMap::new();
    if clusters.is_empty() {
        let nothing = needs.iter().map(|collector| Unseen {
            cluster_id: NO_CLUSTER.to_owned(),
            collector: collector.clone(),
            node: None,
            status: "never".to_owned(),
            reason: Some("no cluster has been synced into this graph".to_owned()),
        });
        return Ok((nothing.collect(), as_of));
    }
    let mut unseen = Vec::new();
    for cluster in clusters {
        let rows = store.read(last_collected(cluster)).await?;
        let last = rows.get(0, "tag").and_then(Value::as_i64);
        // The newest first.
        let mine: Vec<Ended> = runs
            .rows
            .iter()
            .filter(|row| row.first().and_then(Value::as_str) == Some(cluster))
            .filter_map(|row| Ended::of(row))
            .collect();
        if let Some(at) = mine.iter().find(|run| Some(run.tag) == last).and_then(|run| run.finished_at) {
            as_of.insert(cluster.to_owned(), at);
        }
        unseen.extend(of_runs(cluster, &mine, last));
        unseen.extend(of_scopes(cluster, &rows, needs));
    }
    Ok((unseen, as_of))
}

/// How one run ended.
struct Ended {
    tag: i64,
    finished_at: Option<i64>,
    failed: bool,
    reason: Option<String>,
}

impl Ended {
    fn of(row: &[Value]) -> Option<Self> {
        Some(Self {
            tag: row.get(1)?.as_i64()?,
            finished_at: row.get(2).and_then(Value::as_i64),
            failed: row.get(3).and_then(Value::as_str) == Some("failed"),
            reason: row.get(4).and_then(Value::as_str).map(str::to_owned),
        })
    }
}

fn all_runs() -> Statement {
    Statement::new(format!(
        "MATCH (r:{SYNC_RUN})\n\
         RETURN r.cluster_id AS cluster_id, r.tag AS tag, r.finished_at AS finished_at, r.status AS status,\n    \
         r.reason AS reason\nORDER BY tag DESC"
    ))
}

/// What the runs after the one with the tag `last`, which saw the cluster, say of it. `runs` begins with the newest.
fn of_runs(cluster: &str, runs: &[Ended], last: Option<i64>) -> Vec<Unseen> {
    let told = |status: &str, reason: Option<String>| Unseen {
        cluster_id: cluster.to_owned(),
        collector: WHOLE_RUN.to_owned(),
        node: None,
        status: status.to_owned(),
        reason,
    };
    let mut unseen = Vec::new();
    if runs.first().is_some_and(|run| run.finished_at.is_none()) {
        let reason = "the last run was cut off, or is under way: some of what it saw is in the graph";
        unseen.push(told("unfinished", Some(reason.to_owned())));
    }
    // A run that could not read the cluster has collected nothing.
    if let Some(run) = runs.iter().find(|run| run.finished_at.is_some())
        && run.failed
        && Some(run.tag) != last
    {
        unseen.push(told("failed", run.reason.clone()));
    }
    unseen
}

/// What the run that saw the cluster last could not see whole, or not at all.
fn of_scopes(cluster: &str, rows: &Rows, needs: &[String]) -> Vec<Unseen> {
    // A guest is known by the listing and by its node's listing; a report needs `guests` and gets all three.
    let mut wanted: Vec<&str> = needs.iter().map(String::as_str).collect();
    if wanted.contains(&"guests") {
        wanted.extend(["qemu", "lxc"]);
    }
    let text = |row: &[Value], at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
    let mut unseen = Vec::new();
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
            let (node, reason) = (text(row, 1), text(row, 3));
            unseen.push(Unseen { cluster_id: cluster.to_owned(), collector, node, status, reason });
        }
    }
    unseen
}

/// The scopes of the last run that collected anything.
fn last_collected(cluster: &str) -> Statement {
    Statement::new(format!(
        "MATCH (r:{SYNC_RUN})-[c:COLLECTED]->(:ProxmoxCluster)\nWHERE r.cluster_id = $cluster_id\n\
         WITH max(r.tag) AS last\nMATCH (r:{SYNC_RUN})-[c:COLLECTED]->(:ProxmoxCluster)\n\
         WHERE r.cluster_id = $cluster_id AND r.tag = last\n\
         RETURN c.collector AS collector, c.node AS node, c.status AS status, c.reason AS reason, r.tag AS tag\n\
         ORDER BY collector, node"
    ))
    .with("cluster_id", cluster)
}

/// Runs a report.
///
/// # Errors
/// The store's.
pub async fn run(
    store: &dyn Store,
    report: &Report,
    given: &Map<String, Value>,
) -> Result<Answer, StoreError> {
    let rows = store.read(report.statement(given)).await?;
    let (unseen, as_of) = unseen(store, &report.needs).await?;
    Ok(Answer { rows, unseen, as_of })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_report_parses_and_declares_the_parameters_it_uses() {
        let reports = reports().unwrap();
        assert_eq!(
            reports.iter().map(|report| report.code.as_str()).collect::<Vec<_>>(),
            ["Q1", "Q2", "Q3", "Q4", "Q5", "Q6", "Q7", "Q8", "R1", "R2", "R17", "R17b", "R18"]
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

    #[test]
    fn a_parameter_of_another_kind_is_refused() {
        let report = reports().unwrap().into_iter().find(|report| report.code == "R17").unwrap();
        let given = |value: Value| Map::from_iter([("cpu".to_owned(), value)]);
        let error = report.check(&given("hot".into())).unwrap_err().to_string();
        assert_eq!(
            error,
            "parameter \"cpu\" of report R17 is a number, such as 0.8, and not the text \"hot\""
        );
        for fine in [Value::from(1), Value::from(0.5), Value::Null] {
            assert_eq!(report.check(&given(fine)), Ok(()));
        }
    }

    #[test]
    fn a_run_after_the_last_whole_one_is_told() {
        let run =
            |tag, finished_at, failed| Ended { tag, finished_at, failed, reason: Some("why".to_owned()) };
        let told = |runs: &[Ended]| -> Vec<String> {
            of_runs("rig", runs, Some(1)).into_iter().map(|unseen| unseen.status).collect()
        };
        assert!(told(&[run(1, Some(10), false)]).is_empty());
        // Its scopes tell what failed of a run that collected something.
        assert!(told(&[run(1, Some(10), true)]).is_empty());
        assert_eq!(told(&[run(2, Some(20), true), run(1, Some(10), false)]), ["failed"]);
        assert_eq!(told(&[run(2, None, false), run(1, Some(10), false)]), ["unfinished"]);
        assert_eq!(
            told(&[run(3, None, false), run(2, Some(20), true), run(1, Some(10), false)]),
            ["unfinished", "failed"]
        );
    }
}
