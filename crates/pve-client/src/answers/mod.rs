//! What PVE answers, with PVE's own names. Meaning is given elsewhere: here `0` becomes a bool and no more.
//!
//! The comment of each type names its endpoints (paths below `/api2/json`). All are read with [`crate::wire::read`],
//! lists as `Vec` of their rows. Times are epoch seconds and sizes bytes where nothing else is said; fields that may be
//! absent are `None` then. Facts are those of PVE 8.4; earlier and later versions have other keys, which is no error.

mod access;
mod backup;
mod cluster;
mod config;
mod guest;
mod node;
mod pool;
mod storage;
mod task;

pub use access::Permissions;
pub use backup::{
    BackupJob, IncludedGuest, IncludedVolume, IncludedVolumes, NotBackedUp, Retention, RetentionTable,
};
pub use cluster::{
    ClusterRow, ClusterStatusRow, GuestResource, MemberRow, NodeResource, PoolResource, Resource,
    SdnResource, StorageResource, Version,
};
pub use config::{DiskBus, DiskSlot, IpConfigSlot, LxcConfig, MountSlot, NetSlot, QemuConfig};
pub use guest::{
    HaStatus, LxcRow, LxcStatus, NicCounters, PendingEntry, QemuRow, QemuStatus, SECRET_MASK, Snapshot,
};
pub use node::{
    BootInfo, Certificate, CpuInfo, Kernel, Ksm, MemoryUse, NodeRow, NodeStatus, NodeTime, NodeVersion,
    RootFs,
};
pub use pool::{PoolDetail, PoolMember, PoolRow};
pub use storage::{NodeStorage, StorageDefinition, VolumeRow};
pub use task::{LogLine, TaskRow, TaskStatus};
