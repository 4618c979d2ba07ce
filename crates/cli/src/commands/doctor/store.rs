//! The graph store: reachable, usable, migrated, and with what the label tables demand.

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_graph::desired_labels;
use pvegraph_graph::labels::{self, LEASE, MIGRATION, SYNC_RUN};
use pvegraph_graph::migrate::{MigrateError, MigrationState, MigrationStatus, Migrations};
use pvegraph_graph::neo4j::require_supported;
use pvegraph_graph::{SchemaKind, SchemaObject, Statement, Store, StoreError};
use pvegraph_sync::identity::known_authorities;
use pvegraph_sync::load::now;
use serde_json::Value;

use super::{Findings, chain, file, rights};
use crate::config::Settings;
use crate::connect::{self, Access};
use crate::exit::Exit;

const PASSWORD: &str = "password";
const CONNECTION: &str = "connection";
const CREDENTIALS: &str = "credentials";
const VERSION: &str = "version";
const MIGRATIONS: &str = "migrations";
const SCHEMA: &str = "constraints and indexes";
const STAMPS: &str = "stamps";
const RUNNING: &str = "lease";

/// What needs a usable store.
const GRAPH: [&str; 4] = [MIGRATIONS, SCHEMA, STAMPS, RUNNING];

/// The stamps of every node that a sync writes.
const REQUIRED: [&str; 3] = ["firstseen", "lastupdated", "cluster_id"];

/// Checks the store, and gives the authorities of the clusters that it knows, where it can be read.
pub async fn check(settings: &Settings) -> (Findings, Option<BTreeMap<String, String>>) {
    let mut found = Findings::new(format!("store {}", settings.store.uri));
    let store = match &settings.store.embedded_path() {
        Some(path) => {
            if !file::check(&mut found, path) {
                found.skip(&[VERSION], "there is no graph to read");
                found.skip(&GRAPH, "there is no graph to read");
                return (found, None);
            }
            open(settings, &mut found).await
        }
        None => {
            match settings.store_password() {
                Ok(Some(_)) => found.ok(PASSWORD, "given"),
                // Right for a server that asks for none.
                Ok(None) => found.ok(PASSWORD, "none is given"),
                Err(error) => {
                    found.fail_as_told(PASSWORD, Exit::Config, &error);
                    found.skip(&[CONNECTION, CREDENTIALS, VERSION], "the password can't be read");
                    found.skip(&GRAPH, "the password can't be read");
                    return (found, None);
                }
            }
            open(settings, &mut found).await
        }
    };
    let Some(store) = store else { return (found, None) };
    let known = match graph(&mut found, &*store).await {
        Ok(known) => Some(known),
        Err(error) => {
            let checked: Vec<&str> = found.list.iter().map(|finding| finding.check).collect();
            let mut left = GRAPH.into_iter().filter(|check| !checked.contains(check));
            if let Some(check) = left.next() {
                found.fail_as_told(check, exit(&error), &error);
            }
            let left: Vec<_> = left.collect();
            found.skip(&left, "the graph could not be read");
            None
        }
    };
    (found, known)
}

fn exit(error: &StoreError) -> Exit {
    if error.is_auth() { Exit::Auth } else { Exit::Store }
}

