//! Facts of PVE's answers about guests, storages and nodes that the recordings do not hold, each as a recording: prepared,
//! sent and compared as `pve-sim replay` does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[macro_use]
mod support;

use serde_json::{Value, json};
use support::facts::*;

const REQUIRED: &str = "missing property - 'force' requires this property";

// Power states of VMs.
facts! {
    a_process_is_asked_for_before_the_file: ROOT POST "/nodes/pve1/qemu/999/status/reset" {}
        => error("unable to find configuration file for VM 999 on node 'pve1'");
    an_unknown_vm_is_not_suspended: ROOT POST "/nodes/pve1/qemu/999/status/suspend" {}
        => error("unable to find configuration file for VM 999 on node 'pve1'");
    an_unknown_vm_is_not_cloned: ROOT POST "/nodes/pve1/qemu/999/clone" {"newid": 998}
        => error("unable to find configuration file for VM 999 on node 'pve1'");
    an_unknown_vm_has_no_features: ROOT GET "/nodes/pve1/qemu/999/feature" {"feature": "snapshot"}
        => error("unable to find configuration file for VM 999 on node 'pve1'");
    stopping_an_unknown_vm_is_a_task: ROOT POST "/nodes/pve1/qemu/999/status/stop" {} => task("qmstop");
    an_unknown_vm_has_no_snapshots_taken: ROOT POST "/nodes/pve1/qemu/999/snapshot" {"snapname": "a1"}
        => error("Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist");
    starting_a_running_vm_is_a_task: ROOT POST "/nodes/pve1/qemu/100/status/start" {} => task("qmstart");
    resuming_a_stopped_vm: ROOT POST "/nodes/pve1/qemu/100/status/resume" {} => error("VM 100 not running");
    a_paused_vm_is_not_shut_down: ROOT POST "/nodes/pve1/qemu/100/status/shutdown" {}
        => error("VM is paused - cannot shutdown");
    a_paused_vm_is_not_rebooted: ROOT POST "/nodes/pve1/qemu/100/status/reboot" {"timeout": 5}
        => error("VM is paused - cannot shutdown");
    rebooting_a_running_vm: ROOT POST "/nodes/pve1/qemu/100/status/reboot" {} => task("qmreboot");
    ha_does_not_overrule: ROOT POST "/nodes/pve1/qemu/100/status/stop" {"overrule-shutdown": 1}
        => refused(json!({"overrule-shutdown": "Not applicable for HA resources."}));
    ha_does_not_hibernate: ROOT POST "/nodes/pve1/qemu/100/status/suspend" {"todisk": 1}
        => error("Cannot suspend HA managed VM to disk");
    a_lock_is_skipped_by_root_alone: TOKEN POST "/nodes/pve1/qemu/100/status/start" {"skiplock": 1}
        => refused(json!({"skiplock": "Only root may use this option."}));
    volumes_stay_active_for_root_alone: TOKEN POST "/nodes/pve1/qemu/100/status/stop" {"keepActive": 1}
        => refused(json!({"keepActive": "Only root may use this option."}));
    a_storage_for_the_state_takes_todisk: ROOT POST "/nodes/pve1/qemu/100/status/suspend" {"statestorage": "local"}
        => refused(json!({"todisk": "missing property - 'statestorage' requires this property"}));
    targetstorage_is_for_migrations: ROOT POST "/nodes/pve1/qemu/100/status/start" {"targetstorage": "local"}
        => refused(json!({"targetstorage": "targetstorage can only by used with migratedfrom."}));
    keys_are_not_sent_to_a_stopped_vm: ROOT PUT "/nodes/pve1/qemu/100/sendkey" {"key": "ret"}
        => error("VM 100 not running");
}

