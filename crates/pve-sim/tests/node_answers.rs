//! Facts of PVE's answers about storages' contents, nodes, tasks and the transport that the recordings do not hold.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[macro_use]
mod support;

use serde_json::{Value, json};
use support::facts::*;

fn unauthorized(text: &str) -> Expected {
    Expected(401, text.to_owned(), json!({"data": null, "message": format!("{text}\n")}))
}

// Contents of storages.
facts! {
    a_volumes_storage_is_the_paths: ROOT GET "/nodes/pve1/storage/local/content/data:iso/a.iso" {}
        => refused(json!({"volume": "storage ID mismatch (data != local)\n"}));
    an_image_that_is_not_there_has_no_format: ROOT GET "/nodes/pve1/storage/local/content/local:iso/nosuch.iso" {}
        => error("volume_size_info on 'local:iso/nosuch.iso' failed - no format");
    a_backup_has_notes: ROOT GET "/nodes/pve1/storage/local/content/local:backup/vzdump-lxc-204-2026_11_21-07_01_48.tar.zst" {}
        => data(json!({"format": "raw", "notes": "", "path": "/x", "protected": 0, "size": 1, "used": 1}));
    an_iso_has_no_notes: ROOT GET "/nodes/pve1/storage/local/content/local:iso/a.iso" {}
        => data(json!({"format": "raw", "path": "/x", "size": 1, "used": 1}));
    images_take_no_notes: ROOT PUT "/nodes/pve1/storage/local/content/local:iso/a.iso" {"notes": "a"}
        => error("only backups support attribute 'notes'");
    a_name_that_is_none_is_not_deleted: ROOT DELETE "/nodes/pve1/storage/local/content/iso/a.txt" {}
        => error("unable to parse directory volume name 'iso/a.txt'");
    a_deletion_that_is_waited_for_has_no_upid: ROOT DELETE "/nodes/pve1/storage/local/content/local:iso/a.iso" {"delay": 5}
        => data(Value::Null);
    deleting_an_iso_is_the_storages: ROOT DELETE "/nodes/pve1/storage/local/content/local:iso/a.iso" {} => task("imgdel");
    images_are_deleted_by_who_allocates: TOKEN DELETE "/nodes/pve1/storage/local/content/local:100/vm-100-disk-0.raw" {}
        => forbidden("/storage/local, Datastore.Allocate");
    backups_are_deleted_by_who_makes_them: TOKEN DELETE
        "/nodes/pve1/storage/local/content/local:backup/vzdump-lxc-204-2026_11_21-07_01_48.tar.zst" {}
        => forbidden("/vms/204, VM.Backup");
    a_format_is_the_names: ROOT POST "/nodes/pve1/storage/local/content"
        {"filename": "vm-100-disk-5.raw", "format": "qcow2", "size": "1G", "vmid": 100}
        => refused(json!({"format": "different storage formats (qcow2 != raw)"}));
    sizes_have_units: ROOT POST "/nodes/pve1/storage/local/content" {"filename": "vm-100-disk-5.raw", "size": "1T", "vmid": 100}
        => refused(json!({"size": "value does not match the regex pattern"}));
    nothing_is_allocated_on_what_is_off: ROOT POST "/nodes/pve1/storage/off/content"
        {"filename": "vm-100-disk-5.raw", "size": "1G", "vmid": 100} => error("storage 'off' is disabled");
    content_of_what_is_off: ROOT GET "/nodes/pve1/storage/off/content" {} => error("storage 'off' is disabled");
    content_of_what_is_elsewhere: ROOT GET "/nodes/pve1/storage/only2/content" {}
        => error("storage 'only2' is not available on node 'pve1'");
    content_of_what_is_not: ROOT GET "/nodes/pve1/storage/nosuch/content" {} => error("storage 'nosuch' does not exist");
    downloads_take_an_iso_by_its_ending: ROOT POST "/nodes/pve1/storage/local/download-url"
        {"content": "iso", "filename": "a.txt", "url": "https://192.0.2.1/a.txt"}
        => refused(json!({"filename": "wrong file extension"}));
    downloads_go_to_storages_of_files: ROOT POST "/nodes/pve1/storage/thin/download-url"
        {"content": "iso", "filename": "a.iso", "url": "https://192.0.2.1/a.iso"}
        => error("can't upload to storage type 'lvmthin', not a file based storage!");
    downloads_are_tasks: ROOT POST "/nodes/pve1/storage/local/download-url"
        {"content": "iso", "filename": "a.iso", "url": "https://192.0.2.1/a.iso"} => task("download");
    urls_have_a_form: ROOT POST "/nodes/pve1/storage/local/download-url" {"content": "iso", "filename": "a.iso", "url": "ftp://x"}
        => refused(json!({"url": "value does not match the regex pattern"}));
    a_checksum_takes_an_algorithm: ROOT POST "/nodes/pve1/storage/local/download-url"
        {"content": "iso", "filename": "a.iso", "url": "https://192.0.2.1/a.iso", "checksum": "00"}
        => refused(json!({"checksum-algorithm": "missing property - 'checksum' requires this property"}));
    files_are_restored_from_backup_servers: ROOT GET "/nodes/pve1/storage/local/file-restore/list"
        {"filepath": "/", "volume": "local:backup/vzdump-lxc-204-2026_11_21-07_01_48.tar.zst"}
        => refused(json!({"storage": "Only PBS storages supported for file-restore."}));
    pruning_all_needs_the_storage: TOKEN DELETE "/nodes/pve1/storage/local/prunebackups" {"prune-backups": "keep-last=1"}
        => forbidden("/storage/local, Datastore.Allocate");
    pruning_ones_own_needs_the_guest: TOKEN DELETE "/nodes/pve1/storage/local/prunebackups"
        {"prune-backups": "keep-last=1", "vmid": 100} => forbidden("/vms/100, VM.Backup");
    pruning_is_a_task: ROOT DELETE "/nodes/pve1/storage/local/prunebackups" {"prune-backups": "keep-last=1"}
        => task("prunebackups");
    a_storage_without_backups_is_not_pruned: ROOT GET "/nodes/pve1/storage/iso/prunebackups" {}
        => error("storage 'iso' does not support backups");
    an_archives_config_is_read: ROOT GET "/nodes/pve1/vzdump/extractconfig" {"volume": "local:foo"}
        => error("unable to parse directory volume name 'foo'");
}

