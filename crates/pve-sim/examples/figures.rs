//! How fast and how large: config answers a second on one core, and the memory of a world of 100,000 guests.
//!
//! ```text
//! cargo run --release -p pve-sim --example figures
//! ```

use std::time::{Duration, Instant};

use pve_sim::{GuestKind, World, WorldSpec};

/// The resident memory of this process in MiB, where the system tells.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn main() {
    let guests = 100_000;
    let before = resident_mib();
    let started = Instant::now();
    let world = World::generate(&WorldSpec::new("large", 32, guests, 1));
    println!("{guests} guests: made in {:?}, {} MiB resident", started.elapsed(), resident_mib() - before);
    let paths: Vec<String> = world.read(|state| {
        let path = |guest: &pve_sim::Guest| {
            let kind = if guest.kind == GuestKind::Qemu { "qemu" } else { "lxc" };
            format!("/nodes/{}/{kind}/{}/config", guest.node, guest.vmid)
        };
        state.guests.values().step_by(97).map(path).collect()
    });
    let started = Instant::now();
    let (mut answers, mut bytes) = (0u64, 0);
    while started.elapsed() < Duration::from_secs(3) {
        for path in &paths {
            let answer = world.get(path);
            assert!(answer.is_ok(), "{path}: {answer:?}");
            bytes += answer.body.into_bytes().len();
            answers += 1;
        }
    }
    let rate = answers as f64 / started.elapsed().as_secs_f64();
    println!("config: {rate:.0} answers a second on one core, {} bytes each", bytes as u64 / answers);
    let started = Instant::now();
    let size = world.get("/cluster/resources").body.into_bytes().len();
    println!("/cluster/resources: {size} bytes in {:?}, {} MiB resident", started.elapsed(), resident_mib());
}