// Power states of containers.
facts! {
    a_running_container_is_not_started: ROOT POST "/nodes/pve1/lxc/200/status/start" {}
        => error("CT 200 already running");
    a_stopped_container_is_called_a_vm_when_rebooted: ROOT POST "/nodes/pve1/lxc/200/status/reboot" {}
        => error("VM 200 not running");
    a_running_container_is_not_resumed: ROOT POST "/nodes/pve1/lxc/200/status/resume" {}
        => error("CT 200 already running");
    a_stopped_container_is_resumed_in_a_task: ROOT POST "/nodes/pve1/lxc/200/status/resume" {} => task("vzresume");
    an_unknown_container_is_not_running: ROOT POST "/nodes/pve1/lxc/999/status/stop" {} => error("CT 999 not running");
    an_unknown_container_is_started_in_a_task: ROOT POST "/nodes/pve1/lxc/999/status/start" {} => task("vzstart");
    a_container_shuts_down_with_a_timeout: ROOT POST "/nodes/pve1/lxc/200/status/shutdown" {"timeout": 3}
        => task("vzshutdown");
    a_container_is_suspended: ROOT POST "/nodes/pve1/lxc/200/status/suspend" {} => task("vzsuspend");
}

// Configurations.
facts! {
    setting_and_reverting_blames_delete: ROOT PUT "/nodes/pve1/qemu/100/config" {"cores": 2, "revert": "cores"}
        => refused(json!({"delete": "you can't use '-cores' and -revert cores' at the same time"}));
    deleting_and_reverting_blames_revert: ROOT PUT "/nodes/pve1/qemu/100/config" {"delete": "cores", "revert": "cores"}
        => refused(json!({"revert": "you can't use '-delete cores' and -revert cores' at the same time"}));
    reverting_an_unknown_option: ROOT PUT "/nodes/pve1/qemu/100/config" {"revert": "nosuch"}
        => refused(json!({"revert": "unknown option 'nosuch'"}));
    the_boot_order_names_devices_that_are_there: ROOT PUT "/nodes/pve1/qemu/100/config" {"boot": "order=scsi9"}
        => error("invalid bootorder: device 'scsi9' does not exist'");
    force_takes_delete: ROOT PUT "/nodes/pve1/qemu/100/config" {"force": 1, "cores": 1}
        => refused(json!({"delete": REQUIRED}));
    a_storage_without_images_is_a_bad_parameter: ROOT POST "/nodes/pve1/qemu" {"vmid": 150, "scsi0": "iso:1"}
        => refused(json!({"storage": "storage 'iso' does not support vm images"}));
    a_storage_without_images_takes_no_further_disk: ROOT PUT "/nodes/pve1/qemu/100/config" {"scsi1": "iso:1"}
        => refused(json!({"storage": "storage 'iso' does not support vm images"}));
    a_volume_name_has_a_form: ROOT PUT "/nodes/pve1/qemu/100/config" {"scsi1": "local:foo"}
        => error("unable to parse directory volume name 'foo'");
    a_size_needs_a_storage: ROOT PUT "/nodes/pve1/qemu/100/config" {"scsi1": "nosuch:4"}
        => error("storage 'nosuch' does not exist");
    balloons_are_smaller_than_memory: ROOT PUT "/nodes/pve1/qemu/100/config" {"memory": 512, "balloon": 1024}
        => error("balloon value too large (must be smaller than assigned memory)");
    only_root_locks: TOKEN PUT "/nodes/pve1/qemu/100/config" {"lock": "backup"}
        => error("only root can set 'lock' config");
    only_root_passes_devices: TOKEN PUT "/nodes/pve1/qemu/100/config" {"hugepages": "2"}
        => error("only root can set 'hugepages' config");
    cards_need_the_use_of_their_bridge: TOKEN PUT "/nodes/pve1/qemu/100/config" {"net0": "virtio,bridge=vmbr0"}
        => forbidden("/sdn/zones/localnetwork/vmbr0, SDN.Use");
    tagged_cards_need_the_use_of_their_vlan: TOKEN PUT "/nodes/pve1/qemu/100/config" {"net0": "virtio,bridge=vmbr0,tag=5"}
        => forbidden("/sdn/zones/localnetwork/vmbr0/5, SDN.Use");
    the_order_of_starting_is_the_nodes: TOKEN PUT "/nodes/pve1/qemu/100/config" {"startup": "order=1"}
        => forbidden("/, Sys.Modify");
    a_cdrom_has_a_privilege_of_its_own: TOKEN PUT "/nodes/pve1/qemu/100/config" {"ide2": "none,media=cdrom"}
        => forbidden("/vms/100, VM.Config.CDROM");
    a_post_that_is_waited_for_has_no_upid: ROOT POST "/nodes/pve1/qemu/100/config" {"background_delay": 5, "cores": 1}
        => data(Value::Null);
    protection_fails_a_post_in_its_task: ROOT POST "/nodes/pve1/qemu/100/config" {"delete": "scsi0"} => task("qmconfig");
    protection_keeps_unused_disks: ROOT PUT "/nodes/pve1/qemu/100/config" {"delete": "unused0"}
        => error("can't remove unused disk 'local:100/vm-100-disk-1.raw' - protection mode enabled");
    a_snapshots_config_is_not_current: ROOT GET "/nodes/pve1/qemu/100/config" {"snapshot": "s1", "current": 1}
        => refused(json!({
            "snapshot": "cannot use 'snapshot' parameter with 'current'",
            "current": "cannot use 'snapshot' parameter with 'current'",
        }));
    the_path_wins_no_argument: ROOT PUT "/nodes/pve1/qemu/100/config" {"vmid": 101, "cores": 1}
        => refused(json!({"vmid": "duplicate parameter (already defined in URI) with conflicting values!"}));
    a_containers_stale_digest_has_other_words: ROOT PUT "/nodes/pve1/lxc/200/config" {"cores": 1, "digest": "0000"}
        => error("detected modified configuration - file changed by other user? Try again.");
    a_container_keeps_what_it_needs: ROOT PUT "/nodes/pve1/lxc/200/config" {"delete": "rootfs"}
        => error("unable to delete required option 'rootfs'");
    a_container_stays_privileged_or_not: ROOT PUT "/nodes/pve1/lxc/200/config" {"unprivileged": 1}
        => error("unable to modify read-only option: 'unprivileged'");
    a_protected_container_keeps_its_mounts: ROOT PUT "/nodes/pve1/lxc/200/config" {"delete": "mp0"}
        => error("can't remove CT 200 drive 'mp0' - protection mode enabled");
    a_protected_container_keeps_them_as_they_are: ROOT PUT "/nodes/pve1/lxc/200/config" {"mp0": "local:1,mp=/a"}
        => error("can't update CT 200 drive 'mp0' - protection mode enabled");
    containers_need_storages_for_them: ROOT PUT "/nodes/pve1/lxc/200/config" {"mp0": "iso:1,mp=/a"}
        => error("storage 'iso' does not allow content type 'rootdir' (Container)");
    a_container_reverts_and_sets_not_at_once: ROOT PUT "/nodes/pve1/lxc/200/config" {"cores": 1, "revert": "cores"}
        => refused(json!({"revert": "you can't use '-cores' and '-revert cores' at the same time"}));
    a_locked_container: ROOT PUT "/nodes/pve1/lxc/200/config" {"cores": 1} => error("CT is locked (backup)");
    devices_of_the_host_are_for_root: TOKEN PUT "/nodes/pve1/lxc/200/config" {"dev0": "/dev/null"}
        => forbidden("configuring device passthrough is only allowed for root@pam");
    bind_mounts_are_for_root: TOKEN PUT "/nodes/pve1/lxc/200/config" {"mp0": "/mnt/a,mp=/a"}
        => forbidden("mount point type bind is only allowed for root@pam");
    an_empty_update_of_a_container: ROOT PUT "/nodes/pve1/lxc/200/config" {} => error("no options specified");
}

