//! Storages and volumes that a request names.

use std::collections::BTreeMap;

use serde_json::Value;

use super::prepare::Maker;
use crate::schema::split_list;
use crate::work::disks::is_drive;
use crate::world::config::parse_drive;
use crate::world::state::{Storage, Usage, Volume};

impl Maker<'_> {
    /// A storage that takes everything; a directory, whose files are named after their guests.
    pub fn ensure_storage(&mut self, id: &str) -> &mut Storage {
        let properties = [("path".to_owned(), Value::from("/var/lib/vz"))].into_iter().collect();
        self.state.storages.entry(id.to_owned()).or_insert_with(|| Storage {
            id: id.to_owned(),
            kind: "dir".to_owned(),
            content: "images,rootdir,vztmpl,iso,backup,snippets,import".to_owned(),
            shared: false,
            nodes: None,
            disabled: false,
            properties,
            usage: Usage { total: 64 << 30, used: 8 << 30 },
            usage_on: BTreeMap::new(),
        })
    }

    /// Storages and volumes that parameters name.
    pub(super) fn named_storages(&mut self) {
        let mut storages: Vec<String> = Vec::new();
        let mut volumes: Vec<String> = Vec::new();
        let creates = self.template == "/storage" && self.recording.method == "POST";
        for name in ["storage", "targetstorage", "target-storage"] {
            storages.extend(
                self.parameters.get(name).into_iter().flat_map(|text| split_list(text)).map(str::to_owned),
            );
        }
        storages.extend(self.in_path.get("storage").cloned());
        let kind = self.path_kind();
        for (key, value) in self.parameters.iter().filter(|(key, _)| is_drive(kind, key)) {
            let drive = parse_drive(key, value);
            if let Some(storage) = drive.storage() {
                storages.push(storage.to_owned());
                volumes.push(drive.volume.clone());
            }
        }
        for name in ["ostemplate", "archive", "volume", "volid"] {
            volumes.extend(self.parameters.get(name).filter(|value| value.contains(':')).cloned());
        }
        let whole = self.in_path.get("volume").map(|volume| match volume.contains(':') {
            true => volume.clone(),
            false => format!("{}:{volume}", self.parameter("storage")),
        });
        volumes.extend(whole);
        let of_volumes = volumes.iter().filter_map(|volume| volume.split_once(':'));
        storages.extend(of_volumes.map(|(storage, _)| storage.to_owned()));
        let errors = self.recording.json.get("errors").map(Value::to_string).unwrap_or_default();
        let unknown = errors.contains("No such storage") || self.reason().starts_with("RRD error");
        for storage in storages.into_iter().filter(|storage| !storage.is_empty()) {
            let denied = self.reason().contains(&format!("storage '{storage}' does not exist"));
            if denied || unknown || creates {
                self.state.storages.remove(&storage);
            } else {
                self.ensure_storage(&storage);
            }
        }
        let denied = self.reason().contains("does not exist") || self.reason().contains("failed - no format");
        let denied = if denied { self.reason().to_owned() } else { String::new() };
        for volume in volumes {
            // What the answer says is not there, is not.
            if denied.contains(&format!("'{volume}'")) {
                continue;
            }
            let allocates = volume
                .split_once(':')
                .is_none_or(|(_, name)| name.parse::<f64>().is_ok() || name == "cloudinit");
            if allocates {
                continue;
            }
            let content = ["iso", "vztmpl", "backup", "snippets"]
                .into_iter()
                .find(|content| volume.contains(&format!(":{content}/")))
                .unwrap_or("images");
            let vmid = volume
                .split([':', '/', '-', '_'])
                .find_map(|part| part.parse().ok().filter(|vmid| *vmid >= 100));
            let config = (content == "backup").then(|| "arch: amd64\nhostname: x\nmemory: 512\nostype: debian\nrootfs: local:1/vm-1-disk-0.raw,size=1G\n".to_owned());
            let format = volume.rsplit_once('.').map_or("raw", |(_, end)| end).to_owned();
            self.state.volumes.insert(
                volume,
                Volume {
                    content: content.to_owned(),
                    size: 1 << 30,
                    format,
                    vmid,
                    config,
                    ..Volume::default()
                },
            );
        }
    }
}