// Backups.
facts! {
    a_backup_has_guests: ROOT POST "/nodes/pve1/vzdump" {"storage": "local"} => refused(json!({"vmid": "property is missing"}));
    a_backup_is_of_some_or_all: ROOT POST "/nodes/pve1/vzdump" {"storage": "local", "all": 1, "vmid": "100"}
        => refused(json!({"all": "option conflicts with option 'vmid'"}));
    a_backup_of_a_pool_is_of_no_list: ROOT POST "/nodes/pve1/vzdump" {"pool": "dev", "vmid": "100"}
        => refused(json!({"pool": "option conflicts with option 'vmid'"}));
    retention_is_roots: TOKEN POST "/nodes/pve1/vzdump" {"vmid": "100", "prune-backups": "keep-last=1"}
        => refused(json!({"prune-backups": "Only root may set this option."}));
    directories_are_roots: TOKEN POST "/nodes/pve1/vzdump" {"vmid": "100", "dumpdir": "/tmp"}
        => refused(json!({"dumpdir": "Only root may set this option."}));
    several_guests_are_one_task: ROOT POST "/nodes/pve1/vzdump" {"vmid": "100,101", "storage": "local", "mode": "snapshot"}
        => task("vzdump");
    an_unknown_storage_fails_in_the_task: ROOT POST "/nodes/pve1/vzdump" {"vmid": "100", "storage": "nosuch"}
        => task("vzdump");
}

