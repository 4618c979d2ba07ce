//! The figures as tables, for a terminal or for a page of the documentation.

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};

use crate::figures::{Applies, Figures, Measured, Plans, Starts, Sync, Usage};
use crate::verdict::{Judged, megabytes};

/// How tables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// Markdown
    DocsTable,
}

/// What is not known.
const UNKNOWN: &str = "?";

/// Every process that was measured, one in a row.
pub fn figures(estates: &[Measured], format: Format) -> String {
    let mut table = empty(
        format,
        &[
            ("case", false),
            ("nodes", true),
            ("guests", true),
            ("latency ms", true),
            ("measured", false),
            ("requests", true),
            ("crawl s", true),
            ("crawl floor s", true),
            ("load s", true),
            ("load floor s", true),
            ("wall s", true),
            ("CPU s", true),
            ("peak MB", true),
            ("load average", true),
        ],
    );
    for one in estates {
        let mut add = |what: String, requests: Option<u64>, phases: [Option<f64>; 4], usage: &Usage| {
            let [crawl, crawl_floor, load, load_floor] = phases.map(seconds);
            let estate = &one.estate;
            table.add_row([
                one.case.clone(),
                estate.nodes.to_string(),
                estate.guests.to_string(),
                estate.latency_ms.to_string(),
                what,
                requests.map_or_else(String::new, |requests| requests.to_string()),
                crawl,
                crawl_floor,
                load,
                load_floor,
                format!("{:.2}", usage.wall_seconds),
                format!("{:.2}", usage.cpu_seconds),
                format!("{:.1}", megabytes(usage.peak_bytes)),
                format!("{:.2}", usage.load_average),
            ]);
        };
        let phases = |sync: &Sync, floors: [Option<f64>; 2]| {
            [unless(sync.crawl_seconds), floors[0], unless(sync.load_seconds), floors[1]]
        };
        let cold = &one.cold;
        add("cold run".to_owned(), Some(cold.requests), phases(cold, [None, None]), &cold.usage);
        for (round, number) in one.rounds.iter().zip(1..) {
            let crawl_floor = &round.crawl_floor;
            let load_floor = &round.load_floor;
            let floors = [Some(crawl_floor.floor.seconds), Some(load_floor.floor.seconds)];
            let mut of = |what: &str, requests, phases, usage| {
                add(format!("{what}, round {number}"), requests, phases, usage)
            };
            of("migrate up", None, [None; 4], &round.migrate);
            of("first run", Some(round.first.requests), phases(&round.first, floors), &round.first.usage);
            of("second run", Some(round.second.requests), phases(&round.second, floors), &round.second.usage);
            of(
                "crawl floor",
                Some(crawl_floor.floor.requests),
                [None, floors[0], None, None],
                &crawl_floor.usage,
            );
            of("load floor", None, [None, None, None, floors[1]], &load_floor.usage);
        }
    }
    printed(&table, format)
}

/// A phase that the program does not tell of is a question mark; one that a row has not is blank.
fn unless(told: Option<f64>) -> Option<f64> {
    Some(told.unwrap_or(f64::NAN))
}

fn seconds(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value.is_nan() => UNKNOWN.to_owned(),
        Some(value) => format!("{value:.2}"),
    }
}

/// The bounds, one in a row.
pub fn verdicts(judged: &[Judged], format: Format) -> String {
    let columns =
        [("case", false), ("what", false), ("measured", true), ("bound", true), ("ratio", true), ("", false)];
    let mut table = empty(format, &columns);
    for one in judged {
        let with_unit =
            |value: Option<f64>| value.map_or(UNKNOWN.to_owned(), |value| format!("{value:.2} {}", one.unit));
        table.add_row([
            one.case.clone(),
            one.what.to_owned(),
            with_unit(one.measured),
            with_unit(one.bound),
            one.ratio.map_or(UNKNOWN.to_owned(), |ratio| format!("{ratio:.2}")),
            one.verdict.to_string(),
        ]);
    }
    printed(&table, format)
}

