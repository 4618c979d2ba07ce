//! The requests that the crates above make, with their typed answers.
//!
//! A new endpoint is a line here and a type in `answers`.

use serde_json::Value;

use crate::answers::{
    BackupJob, Certificate, ClusterStatusRow, IncludedVolumes, LogLine, LxcConfig, LxcRow, LxcStatus,
    NodeRow, NodeStorage, NodeTime, PendingEntry, Permissions, QemuConfig, QemuRow, QemuStatus, Resource,
    Snapshot, StorageDefinition, TaskRow, TaskStatus, Version,
};
use crate::client::PveClient;
use crate::error::{ApiError, ErrorKind};
use crate::path::ApiPath;
use crate::tasks::TaskFilter;
use crate::upid::Upid;
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
    /// What a machine is doing. Needs `VM.Audit` on the guest.
    qemu_status(node: &str, vmid: i64) -> QemuStatus = qemu("read guest status", node, vmid).fixed("status/current");
    /// What a container is doing, likewise.
    lxc_status(node: &str, vmid: i64) -> LxcStatus = lxc("read guest status", node, vmid).fixed("status/current");
    /// A machine's options with what waits for its next start. Needs `VM.Audit` on the guest.
    qemu_pending(node: &str, vmid: i64) -> Vec<PendingEntry> = qemu("read pending changes", node, vmid).fixed("pending");
    /// A container's, likewise.
    lxc_pending(node: &str, vmid: i64) -> Vec<PendingEntry> = lxc("read pending changes", node, vmid).fixed("pending");
    /// A task's state. Others' tasks need `Sys.Audit` on the node.
    task_status(upid: &Upid) -> TaskStatus = task("read task", upid).fixed("status");
    /// The first `limit` lines of a task's log, likewise.
    task_log(upid: &Upid, limit: u64) -> Vec<LogLine> = task("read task log", upid).fixed("log").query("limit", limit);
    /// A node's tasks, the newest first. Others' tasks need `Sys.Audit` on the node.
    node_tasks(node: &str, filter: &TaskFilter<'_>) -> Vec<TaskRow> = filter.path(node);
}

fn qemu(operation: &'static str, node: &str, vmid: i64) -> ApiPath {
    ApiPath::new(operation).node(node).fixed("qemu").segment(vmid)
}

fn lxc(operation: &'static str, node: &str, vmid: i64) -> ApiPath {
    ApiPath::new(operation).node(node).fixed("lxc").segment(vmid)
}

fn task(operation: &'static str, upid: &Upid) -> ApiPath {
    ApiPath::new(operation).node(&upid.node).fixed("tasks").segment(upid)
}

impl PveClient {
    /// Puts, as [`PveClient::put`], where a task may be answered.
    ///
    /// # Errors
    /// Likewise. Where the answer is no task, [`ApiError::outcome_unknown`] is so.
    pub async fn put_task(&self, path: &ApiPath, form: &[(&str, &str)]) -> Result<Option<Upid>, ApiError> {
        started(path, &self.put(path, form).await?)
    }

    /// Posts, likewise.
    ///
    /// # Errors
    /// Likewise.
    pub async fn post_task(&self, path: &ApiPath, form: &[(&str, &str)]) -> Result<Option<Upid>, ApiError> {
        started(path, &self.post(path, form).await?)
    }

    /// Deletes, likewise.
    ///
    /// # Errors
    /// Likewise.
    pub async fn delete_task(&self, path: &ApiPath, form: &[(&str, &str)]) -> Result<Option<Upid>, ApiError> {
        started(path, &self.delete(path, form).await?)
    }
}

/// The task that a write has started; some writes answer `null` and are done.
fn started(path: &ApiPath, answer: &Value) -> Result<Option<Upid>, ApiError> {
    if answer.is_null() {
        return Ok(None);
    }
    let read = read_text::<Upid>(&path.to_string(), &answer.to_string());
    read.map(|read| Some(read.value)).map_err(|source| path.error(None, ErrorKind::Odd { source }))
}

macro_rules! writes {
    ($($(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),*) = $verb:ident $path:expr;)*) => {
        impl PveClient {
            $(
                $(#[$meta])*
                ///
                /// `form` holds the parameters. Answers the task that was started; with `None` it is done.
                ///
                /// # Errors
                /// As [`PveClient::put_task`].
                pub async fn $name(&self, $($arg: $ty,)* form: &[(&str, &str)]) -> Result<Option<Upid>, ApiError> {
                    self.$verb(&$path, form).await
                }
            )*
        }

        /// The names of all writing endpoints, likewise.
        pub const WRITES: &[&str] = &[$(stringify!($name)),*];
    };
}

writes! {
    /// Changes a machine's configuration at once, option by option: what came before an option that fails stays. Needs the
    /// privilege of each option.
    put_qemu_config(node: &str, vmid: i64) = put_task qemu("change guest config", node, vmid).fixed("config");
    /// The same in a task: for devices, whose plugging takes its time.
    post_qemu_config(node: &str, vmid: i64) = post_task qemu("change guest config", node, vmid).fixed("config");
    /// Changes a container's configuration, all or nothing.
    put_lxc_config(node: &str, vmid: i64) = put_task lxc("change guest config", node, vmid).fixed("config");
    /// Makes a machine's disk larger. Needs `VM.Config.Disk` on the guest.
    resize_qemu(node: &str, vmid: i64) = put_task qemu("grow disk", node, vmid).fixed("resize");
    /// Makes a container's volume larger, likewise. The size that it has already is an error.
    resize_lxc(node: &str, vmid: i64) = put_task lxc("grow volume", node, vmid).fixed("resize");
    /// Starts, stops, shuts down, … a machine: `action` is PVE's word. Needs `VM.PowerMgmt` on the guest.
    qemu_power(node: &str, vmid: i64, action: &str) =
        post_task qemu("change power", node, vmid).fixed("status").segment(action);
    /// A container's, likewise.
    lxc_power(node: &str, vmid: i64, action: &str) =
        post_task lxc("change power", node, vmid).fixed("status").segment(action);
}
