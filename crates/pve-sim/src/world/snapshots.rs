//! Snapshots of the guests that a world begins with.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::state::{EPOCH, GuestKind, Power, Snapshot, State};

const DAY: u64 = 86_400;
/// The share of guests that have snapshots: most have none, because backups do the daily work.
const SHARE: f64 = 0.15;
/// Keeps the draws for snapshots apart from those for the guests, which stay what they are without snapshots.
const STREAM: u64 = 18;

/// A snapshot as it is written down: its name, how many days old it is, and whether it holds the memory.
pub(super) type Taken<'a> = (&'a str, u64, bool);

/// Gives a guest a chain of snapshots, the oldest first; the guest as it is came from the last one.
pub(super) fn chain(state: &mut State, vmid: u32, taken: &[Taken<'_>]) {
    let Some(guest) = state.guests.get_mut(&vmid) else { return };
    let mut parent = None;
    for (name, days, with_memory) in taken {
        guest.snapshots.push(Snapshot {
            name: (*name).to_owned(),
            description: String::new(),
            time: EPOCH - days * DAY,
            with_memory: *with_memory,
            parent: parent.take(),
            config: None,
        });
        parent = Some((*name).to_owned());
    }
    if let Some(last) = parent {
        guest.config.set("parent", last);
    }
}

/// Gives some guests of a generated world one to three snapshots. What a guest gets depends on the seed and its number alone.
pub(super) fn some(state: &mut State, vmid: u32) {
    let Some(guest) = state.guests.get(&vmid) else { return };
    let mut random = ChaCha8Rng::seed_from_u64(state.seed ^ (u64::from(vmid) << 32));
    random.set_stream(STREAM);
    if !random.random_bool(SHARE)
        || guest.is_template()
        || !crate::work::snapshots::can_snapshot(state, guest)
    {
        return;
    }
    let has_memory = guest.kind == GuestKind::Qemu && guest.power == Power::Running;
    let first = random.random_range(1..200);
    let mut taken = vec![("before-upgrade", first, false)];
    if random.random_bool(0.4) {
        taken.push(("after-upgrade", first / 2, has_memory && random.random_bool(0.3)));
    }
    if taken.len() == 2 && random.random_bool(0.4) {
        taken.push(("test", first / 4, false));
    }
    chain(state, vmid, &taken);
}
