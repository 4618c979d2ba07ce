//! Schema statements, beside others that make the same and after some that died of it.
//!
//! `IF NOT EXISTS` does not say all that it seems to: the server looks first and makes it then, and does not hold both together.
//! A constraint it makes in two steps, its index first, and it notices between them that the program that asked for it is gone.
//! Then the index stays, `POPULATING` at 100 % for ever, and is in the way of the constraint, which it has the name of. (Seen
//! with 5.26; `DROP CONSTRAINT` knows nothing of it.)

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Neo4jStore;
use crate::store::{Statement, Store, StoreError};

/// For how long what is in the way may still become what was to be made. It takes milliseconds on a graph without data.
const IN_THE_MAKING: Duration = Duration::from_secs(2);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs one schema statement. One that says `IF NOT EXISTS` waits for whoever makes the same, and takes the place of what a
/// killed program left half made.
pub(super) async fn make(store: &Neo4jStore, text: &str) -> Result<(), StoreError> {
    let statement = Statement::new(text.to_owned());
    let text = in_one_line(text);
    let mut until = Instant::now() + IN_THE_MAKING;
    let mut cleared = false;
    loop {
        match store.retried("schema", || store.alone_once("schema", &statement, false)).await {
            Err(error) if is_in_the_way(&error) && text.contains(" IF NOT EXISTS ") => {
                if Instant::now() < until {
                    sleep(LOOK_EVERY).await;
                } else if cleared || !clear(store, &text).await? {
                    return Err(error);
                } else {
                    (cleared, until) = (true, Instant::now() + IN_THE_MAKING);
                }
            }
            result => return result.map(drop),
        }
    }
}

fn is_in_the_way(error: &StoreError) -> bool {
    let StoreError::Statement { code, .. } = error else { return false };
    code.strip_prefix("Neo.ClientError.Schema.").is_some_and(|it| it.ends_with("AlreadyExists"))
}

/// Drops the index that a constraint left half made. Another one of that name, of another label or of other properties, is
/// somebody's own and stays. Whether there was one.
async fn clear(store: &Neo4jStore, text: &str) -> Result<bool, StoreError> {
    let Some(Constraint { name, label, properties }) = constraint(text) else { return Ok(false) };
    let show = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint
                WHERE name = $name AND type = 'RANGE' AND entityType = 'NODE' AND owningConstraint IS NULL
                RETURN labelsOrTypes, properties";
    let found = store.read(Statement::new(show).with("name", name)).await?;
    let is_its_own = |(at, column, wanted): (usize, &str, &Value)| found.get(at, column) == Some(wanted);
    if !is_its_own((0, "labelsOrTypes", &json!([label])))
        || !is_its_own((0, "properties", &json!(properties)))
    {
        return Ok(false);
    }
    tracing::warn!(target: "pvegraph::store", store = store.target(), constraint = name,
        "the constraint was left half made by a program that was killed: it is made anew");
    let drop = Statement::new(format!("DROP INDEX {name} IF EXISTS"));
    store.retried("schema", || store.alone_once("schema", &drop, false)).await?;
    Ok(true)
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A uniqueness constraint in words.
#[derive(Debug, PartialEq, Eq)]
struct Constraint<'a> {
    name: &'a str,
    label: &'a str,
    properties: Vec<&'a str>,
}

/// What a statement makes, in the one form in which migrations say it: `CREATE CONSTRAINT name IF NOT EXISTS FOR (n:Label)
/// REQUIRE (n.a, n.b) IS UNIQUE`. `None` for everything else.
fn constraint(text: &str) -> Option<Constraint<'_>> {
    let rest = text.strip_prefix("CREATE CONSTRAINT ")?;
    let (name, rest) = rest.split_once(" IF NOT EXISTS FOR (")?;
    let (node, rest) = rest.split_once(") REQUIRE ")?;
    let (variable, label) = node.split_once(':')?;
    let keys = rest.strip_suffix(" IS UNIQUE")?.trim_matches(['(', ')']);
    let properties = keys.split(',').map(|key| key.trim().strip_prefix(variable)?.strip_prefix('.'));
    let properties = properties.collect::<Option<Vec<_>>>()?;
    let is_name = |it: &&str| it.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    [name, label].iter().all(is_name).then_some(Constraint { name, label, properties })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_is_read_from_its_statement() {
        let one = "CREATE CONSTRAINT lease_key IF NOT EXISTS FOR (l:Lease) REQUIRE l.id IS UNIQUE";
        let expected = Constraint { name: "lease_key", label: "Lease", properties: vec!["id"] };
        assert_eq!(constraint(one), Some(expected));
        let two =
            "CREATE CONSTRAINT vm_key IF NOT EXISTS FOR (n:VM) REQUIRE (n.cluster_id, n.vmid) IS UNIQUE";
        let expected = Constraint { name: "vm_key", label: "VM", properties: vec!["cluster_id", "vmid"] };
        assert_eq!(constraint(two), Some(expected));
        for other in [
            "CREATE INDEX vm IF NOT EXISTS FOR (n:VM) ON (n.vmid)",
            "CREATE CONSTRAINT `a b` IF NOT EXISTS FOR (n:VM) REQUIRE n.vmid IS UNIQUE",
            "CREATE CONSTRAINT vm IF NOT EXISTS FOR (n:VM) REQUIRE n.vmid IS NOT NULL",
            "DROP CONSTRAINT vm IF EXISTS",
        ] {
            assert_eq!(constraint(other), None, "{other}");
        }
    }

    /// So that each of them can be made after a program that was killed.
    #[test]
    fn every_constraint_of_the_migrations_is_read() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema");
        let mut read = 0;
        for file in std::fs::read_dir(directory).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for statement in text.split(';').filter(|it| it.contains("CREATE CONSTRAINT")) {
                let statement: Vec<_> =
                    statement.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                assert!(constraint(&in_one_line(&statement.join("\n"))).is_some(), "{statement:?}");
                read += 1;
            }
        }
        assert!(read > 20, "{read}");
    }
}
