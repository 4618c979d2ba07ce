//! The load's floor: the rows of a sync, read back and deleted, then created again with nothing around it. Nodes with all of
//! their properties first, then relationships between nodes that are matched by their keys; [`BATCH_ROWS`] rows in one
//! transaction, [`CONNECTIONS`] transactions at once where their rows have no node in common.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures::{TryStreamExt as _, stream};
use neo4rs::{BoltList, BoltMap, BoltString, BoltType, ConfigBuilder, Graph, Query, Row};
use serde::{Deserialize, Serialize};

use super::partition::disjoint;
use super::{job, tell};
use crate::figures::{Floor, LoadFloor};
use crate::graph_program::{Login, write_secret};
use crate::problem::{Problem, While};
use crate::processes::{measure, own_path};

/// Rows in one transaction.
const BATCH_ROWS: usize = 5_000;
/// Transactions at once.
const CONNECTIONS: usize = 4;
/// The driver's only time-out: longer than any statement here.
const STATEMENT: Duration = Duration::from_secs(600);

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    uri: String,
    user: String,
    password_file: PathBuf,
}

/// Measures the floor. The graph is what it was afterwards.
///
/// # Errors
/// The server refuses.
pub fn run(directory: &Path, login: &Login) -> Result<Floor<LoadFloor>, Problem> {
    let password_file = directory.join("floor.password");
    write_secret(&password_file, &login.password)?;
    let todo = Job { uri: login.uri.clone(), user: login.user.clone(), password_file };
    let file = directory.join("load-floor.json");
    std::fs::write(&file, serde_json::to_vec(&todo).when("the load's floor")?)
        .when(&file.display().to_string())?;
    let ended = measure(Command::new(own_path()?).arg("floor-load").arg(&file))?
        .with_code("the load's floor", &[0])?;
    Ok(Floor { floor: serde_json::from_str(&ended.out).when("the load's floor")?, usage: ended.usage })
}