/// Opens or connects, and asks who answers.
async fn open(settings: &Settings, found: &mut Findings) -> Option<Box<dyn Store>> {
    let embedded = settings.store.embedded_path().is_some();
    let skip_rest = |found: &mut Findings, why: &str| {
        if !embedded {
            found.skip(&[CREDENTIALS], why);
        }
        found.skip(&[VERSION], why);
        found.skip(&GRAPH, why);
    };
    let opened = connect::unchecked_store(settings, Access::Read).await;
    let store = match opened {
        Ok(store) => store,
        Err(failure) => {
            found.fail_as_told(if embedded { VERSION } else { CONNECTION }, failure.exit(), failure.error());
            if !embedded {
                found.skip(&[CREDENTIALS, VERSION], "no connection");
            }
            found.skip(&GRAPH, "the store can't be opened");
            return None;
        }
    };
    let info = match store.info().await {
        Ok(info) => info,
        Err(error) if error.is_auth() => {
            found.ok(CONNECTION, "it answers");
            let mend = "check `user` and `password_file` in [store]; a new server has the password of NEO4J_AUTH, or neo4j until \
                        ALTER CURRENT USER SET PASSWORD changes it";
            found.fail(CREDENTIALS, Exit::Auth, chain(&error), mend);
            found.skip(&[VERSION], "the credentials are refused");
            found.skip(&GRAPH, "the credentials are refused");
            return None;
        }
        Err(error) if error.is_unreachable() => {
            let mend = "is Neo4j running there, and is `uri` in [store] right? It is bolt://HOST:7687 without TLS and \
                        bolt+s://HOST:7687 with it; a firewall may be in between";
            found.fail(CONNECTION, Exit::Store, chain(&error), mend);
            skip_rest(found, "no connection");
            return None;
        }
        Err(error) => {
            let mend =
                "is it a Neo4j, and `uri` in [store] its Bolt port (7687), not the one of HTTP (7474)?";
            found.fail(CONNECTION, Exit::Store, chain(&error), mend);
            skip_rest(found, "no usable connection");
            return None;
        }
    };
    let version = [&*info.product, &*info.version, &*info.edition].join(" ");
    if embedded {
        found.ok(VERSION, version.trim());
        return Some(store);
    }
    found.ok(CONNECTION, "it answers");
    found.ok(CREDENTIALS, format!("user {:?} is let in", settings.store.user));
    match require_supported(&info, store.target()) {
        Ok(()) => found.ok(VERSION, version.trim()),
        Err(error) => found.fail(VERSION, Exit::Store, chain(&error), "update the server"),
    }
    Some(store)
}

/// Checks what is in the graph.
///
/// # Errors
/// It can't be read: the checks that were not made are missing then.
async fn graph(found: &mut Findings, store: &dyn Store) -> Result<BTreeMap<String, String>, StoreError> {
    let migrated = match migrations(store).await {
        Ok(list) => {
            told(found, &list);
            list.iter().any(|one| one.state != MigrationState::Pending)
        }
        Err(MigrateError::Store(error)) => return Err(error),
        Err(error) => {
            found.fail_as_told(MIGRATIONS, Exit::Store, &error);
            true
        }
    };
    if migrated {
        schema(found, store).await?;
    } else {
        found.skip(&[SCHEMA], "the graph has no schema yet");
    }
    stamps(found, store).await?;
    lease(found, store).await?;
    known_authorities(store).await
}

async fn migrations(store: &dyn Store) -> Result<Vec<MigrationStatus>, MigrateError> {
    Migrations::embedded()?.status(store).await
}

fn told(found: &mut Findings, list: &[MigrationStatus]) {
    if list.iter().all(|one| one.state == MigrationState::Pending) {
        let mend = "run `pvegraph migrate up`; a first `pvegraph sync` does so by itself";
        found.warn(MIGRATIONS, "none is applied: the graph has no schema yet", mend);
        return;
    }
    let wrong: Vec<_> = list.iter().filter(|one| one.state != MigrationState::Applied).collect();
    if wrong.is_empty() {
        found.ok(MIGRATIONS, format!("all {} are applied", list.len()));
    }
    for one in wrong {
        let (what, mend) = match one.state {
            MigrationState::Applied | MigrationState::Pending => ("is pending", "run `pvegraph migrate up`"),
            MigrationState::Edited => (
                "was changed after it was applied",
                "use the program that applied it, or restore its files in schema/",
            ),
            MigrationState::Unknown => ("was applied by a newer pvegraph", "use that one"),
            MigrationState::Interrupted => {
                ("was begun and not ended", "run `pvegraph migrate up`, which first restores what was before")
            }
        };
        found.fail(MIGRATIONS, Exit::Store, format!("{:04}_{} {what}", one.version, one.name), mend);
    }
}

