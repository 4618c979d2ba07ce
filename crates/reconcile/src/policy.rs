//! Policies: Cypher that is asked about a plan, in read mode, with the estate as it would be after it. A row is something that must
//! not be.

use std::collections::BTreeMap;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use pvegraph_graph::{Rows, Statement, Store};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::after::Estate;
use crate::canonical::hex;
use crate::plan::{Plan, Remark};

static FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../policies");

/// How long one policy may take. One that takes longer denies.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How many rows of one policy are told.
const TOLD: usize = 20;

/// What a row of a policy does to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It blocks it.
    Deny,
    /// It is shown.
    Warn,
}

impl Severity {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Warn => "warn",
        }
    }

    /// The severity of this word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Deny, Self::Warn].into_iter().find(|severity| severity.as_str() == word)
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub title: Option<String>,
    /// What a row does.
    pub severity: Severity,
    /// What to do about a row.
    pub mend: Option<String>,
    /// The statement.
    pub cypher: String,
}

/// A file that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} is no policy: {problem}")]
pub struct InvalidPolicy {
    file: String,
    problem: String,
}

impl Policy {
    /// Reads a file: a header of comments (`// Title`, then `// name:`, `// severity:`, `// mend:`), and the statement.
    ///
    /// # Errors
    /// What is missing or not understood.
    pub fn parse(file: &str, text: &str) -> Result<Self, InvalidPolicy> {
        let wrong = |problem: String| InvalidPolicy { file: file.to_owned(), problem };
        let header: Vec<&str> =
            text.lines().take_while(|line| line.starts_with("//")).map(|line| line[2..].trim()).collect();
        let cypher = text.lines().skip(header.len()).collect::<Vec<_>>().join("\n").trim().to_owned();
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        let mut title = None;
        for line in header {
            match line.split_once(": ") {
                Some((key @ ("name" | "severity" | "mend"), value)) => {
                    if fields.insert(key, value.trim()).is_some() {
                        return Err(wrong(format!("`// {key}:` stands twice")));
                    }
                }
                _ if title.is_none() => title = Some(line.to_owned()),
                _ => return Err(wrong(format!("not `// name:`, `// severity:` or `// mend:`: {line:?}"))),
            }
        }
        let severity = fields.get("severity").copied().unwrap_or("deny");
        let severity = Severity::of(severity)
            .ok_or_else(|| wrong(format!("`// severity:` is {severity:?}: write deny or warn")))?;
        let name = fields.get("name").copied().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 100 || !name.chars().all(plain) {
            let text = "`// name:` is missing, or has more than 100 letters, digits, `-`, `_` and `.`";
            return Err(wrong(text.to_owned()));
        }
        if cypher.is_empty() {
            return Err(wrong("there is no statement under the header".to_owned()));
        }
        let mend = fields.get("mend").map(|text| (*text).to_owned());
        Ok(Self { name: name.to_owned(), title, severity, mend, cypher })
    }

    /// SHA-256 of the statement and what a row of it does.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(format!("{}\n{}", self.severity.as_str(), self.cypher).as_bytes()))
    }

    /// The statement with its parameters.
    pub fn statement(&self, cluster: &str, operations: &[Value], estate: &Estate) -> Statement {
        Statement::new(self.cypher.clone())
            .with("cluster_id", cluster)
            .with("operations", operations.to_vec())
            .with("guests", estate.guests.clone())
            .with("nodes", estate.nodes.clone())
    }
}