/// The hidden command of [`run`].
///
/// # Errors
/// The server refuses.
pub async fn measured(file: &Path) -> Result<(), Problem> {
    let Job { uri, user, password_file } = job(file)?;
    let password = std::fs::read_to_string(password_file).when("the password")?;
    let config = ConfigBuilder::default()
        .uri(uri)
        .user(user)
        .password(password)
        .fetch_size(BATCH_ROWS)
        .max_connections(CONNECTIONS)
        .connection_timeout(STATEMENT)
        .build()
        .when("the driver")?;
    let graph = Graph::connect(config).when("the driver")?;
    let rows = read_back(&graph).await?;
    delete(&graph).await?;
    let (nodes, relationships) = (rows.nodes(), rows.relationships());
    let began = Instant::now();
    for phase in rows.phases {
        stream::iter(phase.lanes.into_iter().map(Ok))
            .try_for_each_concurrent(CONNECTIONS, |lane| {
                let (graph, text) = (&graph, &phase.text);
                async move {
                    for batch in lane {
                        create(graph, text, batch).await?;
                    }
                    Ok::<(), Problem>(())
                }
            })
            .await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let created = count(&graph).await?;
    if created != (nodes, relationships) {
        return Err(Problem::new(format!(
            "{} nodes and {} relationships were created instead of {nodes} and {relationships}",
            created.0, created.1
        )));
    }
    tell(&LoadFloor { seconds, nodes, relationships })
}

/// One statement and its rows.
#[derive(Debug)]
struct Phase {
    text: String,
    /// Rows that may be created at once are in different lanes; the batches of a lane follow each other.
    lanes: Vec<Vec<Vec<BoltType>>>,
    of_nodes: bool,
}

impl Phase {
    fn rows(&self) -> u64 {
        self.lanes.iter().flatten().map(|batch| batch.len() as u64).sum()
    }
}

/// A graph, ready to be created.
#[derive(Debug, Default)]
struct Rows {
    phases: Vec<Phase>,
}

impl Rows {
    fn nodes(&self) -> u64 {
        self.phases.iter().filter(|phase| phase.of_nodes).map(Phase::rows).sum()
    }

    fn relationships(&self) -> u64 {
        self.phases.iter().filter(|phase| !phase.of_nodes).map(Phase::rows).sum()
    }
}

async fn rows(graph: &Graph, text: String) -> Result<Vec<Row>, Problem> {
    let mut stream = graph.execute(Query::new(text.clone())).await.when(&text)?;
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await.when(&text)? {
        rows.push(row);
    }
    Ok(rows)
}

fn column<T: for<'de> Deserialize<'de>>(row: &Row, name: &str) -> Result<T, Problem> {
    row.get(name).when(name)
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Reads the whole graph, label by label and type by type, outside of the measured time.
async fn read_back(graph: &Graph) -> Result<Rows, Problem> {
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    let constraints =
        "SHOW CONSTRAINTS YIELD labelsOrTypes, properties RETURN labelsOrTypes[0] AS label, properties";
    for row in rows(graph, constraints.to_owned()).await? {
        keys.insert(column(&row, "label")?, column(&row, "properties")?);
    }
    let mut all = Rows::default();
    for row in rows(graph, "MATCH (n) RETURN DISTINCT labels(n) AS labels".to_owned()).await? {
        let labels: Vec<String> = column(&row, "labels")?;
        all.phases.push(read_nodes(graph, &labels).await?);
    }
    let kinds =
        "MATCH (a)-[r]->(b) RETURN DISTINCT labels(a)[0] AS from, type(r) AS kind, labels(b)[0] AS to";
    for row in rows(graph, kinds.to_owned()).await? {
        let (from, kind, to): (String, String, String) =
            (column(&row, "from")?, column(&row, "kind")?, column(&row, "to")?);
        let key = |label: &str| {
            let none = || Problem::new(format!("no constraint says how a {label} is found"));
            keys.get(label).cloned().ok_or_else(none)
        };
        let ends = [(from.as_str(), key(&from)?), (to.as_str(), key(&to)?)];
        all.phases.push(read_relationships(graph, &kind, &ends).await?);
    }
    Ok(all)
}

async fn read_nodes(graph: &Graph, labels: &[String]) -> Result<Phase, Problem> {
    let pattern: String = labels.iter().map(|label| format!(":{}", quoted(label))).collect();
    let exactly = labels.len();
    let text =
        format!("MATCH (n{pattern}) WHERE size(labels(n)) = {exactly} RETURN properties(n) AS properties");
    let mut found = Vec::new();
    for row in rows(graph, text).await? {
        found.push(column::<BoltType>(&row, "properties")?);
    }
    let part_of: Vec<usize> = (0..found.len()).map(|at| at / BATCH_ROWS % CONNECTIONS).collect();
    let text = format!("UNWIND $rows AS row CREATE (n{pattern}) SET n = row");
    Ok(Phase { text, lanes: lanes(found, &part_of), of_nodes: true })
}

async fn read_relationships(
    graph: &Graph,
    kind: &str,
    [(from, from_key), (to, to_key)]: &[(&str, Vec<String>); 2],
) -> Result<Phase, Problem> {
    let (kind, from, to) = (quoted(kind), quoted(from), quoted(to));
    let values = |node: &str, key: &[String]| {
        key.iter().map(|name| format!("{node}.{}", quoted(name))).collect::<Vec<_>>().join(", ")
    };
    let (from_values, to_values) = (values("a", from_key), values("b", to_key));
    let text = format!(
        "MATCH (a:{from})-[r:{kind}]->(b:{to}) \
         RETURN id(a) AS from, id(b) AS to, [{from_values}] AS a, [{to_values}] AS b, properties(r) AS r"
    );
    let (mut found, mut ends) = (Vec::new(), Vec::new());
    for row in rows(graph, text).await? {
        ends.push((column::<u64>(&row, "from")?, column::<u64>(&row, "to")?));
        let mut one = BoltMap::new();
        for name in ["a", "b", "r"] {
            one.put(BoltString::new(name), column::<BoltType>(&row, name)?);
        }
        found.push(BoltType::Map(one));
    }
    let matched = |key: &[String], list: &str| {
        let parts = key.iter().enumerate().map(|(at, name)| format!("{}: row.{list}[{at}]", quoted(name)));
        parts.collect::<Vec<_>>().join(", ")
    };
    let (from_matched, to_matched) = (matched(from_key, "a"), matched(to_key, "b"));
    // As in the program: without hints the planner may look at every node of a label for each row.
    let names = |key: &[String]| key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let (from_names, to_names) = (names(from_key), names(to_key));
    let text = format!(
        "UNWIND $rows AS row \
         MATCH (a:{from} {{{from_matched}}}) USING INDEX SEEK a:{from}({from_names}) \
         MATCH (b:{to} {{{to_matched}}}) USING INDEX SEEK b:{to}({to_names}) \
         CREATE (a)-[r:{kind}]->(b) SET r = row.r"
    );
    Ok(Phase { text, lanes: lanes(found, &disjoint(&ends, CONNECTIONS)), of_nodes: false })
}

/// Rows by lane, in batches.
fn lanes(rows: Vec<BoltType>, part_of: &[usize]) -> Vec<Vec<Vec<BoltType>>> {
    let mut lanes: Vec<Vec<Vec<BoltType>>> = vec![Vec::new(); CONNECTIONS];
    for (row, part) in rows.into_iter().zip(part_of) {
        let lane = &mut lanes[*part];
        match lane.last_mut() {
            Some(batch) if batch.len() < BATCH_ROWS => batch.push(row),
            _ => lane.push(vec![row]),
        }
    }
    lanes.retain(|lane| !lane.is_empty());
    lanes
}

async fn delete(graph: &Graph) -> Result<(), Problem> {
    let text = "MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS";
    graph.run(Query::new(text.to_owned())).await.when("the deletion").map(drop)
}

/// Nodes and relationships.
async fn count(graph: &Graph) -> Result<(u64, u64), Problem> {
    let one = |text: &'static str| async move {
        let rows = rows(graph, text.to_owned()).await?;
        rows.first().map_or(Ok(0), |row| column(row, "count"))
    };
    Ok((
        one("MATCH (n) RETURN count(n) AS count").await?,
        one("MATCH ()-[r]->() RETURN count(r) AS count").await?,
    ))
}

/// Creates one batch in a transaction of its own. It is sent once, so that the rows need not be copied: lanes without common nodes
/// have no deadlocks.
async fn create(graph: &Graph, text: &str, batch: Vec<BoltType>) -> Result<(), Problem> {
    let query = Query::new(text.to_owned()).param("rows", BoltType::List(BoltList { value: batch }));
    let mut transaction = graph.start_txn().await.when("BEGIN")?;
    if let Err(error) = transaction.run(query).await {
        let _ = transaction.rollback().await;
        return Err(error).when(text);
    }
    transaction.commit().await.when("COMMIT").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_keep_every_row_in_batches() {
        let rows: Vec<BoltType> = (0..12_001i64).map(BoltType::from).collect();
        let part_of: Vec<usize> = (0..12_001).map(|at| usize::from(at >= 11_000) * 3).collect();
        let lanes = lanes(rows, &part_of);
        let sizes: Vec<Vec<usize>> = lanes.iter().map(|lane| lane.iter().map(Vec::len).collect()).collect();
        assert_eq!(sizes, [vec![5_000, 5_000, 1_000], vec![1_001]]);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a`b"), "`a``b`");
    }
}
