//! Numbers that a real cluster measures: derived from seed and vmid, so that answers repeat, unless they are live.

use serde_json::{Value, json};

use super::Call;
use crate::world::quick_fraction;
use crate::world::state::{Guest, GuestKind, Node};

/// What a running guest uses; all zero of a stopped one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Share of its CPUs, 0 to 1.
    pub cpu: f64,
    /// Memory in bytes.
    pub mem: u64,
    /// Seconds since it started.
    pub uptime: u64,
    /// Bytes read and written since then, disk and network.
    pub disk_read: u64,
    pub disk_write: u64,
    pub net_in: u64,
    pub net_out: u64,
    /// Bytes in use of a container's root file system; PVE never knows a VM's.
    pub disk: u64,
    pub pid: u64,
}

/// A share that swings by a tenth of itself with a period of some minutes, if metrics are live.
fn swing(share: f64, phase: f64, moment: Option<u64>) -> f64 {
    match moment {
        None => share,
        Some(seconds) => {
            let angle = (seconds % 86_400) as f64 / 60.0 + phase * std::f64::consts::TAU;
            (share * (1.0 + 0.1 * angle.sin())).clamp(0.0, 1.0)
        }
    }
}

/// Measures a guest.
pub fn measure(call: &Call<'_>, guest: &Guest) -> Measured {
    if !guest.is_running() {
        return Measured::default();
    }
    let part = |purpose| quick_fraction(call.state.seed, guest.vmid, purpose);
    let age = call.moment.unwrap_or_default();
    let uptime = 600 + (part(1) * 5_000_000.0) as u64 + age;
    let load = guest.cpu_load.unwrap_or_else(|| part(2).powi(3));
    let share = swing(0.15 + 0.7 * part(3), part(4), call.moment);
    let per_second = |purpose, most: f64| (part(purpose) * most * uptime as f64) as u64;
    Measured {
        cpu: swing(load, part(5), call.moment),
        mem: (guest.memory() as f64 * share) as u64,
        uptime,
        disk_read: per_second(6, 200_000.0),
        disk_write: per_second(7, 100_000.0),
        net_in: per_second(8, 50_000.0),
        net_out: per_second(9, 50_000.0),
        disk: if guest.kind == GuestKind::Lxc {
            (guest.boot_disk_size() as f64 * 0.7 * part(10)) as u64
        } else {
            0
        },
        pid: 1_000 + u64::from(guest.vmid) * 7 % 60_000,
    }
}

/// The share of a node's CPUs in use.
pub fn node_cpu(call: &Call<'_>, node: &Node) -> f64 {
    swing(node.cpu_load, f64::from(node.id) / 7.0, call.moment)
}

/// Seconds since a node started.
pub fn node_uptime(call: &Call<'_>, node: &Node) -> u64 {
    node.uptime + call.moment.unwrap_or_default()
}

/// A share as JSON: a plain 0 where it is zero, as PVE writes it.
pub fn number(share: f64) -> Value {
    if share == 0.0 { json!(0) } else { json!(share) }
}