// Nodes.
facts! {
    guests_start_together: ROOT POST "/nodes/pve1/startall" {"force": 1} => task("startall");
    guests_stop_together: ROOT POST "/nodes/pve1/stopall" {"vms": "100,101"} => task("stopall");
    guests_are_suspended_together: ROOT POST "/nodes/pve1/suspendall" {} => task("suspendall");
    guests_do_not_all_move_here: ROOT POST "/nodes/pve1/migrateall" {"target": "pve1"}
        => refused(json!({"target": "target is local node."}));
    guests_all_move: ROOT POST "/nodes/pve1/migrateall" {"target": "pve2"} => task("migrateall");
    guests_move_somewhere: ROOT POST "/nodes/pve1/migrateall" {"target": "pve9"} => error("no such cluster node 'pve9'");
    a_node_does_not_wake_itself: ROOT POST "/nodes/pve1/wakeonlan" {}
        => error("'pve1' is local node, cannot wake my self!");
    services_restart_in_a_task: ROOT POST "/nodes/pve1/services/pveproxy/restart" {} => task("srvrestart");
    services_reload_in_a_task: ROOT POST "/nodes/pve1/services/pveproxy/reload" {} => task("srvreload");
    there_is_no_such_disk: ROOT GET "/nodes/pve1/disks/smart" {"disk": "/dev/sdz"} => error("not a valid block device");
    a_disk_that_is_none_is_not_wiped: ROOT PUT "/nodes/pve1/disks/wipedisk" {"disk": "/dev/sdz"}
        => error("not a valid block device");
    a_directory_takes_a_disk: ROOT POST "/nodes/pve1/disks/directory" {"name": "a1", "device": "/dev/sdz"}
        => error("not a valid block device");
    a_pool_takes_disks: ROOT POST "/nodes/pve1/disks/zfs" {"name": "a1", "devices": "/dev/sdz", "raidlevel": "single"}
        => error("not a valid block device");
    wiping_is_for_root: TOKEN PUT "/nodes/pve1/disks/wipedisk" {"disk": "/dev/sdz"}
        => forbidden("user != root@pam");
    thin_pools_of_a_group: ROOT GET "/nodes/pve1/scan/lvmthin" {"vg": "pve"} => data(json!([]));
    the_shell_is_a_terminal: ROOT POST "/nodes/pve1/termproxy" {} => data(json!({
        "port": "5900", "ticket": "PVEVNC:x", "user": "root@pam",
        "upid": "UPID:pve1:00001688:0003BBAA:6B013B4D:vncshell::root@pam:",
    }));
    the_shell_is_a_screen: ROOT POST "/nodes/pve1/vncshell" {} => data(json!({
        "cert": "x", "port": "5900", "ticket": "PVEVNC:x", "user": "root@pam",
        "upid": "UPID:pve1:00001688:0003BBAA:6B013B4D:vncshell::root@pam:",
    }));
    the_shell_takes_the_console_privilege: TOKEN POST "/nodes/pve1/termproxy" {} => forbidden("/nodes/pve1, Sys.Console");
    templates_are_listed_ones: ROOT POST "/nodes/pve1/aplinfo" {"storage": "local", "template": "nosuch.tar.zst"}
        => refused(json!({"template": "no such template"}));
    without_a_key_nothing_is_checked: ROOT POST "/nodes/pve1/subscription" {} => data(Value::Null);
}