/// What the label tables demand, and what the labels beside them are found by.
fn demanded() -> BTreeSet<SchemaObject> {
    let object = |kind, label: &str, properties: &[&str]| SchemaObject {
        kind,
        label: label.to_owned(),
        properties: properties.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut all = BTreeSet::new();
    for label in labels::labels().into_iter().chain(desired_labels::labels()) {
        all.insert(object(SchemaKind::Unique, label.name, &label.key));
        all.extend(label.indexed.iter().map(|name| object(SchemaKind::Index, label.name, &[name])));
    }
    all.extend([SYNC_RUN, LEASE, MIGRATION].map(|label| object(SchemaKind::Unique, label, &["id"])));
    all.insert(object(SchemaKind::Index, SYNC_RUN, &["cluster_id"]));
    all
}

/// A constraint that somebody dropped does not come back by itself: its migration is recorded as applied.
async fn schema(found: &mut Findings, store: &dyn Store) -> Result<(), StoreError> {
    let there: BTreeSet<SchemaObject> = store.schema_objects().await?.into_iter().collect();
    let demanded = demanded();
    let missing: Vec<&SchemaObject> = demanded.difference(&there).collect();
    if missing.is_empty() {
        found.ok(SCHEMA, format!("all {} are there", demanded.len()));
    }
    for object in missing {
        let SchemaObject { kind, label, properties } = object;
        let what = format!("of {label} ({})", properties.join(", "));
        let mend = format!("run in the store: {}", creation(object));
        match kind {
            SchemaKind::Unique => {
                let detail = format!(
                    "the uniqueness constraint {what} is missing: runs side by side would make doubles"
                );
                found.fail(SCHEMA, Exit::Store, detail, mend);
            }
            SchemaKind::Index => {
                found.warn(SCHEMA, format!("the index {what} is missing: reading is slow"), mend)
            }
        }
    }
    Ok(())
}

/// The statement that makes it, with the name that a migration would take it back by.
fn creation(SchemaObject { kind, label, properties }: &SchemaObject) -> String {
    let mut name = String::new();
    let mut after_small = false;
    for c in label.chars() {
        if c.is_uppercase() && after_small {
            name.push('_');
        }
        after_small = c.is_lowercase();
        name.extend(c.to_lowercase());
    }
    let columns = properties.iter().map(|property| format!("n.{property}")).collect::<Vec<_>>().join(", ");
    match kind {
        SchemaKind::Unique => {
            format!(
                "CREATE CONSTRAINT {name}_key IF NOT EXISTS FOR (n:{label}) REQUIRE ({columns}) IS UNIQUE"
            )
        }
        SchemaKind::Index => {
            format!(
                "CREATE INDEX {name}_{} IF NOT EXISTS FOR (n:{label}) ON ({columns})",
                properties.join("_")
            )
        }
    }
}

/// Neo4j Community can't demand that a property is there.
async fn stamps(found: &mut Findings, store: &dyn Store) -> Result<(), StoreError> {
    let condition = REQUIRED.map(|name| format!("n.{name} IS NULL")).join(" OR ");
    let mut lacking = Vec::new();
    for label in labels::labels().iter().map(|label| label.name).chain([SYNC_RUN]) {
        let text = format!("MATCH (n:{label})\nWHERE {condition}\nRETURN count(n) AS lacking");
        let rows = store.read(Statement::new(text)).await?;
        let count = rows.get(0, "lacking").and_then(Value::as_u64).unwrap_or_default();
        if count > 0 {
            lacking.push((label, count));
        }
    }
    let Some((first, _)) = lacking.first() else {
        found.ok(STAMPS, format!("every node has its {}", REQUIRED.join(", ")));
        return Ok(());
    };
    let counts: Vec<String> = lacking.iter().map(|(label, count)| format!("{count} of {label}")).collect();
    let detail = format!(
        "nodes without {}: {}; no sync made them so, and none will remove them",
        REQUIRED.join(", "),
        rights::named(counts.iter().map(String::as_str))
    );
    let look = format!("pvegraph query 'MATCH (n:{first}) WHERE {condition} RETURN n LIMIT 20'");
    found.warn(
        STAMPS,
        detail,
        format!("look at them ({look}), and delete them or the labels that are not theirs"),
    );
    Ok(())
}

/// Who writes now.
async fn lease(found: &mut Findings, store: &dyn Store) -> Result<(), StoreError> {
    let text = format!("MATCH (l:{LEASE})\nRETURN l.holder AS holder, l.expires_at AS expires_at");
    let rows = store.read(Statement::new(text)).await?;
    let holder = rows.get(0, "holder").and_then(Value::as_str);
    let until = rows.get(0, "expires_at").and_then(Value::as_i64).unwrap_or_default();
    match holder {
        None => found.ok(RUNNING, "free"),
        Some(holder) if until < now() => {
            found.ok(RUNNING, format!("left behind by {holder}, and expired: the next sync takes it over"));
        }
        Some(holder) => {
            let at = jiff::Timestamp::from_second(until).map_or_else(|_| "?".to_owned(), |at| at.to_string());
            let detail = format!("held by {holder} until {at} unless it renews");
            found.warn(RUNNING, detail, "another sync or migration is at work: try again when it is done");
        }
    }
    Ok(())
}
