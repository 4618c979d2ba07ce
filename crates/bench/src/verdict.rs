//! The measured figures against what is to be reached. Pure arithmetic.

use std::fmt;

use serde::Serialize;

use crate::applies::ALLOWED;
use crate::figures::{Applies, Figures, Measured, Plans};

/// Guests from which on the absolute bounds are meant.
const STANDARD_GUESTS: usize = 10_000;
/// Guests of the large estate.
const LARGE_GUESTS: usize = 100_000;
/// The nearest peer's crawl of the standard estate, in seconds.
const PEER_SECONDS: f64 = 509.0;
/// A megabyte, in bytes.
pub const MEGABYTE: f64 = 1e6;

/// Whether a bound was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// At or below the bound.
    Pass,
    /// Above it.
    Fail,
    /// The program or a case that is needed did not tell.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Unknown => "unknown",
        })
    }
}

/// One bound and the figure that it is for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// Of which case.
    pub case: String,
    /// What was measured, and how its bound comes about.
    pub what: &'static str,
    /// Seconds or megabytes or a ratio, as `unit` says.
    pub unit: &'static str,
    /// The measured figure.
    pub measured: Option<f64>,
    /// The bound.
    pub bound: Option<f64>,
    /// The measured figure by the bound: 1 and less passes.
    pub ratio: Option<f64>,
    /// Whether it was kept.
    pub verdict: Verdict,
}

fn judge(
    case: &str,
    what: &'static str,
    unit: &'static str,
    measured: Option<f64>,
    bound: Option<f64>,
) -> Judged {
    let (ratio, verdict) = match (measured, bound) {
        (Some(measured), Some(bound)) if measured.is_finite() && bound.is_finite() => {
            let verdict = if measured <= bound { Verdict::Pass } else { Verdict::Fail };
            ((bound > 0.0).then(|| measured / bound), verdict)
        }
        _ => (None, Verdict::Unknown),
    };
    Judged { case: case.to_owned(), what, unit, measured, bound, ratio, verdict }
}

/// All bounds that these figures can be held against.
pub fn verdicts(figures: &Figures) -> Vec<Judged> {
    let Figures { estates, plan, apply, start } = figures;
    let mut all: Vec<Judged> = estates.iter().flat_map(of_estate).collect();
    all.extend(plan.iter().flat_map(of_plans));
    all.extend(apply.iter().flat_map(of_applies));
    let of_size = |guests| estates.iter().find(|one| one.estate.guests == guests);
    if let Some(large) = of_size(LARGE_GUESTS) {
        let standard = of_size(STANDARD_GUESTS);
        let wall = |one: &Measured| one.least(|round| round.first.usage.wall_seconds);
        let grown = standard.map(|standard| wall(large) / wall(standard));
        all.push(judge(
            &large.case,
            "wall, first run: by that of 10,000 guests ≤ 11",
            "×",
            grown,
            Some(11.0),
        ));
        let peak = |one: &Measured| megabytes(one.peak_bytes());
        let bound = standard.map(|standard| 1.5 * peak(standard));
        let what = "client's peak memory ≤ 1.5 × that at 10,000 guests";
        all.push(judge(&large.case, what, "MB", Some(peak(large)), bound));
    }
    if let Some(starts) = start {
        let median = Some(starts.median_seconds * 1e3);
        all.push(judge("start", "pvegraph --version, median ≤ 10 ms", "ms", median, Some(10.0)));
    }
    all
}

fn of_plans(plans: &Plans) -> Vec<Judged> {
    let own = plans.rounds.iter().map(|run| run.own_seconds()).min_by(f64::total_cmp);
    let peak = plans.rounds.iter().map(|run| run.usage.peak_bytes).max().map(megabytes);
    // The bounds are those of 10,000 guests.
    let standard = plans.estate.guests == STANDARD_GUESTS;
    let bound = |bound: f64| standard.then_some(bound);
    vec![
        judge("plan", "plan from the graph, the cluster's answers aside ≤ 3 s", "s", own, bound(3.0)),
        judge("plan", "plan's peak memory ≤ 300 MB", "MB", peak, bound(300.0)),
    ]
}

