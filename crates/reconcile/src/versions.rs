//! The versions of Proxmox VE at which this program changes clusters. Pure.

/// The major versions whose calls are known: 8, which the simulator is modelled on, and 9, whose differences (no `VM.Monitor`, rules of high
/// availability in place of groups) touch nothing that is sent.
pub const KNOWN: [u32; 2] = [8, 9];

/// Why nothing is known of what calls do at this version (`8.4.21`), and the mend.
pub fn unknown(version: &str) -> Option<String> {
    let major = version.split(['.', '-', '~']).next().and_then(|major| major.parse::<u32>().ok());
    let known = KNOWN.map(|major| major.to_string()).join(" and ");
    match major {
        Some(major) if KNOWN.contains(&major) => None,
        Some(major) if KNOWN.iter().all(|known| major < *known) => Some(format!(
            "Proxmox VE {version} is older than those whose calls this program knows ({known}): update the cluster"
        )),
        Some(_) => Some(format!(
            "Proxmox VE {version} is newer than those whose calls this program knows ({known}): use a pvegraph that knows it"
        )),
        None => Some(format!(
            "the version {version:?} is none of Proxmox VE that this program knows ({known}): is the endpoint a node of the cluster?"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen failing with: a limit below and none above.
    #[test]
    fn versions_are_known_by_their_first_number() {
        for version in ["8.0.3", "8.4.21", "9.0.0~11", "9", "8-1"] {
            assert_eq!(unknown(version), None, "{version}");
        }
        for (version, word) in
            [("7.4-17", "update the cluster"), ("10.0.1", "newer"), ("", "node"), ("v8.4", "node")]
        {
            let why = unknown(version).unwrap();
            assert!(why.contains(word) && why.contains("8 and 9") && why.contains(version), "{why}");
        }
    }
}