// Formats of options.
facts! {
    a_boot_order_is_of_devices: ROOT PUT "/nodes/pve1/qemu/100/config" {"boot": "order=nosuch!"} => refused(json!({
        "boot": "invalid format - format error\nboot.order: invalid format - invalid boot device 'nosuch!'\n\n",
    }));
    an_smbios_uuid_is_one: ROOT PUT "/nodes/pve1/qemu/100/config" {"smbios1": "uuid=x"} => refused(json!({
        "smbios1": "invalid format - format error\nsmbios1.uuid: value does not match the regex pattern\n",
    }));
    an_address_for_cloud_init_is_one: ROOT PUT "/nodes/pve1/qemu/100/config" {"ipconfig0": "ip=999"} => refused(json!({
        "ipconfig0": "invalid format - format error\nipconfig0.ip: invalid format - value does not look like a valid ipv4 \
                      network configuration\n\n",
    }));
    a_gateway_takes_an_address: ROOT PUT "/nodes/pve1/qemu/100/config" {"ipconfig0": "gw=192.0.2.1"} => refused(json!({
        "ipconfig0": "invalid format - format error\nipconfig0.ip: missing property - 'gw' requires this property\n",
    }));
    a_processor_is_known: ROOT PUT "/nodes/pve1/qemu/100/config" {"cpu": "nosuch"} => refused(json!({
        "cpu": "invalid format - Built-in cputype 'nosuch' is not defined (missing 'custom-' prefix?)\n",
    }));
    a_key_is_urlencoded: ROOT PUT "/nodes/pve1/qemu/100/config" {"sshkeys": "not a key"} => refused(json!({
        "sshkeys": "invalid format - invalid urlencoded string: not a key\n",
    }));
    a_digest_is_not_longer_than_one: ROOT PUT "/nodes/pve1/qemu/100/config"
        {"digest": "00000000000000000000000000000000000000000", "cores": 1}
        => refused(json!({"digest": "value may only be 40 characters long"}));
}

