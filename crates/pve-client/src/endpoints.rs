//! The requests that the crates above make, with their typed answers.
//!
//! A new endpoint is a line here and a type in `answers`.

use crate::answers::{
    BackupJob, Certificate, ClusterStatusRow, IncludedVolumes, LxcConfig, LxcRow, NodeRow, NodeStorage,
    NodeTime, Permissions, QemuConfig, QemuRow, Resource, Snapshot, StorageDefinition, Version,
};
use crate::client::PveClient;
use crate::error::{ApiError, ErrorKind};
use crate::path::ApiPath;
use crate::wire::{Read, Wire, read_text};

impl PveClient {
    /// Reads `path` as a `T`.
    ///
    /// # Errors
    /// As [`PveClient::get`], and where the answer as a whole is no `T`. What is odd inside of it is in [`Read::oddities`].
    pub async fn read_as<T: Wire>(&self, path: &ApiPath) -> Result<Read<T>, ApiError> {
        let data = self.get_text(path).await?;
        read_text(&path.to_string(), data.get())
            .map_err(|source| path.error(Some(self.endpoint()), ErrorKind::Odd { source }))
    }
}

macro_rules! endpoints {
    ($($(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $answer:ty = $path:expr;)*) => {
        impl PveClient {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// As [`PveClient::read_as`].
                pub async fn $name(&self, $($arg: $ty),*) -> Result<Read<$answer>, ApiError> {
                    self.read_as(&$path).await
                }
            )*
        }

        /// The names of all endpoints, for tests that must not forget one.
        pub const ENDPOINTS: &[&str] = &[$(stringify!($name)),*];
    };
}

endpoints! {
    /// The release of the endpoint. Every user may ask.
    version() -> Version = ApiPath::new("read version").fixed("/version");
    /// The cluster and its members. Needs `Sys.Audit` on `/`.
    cluster_status() -> Vec<ClusterStatusRow> = ApiPath::new("read cluster status").fixed("/cluster/status");
    /// Guests, nodes, storages and pools, as far as the user may see them.
    cluster_resources() -> Vec<Resource> = ApiPath::new("list resources").fixed("/cluster/resources");
    /// The nodes. Every user may ask; measurements need `Sys.Audit`.
    nodes() -> Vec<NodeRow> = ApiPath::new("list nodes").fixed("/nodes");
    /// What the user may do, everywhere.
    permissions() -> Permissions = ApiPath::new("read permissions").fixed("/access/permissions");
    /// What the user may do on one path, whether or not there is such a thing.
    permissions_on(path: &str) -> Permissions =
        ApiPath::new("read permissions").fixed("/access/permissions").query("path", path);
    /// The definitions of storages, as far as the user may see them.
    storages() -> Vec<StorageDefinition> = ApiPath::new("list storages").fixed("/storage");
    /// What one node has of each storage, as far as the user may see them.
    node_storages(node: &str) -> Vec<NodeStorage> = ApiPath::new("list storages of node").node(node).fixed("storage");
    /// A node's machines. `full`: also QEMU's own state, for which PVE waits for each guest.
    qemu_guests(node: &str, full: bool) -> Vec<QemuRow> = {
        let path = ApiPath::new("list machines").node(node).fixed("qemu");
        if full { path.query("full", 1) } else { path }
    };
    /// A node's containers.
    lxc_guests(node: &str) -> Vec<LxcRow> = ApiPath::new("list containers").node(node).fixed("lxc");
    /// A machine's configuration as it is in force, without pending changes.
    qemu_config(node: &str, vmid: i64) -> QemuConfig =
        ApiPath::new("read guest config").node(node).fixed("qemu").segment(vmid).fixed("config").query("current", 1);
    /// A container's configuration as it is in force, without pending changes.
    lxc_config(node: &str, vmid: i64) -> LxcConfig =
        ApiPath::new("read guest config").node(node).fixed("lxc").segment(vmid).fixed("config").query("current", 1);
    /// A machine's snapshots in no order, and the guest as it is. Needs `VM.Audit` on the guest.
    qemu_snapshots(node: &str, vmid: i64) -> Vec<Snapshot> =
        ApiPath::new("list snapshots").node(node).fixed("qemu").segment(vmid).fixed("snapshot");
    /// A container's snapshots, likewise.
    lxc_snapshots(node: &str, vmid: i64) -> Vec<Snapshot> =
        ApiPath::new("list snapshots").node(node).fixed("lxc").segment(vmid).fixed("snapshot");
    /// The certificates of a node, the cluster's own authority among them. Every user may ask.
    certificates(node: &str) -> Vec<Certificate> =
        ApiPath::new("read certificates").node(node).fixed("certificates/info");
    /// A node's clock.
    node_time(node: &str) -> NodeTime = ApiPath::new("read clock").node(node).fixed("time");
    /// The backup jobs. Needs `Sys.Audit` on `/`.
    backup_jobs() -> Vec<BackupJob> = ApiPath::new("list backup jobs").fixed("/cluster/backup");
    /// One backup job. Needs `Sys.Audit` on `/`.
    backup_job(job: &str) -> BackupJob = ApiPath::new("read backup job").fixed("/cluster/backup").segment(job);
    /// The guests and volumes of a backup job. Needs `Sys.Audit` on `/`; guests that the user may not see are left out.
    included_volumes(job: &str) -> IncludedVolumes =
        ApiPath::new("read backup job").fixed("/cluster/backup").segment(job).fixed("included_volumes");
}
