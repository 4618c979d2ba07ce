//! PVE's own schema, as the tests read it.

use std::path::Path;

use pve_sim::Contract;

/// The schema of the folder of genuine data.
pub fn schema(folder: &Path) -> Contract {
    Contract::read(&folder.join("api-schema-8.4.json")).unwrap()
}