/// What is not in a table: rows and bytes, seeds, load averages, starts.
pub fn notes(figures: &Figures) -> String {
    let Figures { estates, plan, apply, start } = figures;
    let mut lines = Vec::new();
    for one in estates {
        let (low, high) = one.load_average();
        lines.push(format!(
            "{}: {}; seed {}; best of {} rounds counts; load average {low:.2} to {high:.2}",
            one.case,
            one.estate,
            one.seed,
            one.rounds.len()
        ));
        if let Some(round) = one.rounds.first() {
            let (crawl, load) = (&round.crawl_floor.floor, &round.load_floor.floor);
            lines.push(format!(
                "{}: crawl floor read {:.1} MB in {} answers, {} of them refused; load floor created {} nodes and {} relationships",
                one.case,
                megabytes(crawl.bytes),
                crawl.requests,
                crawl.refused,
                load.nodes,
                load.relationships
            ));
        }
    }
    if let Some(Plans { estate, seed, operations, rounds }) = plan {
        lines.push(format!(
            "plan: {estate}; seed {seed}; {operations} operations; best of {} rounds counts",
            rounds.len()
        ));
        for (run, number) in rounds.iter().zip(1..) {
            let usage = &run.usage;
            lines.push(format!(
                "plan, round {number}: {} requests in {:.2} s, {:.2} s besides; {:.2} s of CPU, {:.1} MB; load average {:.2}",
                run.requests,
                run.cluster_seconds,
                run.own_seconds(),
                usage.cpu_seconds,
                megabytes(usage.peak_bytes),
                usage.load_average
            ));
        }
    }
    if let Some(Applies { estate, seed, operations, rounds }) = apply {
        lines.push(format!("apply: {estate}; seed {seed}; {operations} operations"));
        for (run, number) in rounds.iter().zip(1..) {
            let usage = &run.usage;
            lines.push(format!(
                "apply, round {number}: {:.2} s, {} requests; under way at once at most {}, on average {:.2}; {:.2} s of CPU, {:.1} MB; \
                 load average {:.2}",
                usage.wall_seconds,
                run.requests,
                run.most,
                run.mean,
                usage.cpu_seconds,
                megabytes(usage.peak_bytes),
                usage.load_average
            ));
        }
    }
    if let Some(Starts { count, median_seconds, least_seconds, load_average }) = start {
        lines.push(format!(
            "start: median {:.1} ms, least {:.1} ms of {count} starts; load average {load_average:.2}",
            median_seconds * 1e3,
            least_seconds * 1e3
        ));
    }
    lines.join("\n")
}

fn empty(format: Format, columns: &[(&str, bool)]) -> Table {
    let mut table = Table::new();
    table.load_style(match format {
        Format::Table => presets::NOTHING,
        Format::DocsTable => presets::ASCII_MARKDOWN,
    });
    table.set_header(columns.iter().map(|(name, _)| *name));
    for (column, (_, number)) in table.column_iter_mut().zip(columns) {
        column.set_cell_alignment(if *number { CellAlignment::Right } else { CellAlignment::Left });
    }
    table
}

fn printed(table: &Table, format: Format) -> String {
    let text = table.to_string();
    match format {
        Format::Table => text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"),
        Format::DocsTable => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{measured, round};
    use crate::verdict;

    #[test]
    fn every_process_has_a_row_and_unknown_phases_a_question_mark() {
        let mut one = measured(10_000, vec![round(10.0, 7.0, 5.0)]);
        one.rounds[0].second.load_seconds = None;
        let text = figures(&[one], Format::DocsTable);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(2)
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let what: Vec<&str> = rows.iter().map(|row| row[4]).collect();
        assert_eq!(
            what,
            [
                "cold run",
                "migrate up, round 1",
                "first run, round 1",
                "second run, round 1",
                "crawl floor, round 1",
                "load floor, round 1"
            ]
        );
        assert_eq!(
            rows[2],
            [
                "sample",
                "50",
                "10000",
                "20",
                "first run, round 1",
                "20403",
                "9.00",
                "7.00",
                "5.00",
                "5.00",
                "10.00",
                "2.00",
                "50.0",
                "0.50"
            ]
        );
        assert_eq!(rows[3][8], "?");
        assert_eq!(rows[5][8], "");
    }

    #[test]
    fn verdicts_are_printed_with_their_unit_and_ratio() {
        let estates = vec![measured(10_000, vec![round(10.0, 7.0, 5.0)])];
        let judged = verdict::verdicts(&Figures { estates, ..Figures::default() });
        let text = verdicts(&judged, Format::DocsTable);
        assert!(text.lines().nth(1).unwrap().starts_with("|-"), "{text}");
        let row = text.lines().find(|line| line.contains("1/40")).unwrap();
        for words in ["10.00 s", "12.72 s", "0.79", "pass"] {
            assert!(row.contains(words), "{row}");
        }
    }

    #[test]
    fn notes_name_the_seed_and_the_load() {
        let text = notes(&Figures {
            estates: vec![measured(10_000, vec![round(10.0, 7.0, 5.0)])],
            ..Figures::default()
        });
        assert!(text.contains("seed 7") && text.contains("load average 0.50 to 0.50"), "{text}");
        assert!(text.contains("45000 nodes and 75000 relationships"), "{text}");
    }
}