/// The policies that come with the program.
///
/// # Errors
/// A file is no policy.
pub fn shipped() -> Result<Vec<Policy>, InvalidPolicy> {
    let mut all = FILES
        .files()
        .map(|file| {
            let name = file.path().display().to_string();
            Policy::parse(&name, file.contents_utf8().unwrap_or_default())
        })
        .collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Asks every policy about the plan and enters what they say. A plan without operations changes nothing, and is not asked about.
pub async fn enter(store: &dyn Store, policies: &[Policy], estate: &Estate, plan: &mut Plan) {
    if plan.operations.is_empty() {
        return;
    }
    let operations: Vec<Value> = plan
        .operations
        .iter()
        .map(|op| {
            json!({
                "number": op.number, "uid": op.uid, "vmid": op.vmid, "node": op.node, "action": op.action.as_str(),
                "effect": op.effect.to_string(), "reversible": op.reversible, "fields": op.fields, "affects": op.affects,
            })
        })
        .collect();
    for policy in policies {
        plan.policies.insert(policy.name.clone(), policy.sha256());
        let asked = store.read(policy.statement(&plan.cluster, &operations, estate));
        let subject = format!("policy {}", policy.name);
        let remark = |text: String| Remark {
            subject: subject.clone(),
            field: policy.severity.as_str().to_owned(),
            text,
        };
        let rows = match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                let text = format!(
                    "it could not be asked, which denies: {error}; mend it, or `pvegraph policy remove {}`",
                    policy.name
                );
                plan.blocked.push(remark(text));
                continue;
            }
            Err(_) => {
                let text = format!(
                    "it did not answer within {} s, which denies: make it simpler",
                    TIMEOUT.as_secs()
                );
                plan.blocked.push(remark(text));
                continue;
            }
        };
        let told = told(&rows, policy.mend.as_deref()).into_iter().map(remark);
        match policy.severity {
            Severity::Deny => plan.blocked.extend(told),
            Severity::Warn => plan.warnings.extend(told),
        }
    }
}

/// The rows as texts.
fn told(rows: &Rows, mend: Option<&str>) -> Vec<String> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mend = mend.map(|mend| format!(": {mend}")).unwrap_or_default();
    let mut told: Vec<String> = rows
        .rows
        .iter()
        .take(TOLD)
        .map(|row| {
            let cells = rows.columns.iter().zip(row).map(|(name, value)| format!("{name} {}", plain(value)));
            format!("{}{mend}", cells.collect::<Vec<_>>().join(", "))
        })
        .collect();
    if rows.rows.len() > TOLD {
        told.push(format!("and {} rows more", rows.rows.len() - TOLD));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_understood() {
        let names: Vec<_> = shipped().unwrap().into_iter().map(|policy| policy.name).collect();
        assert_eq!(names, ["anti-affinity", "n-plus-one-memory"]);
        assert!(shipped().unwrap().iter().all(|policy| policy.mend.is_some() && policy.title.is_some()));
    }

    #[test]
    fn a_file_that_is_none_is_told_what_it_lacks() {
        for (text, word) in [
            ("RETURN 1", "`// name:` is missing"),
            ("// name: a b\nRETURN 1", "`// name:`"),
            ("// name: a\n// severity: denny\nRETURN 1", "write deny or warn"),
            ("// name: a\n// name: b\nRETURN 1", "stands twice"),
            ("// T\n// name: a\n// severty: warn\nRETURN 1", "severty"),
            ("// name: a\n", "no statement"),
        ] {
            let error = Policy::parse("p.cypher", text).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("p.cypher"), "{error}");
        }
        let policy = Policy::parse("p.cypher", "// name: a\n// severity: warn\nRETURN 1\n").unwrap();
        assert_eq!((policy.severity, &*policy.cypher), (Severity::Warn, "RETURN 1"));
        let denying = Policy { severity: Severity::Deny, ..policy.clone() };
        assert_ne!(policy.sha256(), denying.sha256());
    }

    #[test]
    fn rows_are_told_and_not_without_end() {
        let rows = Rows {
            columns: vec!["a".to_owned(), "b".to_owned()],
            rows: vec![vec![json!("x"), json!(1)]; 25],
        };
        let told = told(&rows, Some("stop it"));
        assert_eq!(told.len(), 21);
        assert_eq!((&*told[0], &*told[20]), ("a x, b 1: stop it", "and 5 rows more"));
    }
}