// Consoles and agents.
facts! {
    a_containers_terminal: ROOT POST "/nodes/pve1/lxc/200/termproxy" {} => data(json!({
        "port": "5900", "ticket": "PVEVNC:x", "user": "root@pam",
        "upid": "UPID:pve1:00001688:0003BBAA:6B013B4D:vncproxy:200:root@pam:",
    }));
    a_vms_terminal: ROOT POST "/nodes/pve1/qemu/100/termproxy" {} => data(json!({
        "port": "5900", "ticket": "PVEVNC:x", "user": "root@pam",
        "upid": "UPID:pve1:00001688:0003BBAA:6B013B4D:vncproxy:100:root@pam:",
    }));
    a_vms_screen_has_a_password: ROOT POST "/nodes/pve1/qemu/100/vncproxy" {} => data(json!({
        "cert": "x", "password": "x", "port": "5900", "ticket": "PVEVNC:x", "user": "root@pam",
        "upid": "UPID:pve1:00001688:0003BBAA:6B013B4D:vncproxy:100:root@pam:",
    }));
    a_containers_screen_has_none: ROOT POST "/nodes/pve1/lxc/200/vncproxy" {} => data(json!({
        "cert": "x", "port": "5900", "ticket": "PVEVNC:x", "user": "root@pam",
        "upid": "UPID:pve1:00001688:0003BBAA:6B013B4D:vncproxy:200:root@pam:",
    }));
    spice_takes_a_spice_display: ROOT POST "/nodes/pve1/qemu/100/spiceproxy" {} => error("no spice port");
    spice_takes_a_vm_that_runs: ROOT POST "/nodes/pve1/qemu/100/spiceproxy" {} => error("VM 100 not running");
    an_unknown_vm_has_no_screen: ROOT POST "/nodes/pve1/qemu/999/vncproxy" {}
        => error("Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist");
    a_ticket_of_nobody: ROOT GET "/nodes/pve1/qemu/100/vncwebsocket" {"port": 5900, "vncticket": "x"}
        => unauthorized("permission denied - invalid PVEVNC ticket");
    ports_of_screens_have_limits: ROOT GET "/nodes/pve1/qemu/100/vncwebsocket" {"port": 22, "vncticket": "x"}
        => refused(json!({"port": "value must have a minimum value of 5900"}));
    the_agent_does_not_run: ROOT GET "/nodes/pve1/qemu/100/agent/get-osinfo" {} => error("QEMU guest agent is not running");
    the_agents_vm_does_not_run: ROOT POST "/nodes/pve1/qemu/100/agent" {"command": "ping"} => error("VM 100 is not running");
    the_agent_is_off: ROOT GET "/nodes/pve1/qemu/100/agent/get-fsinfo" {} => error("No QEMU guest agent configured");
    the_agent_has_commands: ROOT POST "/nodes/pve1/qemu/100/agent" {"command": "nosuch"} => refused(json!({
        "command": "value 'nosuch' does not have a value in the enumeration 'fsfreeze-freeze'",
    }));
}

// Indices and series, clocks and names.
facts! {
    a_zone_is_one: ROOT PUT "/nodes/pve1/time" {"timezone": "No/Where"}
        => refused(json!({"timezone": "No such timezone"}));
    hosts_change_under_ones_hands: ROOT POST "/nodes/pve1/hosts" {"data": "127.0.0.1 localhost", "digest": "00"}
        => error("detected modified configuration - file changed by other user? Try again.");
    a_disk_image_is_not_made_twice: ROOT POST "/nodes/pve1/storage/local/content"
        {"filename": "vm-100-disk-9.raw", "size": "64M", "vmid": 100}
        => error("disk image '/var/lib/vz/images/100/vm-100-disk-9.raw' already exists");
    a_containers_index_reads_its_file: ROOT GET "/nodes/pve1/lxc/999" {}
        => error("Configuration file 'nodes/pve1/lxc/999.conf' does not exist");
    the_index_of_a_vms_states_reads_its_file: ROOT GET "/nodes/pve1/qemu/999/status" {}
        => error("Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist");
    a_series_is_a_file: ROOT GET "/nodes/pve1/qemu/999/rrddata" {"timeframe": "hour"}
        => error("RRD error: opening '/var/lib/rrdcached/db/pve2-vm/999': No such file or directory");
    a_graph_has_sources: ROOT GET "/nodes/pve1/qemu/100/rrd" {"timeframe": "hour"}
        => refused(json!({"ds": "property is missing and it is not optional"}));
}

