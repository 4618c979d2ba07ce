//! Made-up figures for the tests of the arithmetic.

use crate::case::Estate;
use crate::figures::{CrawlFloor, Floor, LoadFloor, Measured, Round, Sync, Usage};

fn usage(wall_seconds: f64) -> Usage {
    Usage { wall_seconds, cpu_seconds: 2.0, peak_bytes: 50_000_000, load_average: 0.5 }
}

fn sync(wall: f64) -> Sync {
    Sync {
        usage: usage(wall),
        requests: 20_403,
        crawl_seconds: Some(wall - 1.0),
        load_seconds: Some(wall / 2.0),
        exit_code: 0,
    }
}

/// A round of a first run and the floors.
pub fn round(wall: f64, crawl_floor: f64, load_floor: f64) -> Round {
    Round {
        migrate: usage(1.0),
        first: sync(wall),
        second: sync(wall / 2.0),
        crawl_floor: Floor {
            floor: CrawlFloor { seconds: crawl_floor, requests: 20_403, bytes: 9_000_000, refused: 0 },
            usage: usage(crawl_floor),
        },
        load_floor: Floor {
            floor: LoadFloor { seconds: load_floor, nodes: 45_000, relationships: 75_000 },
            usage: usage(load_floor),
        },
    }
}

/// An estate of so many guests.
pub fn measured(guests: usize, rounds: Vec<Round>) -> Measured {
    let estate = Estate { clusters: 1, nodes: 50, guests, latency_ms: 20 };
    Measured { case: "sample".to_owned(), estate, seed: 7, cold: sync(20.0), rounds }
}