// Creation, clones, templates, snapshots.
facts! {
    a_restore_takes_no_disks: ROOT POST "/nodes/pve1/qemu" {
        "vmid": 150, "archive": "local:backup/vzdump-qemu-100-2026_11_21-07_01_48.vma.zst", "scsi0": "local:1",
    } => refused(json!({"scsi0": "option conflicts with option 'archive'"}));
    a_restore_takes_a_backup: ROOT POST "/nodes/pve1/qemu" {"vmid": 150, "archive": "local:iso/a.iso"}
        => error("unable to use volume local:iso/a.iso - content type needs to be 'backup'");
    unique_takes_an_archive: ROOT POST "/nodes/pve1/qemu" {"vmid": 150, "unique": 1}
        => refused(json!({"archive": "missing property - 'unique' requires this property"}));
    an_unknown_pool: ROOT POST "/nodes/pve1/qemu" {"vmid": 150, "pool": "nosuch"} => error("pool 'nosuch' does not exist");
    a_container_is_made_of_a_template: ROOT POST "/nodes/pve1/lxc" {"vmid": 203, "ostemplate": "local:iso/a.iso"}
        => error("unable to use volume local:iso/a.iso - content type needs to be 'vztmpl'");
    a_containers_storage_is_looked_at_at_once: ROOT POST "/nodes/pve1/lxc" {
        "vmid": 203, "ostemplate": "local:vztmpl/a.tar.zst", "rootfs": "off:1",
    } => error("storage 'off' is disabled");
    a_containers_storage_is_for_containers: ROOT POST "/nodes/pve1/lxc" {
        "vmid": 203, "ostemplate": "local:vztmpl/a.tar.zst", "rootfs": "iso:1",
    } => refused(json!({"storage": "storage 'iso' does not support container directories"}));
    mounts_need_a_root: ROOT POST "/nodes/pve1/lxc" {
        "vmid": 203, "ostemplate": "local:vztmpl/a.tar.zst", "mp0": "local:1,mp=/a",
    } => error("mount points configured, but 'rootfs' not set - aborting");
    restores_do_not_overwrite_what_runs: ROOT POST "/nodes/pve1/lxc" {
        "vmid": 203, "ostemplate": "local:backup/vzdump-lxc-203-2026_11_21-07_01_48.tar.zst", "restore": 1, "force": 1,
    } => error("can't overwrite running container");
    a_linked_clone_goes_nowhere_else: ROOT POST "/nodes/pve1/qemu/100/clone" {"newid": 104, "full": 0, "storage": "local"}
        => error("parameter 'storage' not allowed for linked clones");
    a_linked_clone_keeps_the_format: ROOT POST "/nodes/pve1/qemu/100/clone" {"newid": 104, "full": 0, "format": "raw"}
        => error("parameter 'format' not allowed for linked clones");
    clones_stay_on_storages_for_images: ROOT POST "/nodes/pve1/qemu/100/clone" {"newid": 104, "storage": "iso"}
        => refused(json!({"storage": "storage 'iso' does not support vm images"}));
    clones_go_to_storages_that_are_on: ROOT POST "/nodes/pve1/qemu/100/clone" {"newid": 104, "storage": "off"}
        => error("storage 'off' is disabled");
    clones_go_elsewhere_by_shared_storage: ROOT POST "/nodes/pve1/qemu/100/clone"
        {"newid": 104, "storage": "data", "target": "pve2"} => error("can't clone to non-shared storage 'data'");
    a_locked_source: ROOT POST "/nodes/pve1/qemu/100/clone" {"newid": 104} => error("VM is locked (backup)");
    snapshots_of_raw_disks_are_not_cloned: ROOT POST "/nodes/pve1/qemu/100/clone" {"newid": 104, "snapname": "s1"}
        => error("Full clone feature is not supported for a snapshot of 'local:100/vm-100-disk-0.raw' (scsi0)");
    a_clones_number_may_be_a_containers: ROOT POST "/nodes/pve1/lxc/200/clone" {"newid": 100}
        => error("VM 100 already exists on node 'pve1'");
    a_running_container_is_not_copied: ROOT POST "/nodes/pve1/lxc/200/clone" {"newid": 204, "full": 1}
        => error("Cannot do full clones on a running container without snapshots");
    a_container_that_is_no_template_is_not_linked: ROOT POST "/nodes/pve1/lxc/200/clone" {"newid": 204, "full": 0}
        => error("Linked clone feature for 'local:200/vm-200-disk-0.raw' is not available");
    clones_in_a_pool_take_rights_on_it: TOKEN POST "/nodes/pve1/qemu/100/clone" {"newid": 104, "pool": "dev"}
        => Expected(403, "Permission check failed".into(), json!({"data": null, "message": "Permission check failed\n"}));
    a_running_vm_is_no_template: ROOT POST "/nodes/pve1/qemu/100/template" {}
        => error("you can't convert a VM to template if VM is running");
    a_running_container_is_no_template: ROOT POST "/nodes/pve1/lxc/200/template" {}
        => error("you can't convert a CT to template if the CT is running");
    pending_is_reserved: ROOT POST "/nodes/pve1/lxc/200/snapshot" {"snapname": "Pending"}
        => error("unable to use snapshot name 'pending' (reserved name)");
    no_description_changes_nothing: ROOT PUT "/nodes/pve1/qemu/100/snapshot/nosuch/config" {} => data(Value::Null);
    an_unknown_snapshot_is_not_described: ROOT PUT "/nodes/pve1/qemu/100/snapshot/nosuch/config" {"description": "a"}
        => error("snapshot 'nosuch' does not exist");
    rollbacks_of_containers_are_tasks: ROOT POST "/nodes/pve1/lxc/200/snapshot/s1/rollback" {} => task("vzrollback");
}

