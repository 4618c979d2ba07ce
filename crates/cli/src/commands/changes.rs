//! `pvegraph changes`: what syncs saw to change.

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned, civil::DateTime};
use pvegraph_graph::changes::{self, Asked, ChangeType};
use pvegraph_graph::{Rows, Store};
use serde_json::{Map, Value, json};

use super::{Global, no_such_cluster};
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `changes`.
#[derive(Debug, Args)]
#[command(after_help = "\
A change is seen by the sync after it: `at` is when that sync began. What a cluster had when it was synced first, and load, uptime and \
use, are none. How long changes are kept is `history_days` in [sync]; where they are not known for all of the time that is asked for, \
that is told on standard error, and `known_since` of the JSON has each cluster's beginning.

Examples:
  pvegraph changes --since 7d
  pvegraph changes --guest 100 --since 2026-11-01
  pvegraph changes --type deleted --type created -o csv")]
pub struct Changes {
    /// Changes that were seen since then: a time span (12h, 7d, 4w) or a moment (2026-11-01, 2026-11-01T08:00Z; UTC unless it says)
    #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = moment)]
    since: Timestamp,

    /// Of this cluster, by its `cluster_id`
    #[arg(long, value_name = "CLUSTER_ID")]
    cluster: Option<String>,

    /// Of the guest with this number, and of what belongs to it
    #[arg(long, value_name = "VMID", value_parser = clap::value_parser!(i64).range(1..))]
    guest: Option<i64>,

    /// Of this type (created: new to the graph; updated: a property is another; deleted: proven gone; migrated: a guest is on another
    /// node); may be given more than once
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    kinds: Vec<ChangeType>,

    /// As many at most, the latest
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Parses the word of a type.
fn kind(text: &str) -> Result<ChangeType, String> {
    ChangeType::of(text)
        .ok_or_else(|| format!("expected one of {}", ChangeType::ALL.map(ChangeType::as_str).join(", ")))
}

/// A moment, or how long ago it is.
fn moment(text: &str) -> Result<Timestamp, String> {
    let bad = || format!("{text:?} is neither a time span, such as 7d, nor a moment, such as 2026-11-01");
    let now = Zoned::now().with_time_zone(TimeZone::UTC);
    let past = |moment: Timestamp| {
        let is_past = moment <= now.timestamp();
        is_past
            .then_some(moment)
            .ok_or_else(|| format!("{text:?} lies in the future: nothing was seen since"))
    };
    // With a zone's name, with an offset, or with neither.
    if let Ok(moment) = text.parse::<Zoned>() {
        return past(moment.timestamp());
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return past(moment);
    }
    if let Ok(moment) = text.parse::<DateTime>() {
        return past(moment.to_zoned(TimeZone::UTC).map_err(|_| bad())?.timestamp());
    }
    let span: Span = text.parse().map_err(|_| bad())?;
    // Days and weeks have a length only on a calendar.
    let then = now.checked_sub(span.abs()).map_err(|_| bad())?;
    Ok(then.timestamp())
}

/// A moment for people.
fn shown(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

impl Changes {
    /// Runs the command.
    ///
    /// # Errors
    /// The graph knows no such cluster, or the store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let known = self.known(&*store).await?;
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX - 1);
            let asked = Asked {
                since: self.since.as_second(),
                cluster: self.cluster.clone(),
                vmid: self.guest,
                kinds: self.kinds.clone(),
                // One more tells that there are more.
                limit: limit.saturating_add(1),
            };
            let mut rows = store.read(changes::read(&asked)).await?;
            let is_cut = rows.rows.len() > limit;
            rows.rows.truncate(limit);
            for at in rows.rows.iter_mut().filter_map(|row| row.first_mut()) {
                if let Some(seconds) = at.as_i64() {
                    *at = shown(seconds).into();
                }
            }
            for (cluster, since) in &known {
                match since.as_i64() {
                    None => tracing::warn!(
                        "{cluster}: no changes are known: they are from the second sync that keeps them on"
                    ),
                    Some(since) if since > asked.since => {
                        tracing::warn!("{cluster}: changes are known from {} on", shown(since));
                    }
                    Some(_) => {}
                }
            }
            if is_cut {
                tracing::warn!("there are more: these are the latest {limit}; --limit shows more of them");
            }
            let known: Map<String, Value> = known
                .into_iter()
                .map(|(cluster, since)| (cluster, since.as_i64().map_or(Value::Null, |at| shown(at).into())))
                .collect();
            let report = Report::new(rows).with_extra("known_since", known).with_extra("more", json!(is_cut));
            global.print(&report)?;
            Ok(Exit::Success)
        })
    }

    /// From when on the changes of each cluster that is asked for are known.
    async fn known(&self, store: &dyn Store) -> Result<Vec<(String, Value)>, Failure> {
        let Rows { rows, .. } = store.read(changes::known()).await?;
        let all: Vec<(String, Value)> = rows
            .into_iter()
            .filter_map(|row| {
                let mut row = row.into_iter();
                Some((row.next()?.as_str()?.to_owned(), row.next()?))
            })
            .collect();
        let Some(cluster) = &self.cluster else { return Ok(all) };
        let of_cluster: Vec<_> = all.iter().filter(|(name, _)| name == cluster).cloned().collect();
        if of_cluster.is_empty() {
            return Err(no_such_cluster(store, cluster, all.iter().map(|(name, _)| name.as_str())));
        }
        Ok(of_cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_span_or_a_time() {
        assert_eq!(moment("2026-11-01").unwrap().to_string(), "2026-11-01T00:00:00Z");
        assert_eq!(moment("2026-11-01T08:00:00+02:00").unwrap().to_string(), "2026-11-01T06:00:00Z");
        let ago = |text: &str| (Timestamp::now().as_second() - moment(text).unwrap().as_second()) / 60;
        assert_eq!((ago("90m"), ago("12h"), ago("7d"), ago("2w")), (90, 720, 10_080, 20_160));
        let zoned = moment("2026-11-01T08:00[Europe/Berlin]").unwrap();
        assert_eq!(zoned.to_string(), "2026-11-01T07:00:00Z");
        assert!(moment("2999-01-01").unwrap_err().contains("lies in the future"));
        for bad in ["", "soon", "7", "2026-13-01", "99999999d"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