fn of_applies(applies: &Applies) -> Vec<Judged> {
    let mean = applies.rounds.iter().map(|run| run.mean).max_by(f64::total_cmp);
    let empty = mean.map(|mean| ALLOWED as f64 - mean);
    let what = "apply of 200 changes: of eight operations at once, those not used on average ≤ 0.5";
    vec![judge("apply", what, "", empty, Some(0.5))]
}

/// Bytes in megabytes.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

fn of_estate(one: &Measured) -> Vec<Judged> {
    let crawl_floor = one.least(|round| round.crawl_floor.floor.seconds);
    let load_floor = one.least(|round| round.load_floor.floor.seconds);
    let first_wall = Some(one.least(|round| round.first.usage.wall_seconds));
    let second_wall = Some(one.least(|round| round.second.usage.wall_seconds));
    let crawl = one.least_known(|round| round.first.crawl_seconds);
    let load = one.least_known(|round| round.first.load_seconds);
    let second_load = one.least_known(|round| round.second.load_seconds);
    let judge = |what, unit, measured, bound| judge(&one.case, what, unit, measured, bound);
    let mut all = vec![
        judge(
            "wall, first run ≤ 1.3 × max(crawl floor, load floor) + 1 s",
            "s",
            first_wall,
            Some(1.3 * crawl_floor.max(load_floor) + 1.0),
        ),
        judge("crawl, first run ≤ 1.15 × crawl floor", "s", crawl, Some(1.15 * crawl_floor)),
        judge("load, first run ≤ 1.3 × load floor", "s", load, Some(1.3 * load_floor)),
        judge("load, second run ≤ 0.6 × load, first run", "s", second_load, load.map(|load| 0.6 * load)),
        judge(
            "wall, second run ≤ 1.15 × crawl floor + 1 s",
            "s",
            second_wall,
            Some(1.15 * crawl_floor + 1.0),
        ),
    ];
    if one.estate.guests == STANDARD_GUESTS {
        all.extend([
            judge("wall, first run ≤ 1/40 of the peer's 509 s", "s", first_wall, Some(PEER_SECONDS / 40.0)),
            judge("client's peak memory ≤ 100 MB", "MB", Some(megabytes(one.peak_bytes())), Some(100.0)),
            judge(
                "client's CPU, first run ≤ 3 s",
                "s",
                Some(one.least(|round| round.first.usage.cpu_seconds)),
                Some(3.0),
            ),
        ]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Estate;
    use crate::figures::{ApplyRun, PlanRun, Starts, Usage};
    use crate::samples::{measured, round};

    fn syncs<const N: usize>(estates: [Measured; N]) -> Figures {
        Figures { estates: estates.into(), ..Figures::default() }
    }

    fn find<'a>(all: &'a [Judged], start: &str) -> &'a Judged {
        all.iter().find(|one| one.what.starts_with(start)).unwrap()
    }

    #[test]
    fn a_bound_is_kept_up_to_the_bound_itself() {
        let of = |measured, bound| judge("x", "y", "s", measured, bound);
        assert_eq!(of(Some(2.0), Some(2.0)).verdict, Verdict::Pass);
        assert_eq!(of(Some(2.1), Some(2.0)).verdict, Verdict::Fail);
        assert_eq!(of(Some(3.0), Some(2.0)).ratio, Some(1.5));
        for unknown in [of(None, Some(2.0)), of(Some(2.0), None), of(Some(f64::INFINITY), Some(1.0))] {
            assert_eq!((unknown.verdict, unknown.ratio), (Verdict::Unknown, None));
        }
    }

    #[test]
    fn the_best_of_the_rounds_counts_and_the_worst_memory() {
        // Crawl floors 7 and 6, load floors 5 and 4: the bound of the first run is 1.3 × 6 + 1.
        let mut one = measured(10_000, vec![round(12.0, 7.0, 5.0), round(10.0, 6.0, 4.0)]);
        let all = verdicts(&syncs([one.clone()]));
        let wall = find(&all, "wall, first run ≤ 1.3");
        assert_eq!((wall.measured, wall.bound), (Some(10.0), Some(1.3 * 6.0 + 1.0)));
        assert_eq!(wall.verdict, Verdict::Fail);
        assert_eq!(find(&all, "wall, first run ≤ 1/40").verdict, Verdict::Pass);
        assert_eq!(find(&all, "wall, second run").bound, Some(1.15 * 6.0 + 1.0));
        assert_eq!(find(&all, "client's CPU").measured, Some(2.0));

        one.rounds[1].second.usage.peak_bytes = 120_000_000;
        let all = verdicts(&syncs([one]));
        let memory = find(&all, "client's peak");
        assert_eq!((memory.measured, memory.verdict), (Some(120.0), Verdict::Fail));
    }

    #[test]
    fn what_the_program_does_not_tell_is_unknown() {
        let mut one = measured(10_000, vec![round(12.0, 7.0, 5.0)]);
        one.rounds[0].first.load_seconds = None;
        let all = verdicts(&syncs([one]));
        assert_eq!(find(&all, "load, first").verdict, Verdict::Unknown);
        assert_eq!(find(&all, "load, second").verdict, Verdict::Unknown);
        assert_ne!(find(&all, "crawl, first").verdict, Verdict::Unknown);
    }

    #[test]
    fn absolute_bounds_are_for_the_estate_that_they_name() {
        let all = verdicts(&syncs([measured(60, vec![round(1.0, 1.0, 1.0)])]));
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn the_large_estate_is_held_against_the_standard_one() {
        let large = measured(100_000, vec![round(111.0, 70.0, 50.0)]);
        let alone = verdicts(&syncs([large.clone()]));
        assert_eq!(find(&alone, "wall, first run: by").verdict, Verdict::Unknown);
        let standard = measured(10_000, vec![round(10.0, 7.0, 5.0)]);
        let both = verdicts(&syncs([standard, large]));
        let grown = find(&both, "wall, first run: by");
        assert_eq!((grown.measured, grown.verdict), (Some(11.1), Verdict::Fail));
        assert_eq!(find(&both, "client's peak memory ≤ 1.5").bound, Some(75.0));
    }

    #[test]
    fn a_plan_is_judged_without_the_cluster_and_at_its_size_only() {
        let usage = Usage { wall_seconds: 9.0, cpu_seconds: 3.0, peak_bytes: 400_000_000, load_average: 0.0 };
        let run = PlanRun { usage, requests: 10_000, cluster_seconds: 7.0 };
        let estate = Estate { clusters: 1, nodes: 50, guests: 10_000, latency_ms: 0 };
        let plan = Plans { estate, seed: 7, operations: 100, rounds: vec![run] };
        let mut figures = Figures { plan: Some(plan.clone()), ..Figures::default() };
        let judged = verdicts(&figures);
        assert_eq!((judged[0].measured, judged[0].verdict), (Some(2.0), Verdict::Pass));
        assert_eq!((judged[1].measured, judged[1].verdict), (Some(400.0), Verdict::Fail));
        figures.plan = Some(Plans { estate: Estate { guests: 60, ..plan.estate.clone() }, ..plan });
        assert!(verdicts(&figures).iter().all(|one| one.verdict == Verdict::Unknown));
    }

    #[test]
    fn applying_is_judged_by_what_it_leaves_unused() {
        let usage = Usage { wall_seconds: 9.0, cpu_seconds: 3.0, peak_bytes: 40_000_000, load_average: 0.0 };
        let estate = Estate { clusters: 1, nodes: 20, guests: 1_000, latency_ms: 20 };
        let run = |mean| ApplyRun { usage, requests: 1_000, most: 8, mean };
        let mut apply = Applies { estate, seed: 7, operations: 200, rounds: vec![run(7.0), run(7.75)] };
        let judged =
            |apply: &Applies| verdicts(&Figures { apply: Some(apply.clone()), ..Figures::default() });
        let best = judged(&apply);
        assert_eq!((best[0].measured, best[0].verdict), (Some(0.25), Verdict::Pass));
        apply.rounds.pop();
        assert_eq!(judged(&apply)[0].verdict, Verdict::Fail);
        // Nothing was counted.
        apply.rounds = vec![run(f64::NAN)];
        assert_eq!(judged(&apply)[0].verdict, Verdict::Unknown);
    }

    #[test]
    fn a_start_is_told_in_milliseconds() {
        let starts = Starts { count: 3, median_seconds: 0.004, least_seconds: 0.003, load_average: 0.0 };
        let all = verdicts(&Figures { start: Some(starts), ..Figures::default() });
        assert_eq!((all[0].measured, all[0].verdict), (Some(4.0), Verdict::Pass));
    }
}