// Disks and migrations.
facts! {
    a_disk_moves_to_a_storage_or_a_vm: ROOT POST "/nodes/pve1/qemu/100/move_disk"
        {"disk": "scsi0", "storage": "data", "target-vmid": 101}
        => refused(json!({
            "storage": "either set 'storage' or 'target-vmid', but not both",
            "target-vmid": "either set 'storage' or 'target-vmid', but not both",
        }));
    a_disk_moves_somewhere: ROOT POST "/nodes/pve1/qemu/100/move_disk" {"disk": "scsi0"}
        => refused(json!({
            "storage": "both 'storage' and 'target-vmid' missing, either needs to be set",
            "target-vmid": "both 'storage' and 'target-vmid' missing, either needs to be set",
        }));
    a_disk_that_is_not_there_does_not_move: ROOT POST "/nodes/pve1/qemu/100/move_disk" {"disk": "scsi9", "storage": "data"}
        => error("disk 'scsi9' does not exist");
    cdroms_do_not_move: ROOT POST "/nodes/pve1/qemu/100/move_disk" {"disk": "ide2", "storage": "data"}
        => error("you can't move a cdrom");
    disks_move_to_storages_for_images: ROOT POST "/nodes/pve1/qemu/100/move_disk" {"disk": "scsi0", "storage": "iso"}
        => refused(json!({"storage": "storage 'iso' does not support vm images"}));
    a_stale_digest_stops_a_move: ROOT POST "/nodes/pve1/qemu/100/move_disk"
        {"disk": "scsi0", "storage": "data", "digest": "0000"}
        => error("detected modified configuration - file changed by other user? Try again.");
    a_disk_is_not_moved_to_its_own_vm: ROOT POST "/nodes/pve1/qemu/100/move_disk" {"disk": "scsi0", "target-vmid": 100}
        => refused(json!({"target-vmid": "must be different than source VMID to reassign disk"}));
    a_disk_is_not_moved_to_nobody: ROOT POST "/nodes/pve1/qemu/100/move_disk" {"disk": "scsi0", "target-vmid": 999}
        => error("could not find target VM 999");
    a_key_is_not_taken_twice: ROOT POST "/nodes/pve1/qemu/100/move_disk" {"disk": "scsi0", "target-vmid": 101}
        => error("Target disk key 'scsi0' is already in use for VM '101'");
    a_volume_changes_its_owner_in_a_task: ROOT POST "/nodes/pve1/qemu/100/move_disk"
        {"disk": "scsi1", "target-vmid": 101, "target-disk": "scsi5"} => task("qmmove");
    a_running_containers_volumes_stay: ROOT POST "/nodes/pve1/lxc/200/move_volume" {"volume": "rootfs", "storage": "data"}
        => error("cannot move volumes of a running container");
    resizes_have_a_form: ROOT PUT "/nodes/pve1/lxc/200/resize" {"disk": "scsi0", "size": "1X"}
        => refused(json!({
            "disk": ENUMERATED, "size": "value does not match the regex pattern",
        }));
    a_locked_vm_does_not_migrate: ROOT POST "/nodes/pve1/qemu/100/migrate" {"target": "pve2"}
        => error("VM is locked (backup)");
    a_vms_storages_are_on_the_target: ROOT POST "/nodes/pve1/qemu/100/migrate" {"target": "pve2"}
        => error("storage 'only1' is not available on node 'pve2'");
    migrating_by_force_is_for_root: TOKEN POST "/nodes/pve1/qemu/100/migrate" {"target": "pve2", "force": 1}
        => refused(json!({"force": "Only root may use this option."}));
    a_locked_vm_has_no_preconditions: ROOT GET "/nodes/pve1/qemu/100/migrate" {} => error("VM is locked (backup)");
    a_locked_container_migrates_in_a_task: ROOT POST "/nodes/pve1/lxc/200/migrate" {"target": "pve2"} => task("vzmigrate");
    a_running_container_restarts_elsewhere: ROOT POST "/nodes/pve1/lxc/200/migrate" {"target": "pve2", "restart": 1}
        => task("vzmigrate");
}

const ENUMERATED: &str = "value 'scsi0' does not have a value in the enumeration 'rootfs'";