// Tasks.
facts! {
    an_unknown_task_is_not_stopped: ROOT DELETE "/nodes/pve1/tasks/UPID:pve1:00000001:00000001:6B013D5E:qmstart:100:root@pam:" {}
        => refused(json!({"upid": "no such task"}));
    what_is_no_upid_is_not_stopped: ROOT DELETE "/nodes/pve1/tasks/UPID:bad" {}
        => refused(json!({"upid": "unable to parse worker upid"}));
    others_tasks_are_stopped_by_who_may: TOKEN DELETE
        "/nodes/pve1/tasks/UPID:pve1:00000001:00000001:6B013D5E:qmstart:100:root@pam:" {}
        => forbidden("/nodes/pve1, Sys.Modify");
    others_tasks_are_read_by_who_may: TOKEN GET
        "/nodes/pve1/tasks/UPID:pve1:00000001:00000001:6B013D5E:qmstart:100:root@pam:/status" {}
        => forbidden("/nodes/pve1, Sys.Audit");
    lists_of_tasks_have_sources: ROOT GET "/nodes/pve1/tasks" {"source": "x"} => refused(json!({
        "source": "value 'x' does not have a value in the enumeration 'archive, active, all'",
    }));
    limits_are_not_negative: ROOT GET "/nodes/pve1/tasks" {"limit": -1}
        => refused(json!({"limit": "value must have a minimum value of 0"}));
}

fn bare(who: Value, method: &str, path: &str, body: Value, status: u16, reason: &str) {
    agrees(json!({
        "auth": who, "method": method, "path": path, "params": null, "request_body": body, "status": status,
        "reason": reason, "json": null,
    }));
}

#[test]
fn a_path_without_a_formatter_is_no_such_uri() {
    bare(json!(ROOT), "GET", "/api2", Value::Null, 501, "no such uri");
    bare(json!(ROOT), "GET", "/api2/JSON/version", Value::Null, 501, "no such uri");
}

#[test]
fn a_deletion_has_no_body() {
    let reason = "Unexpected content for method 'DELETE'";
    bare(json!(ROOT), "DELETE", "/api2/json/nodes/pve1/qemu/100", json!("purge=1"), 501, reason);
}

#[test]
fn who_is_not_logged_in_learns_nothing_of_formatters_and_bodies() {
    bare(Value::Null, "GET", "/api2/xyz/version", Value::Null, 401, "No ticket");
    bare(Value::Null, "POST", "/api2/json/pools", json!("poolid=a"), 401, "No ticket");
}

#[test]
fn realms_are_for_everyone() {
    agrees(json!({
        "auth": null, "method": "GET", "path": "/api2/json/access/domains", "params": null, "request_body": null,
        "status": 200, "reason": "OK", "json": {"data": [
            {"comment": "Linux PAM standard authentication", "realm": "pam", "type": "pam"},
            {"comment": "Proxmox VE authentication server", "realm": "pve", "type": "pve"},
        ]},
    }));
}

#[test]
fn a_json_body_has_perls_booleans() {
    agrees(json!({
        "auth": ROOT, "method": "POST", "path": "/api2/json/nodes/pve1/lxc/200/status/shutdown", "params": null,
        "request_body": "{\"forceStop\": true}", "status": 200, "reason": "OK",
        "json": {"data": "UPID:pve1:00001688:0003BBAA:6B013B4D:vzshutdown:200:root@pam:"},
    }));
}

#[test]
fn the_extjs_formatter_wraps_bad_parameters() {
    agrees(json!({
        "auth": ROOT, "method": "PUT", "path": "/api2/extjs/nodes/pve1/qemu/100/config", "params": {"cores": "x"},
        "request_body": null, "status": 200, "reason": "OK", "json": {
            "data": null, "errors": {"cores": "type check ('integer') failed - got 'x'"},
            "message": "Parameter verification failed.\n", "status": 400, "success": 0,
        },
    }));
}

#[test]
fn the_extjs_formatter_wraps_unknown_paths() {
    agrees(json!({
        "auth": ROOT, "method": "GET", "path": "/api2/extjs/nosuch", "params": null, "request_body": null, "status": 200,
        "reason": "OK", "json": {
            "data": null, "message": "Method 'GET /nosuch' not implemented", "status": 501, "success": 0,
        },
    }));
}
