//! The marker of a managed guest: the tag [`TAG`], and the last line of its description, which names cluster and `uid`.
//!
//! A clone has both as well, so that they prove nothing by themselves: a guest is touched only where its binding, its fingerprint
//! and its number agree too. What is compared and discovered is the guest without its marker.

use pvegraph_inventory::ClusterId;

/// The tag.
pub const TAG: &str = "pvegraph";

/// What the last line of the description begins with.
const BEGIN: &str = "[pvegraph:";

/// The last line of a managed guest's description: `[pvegraph:rig/web]`.
pub fn trailer(cluster: &ClusterId, uid: &str) -> String {
    format!("{BEGIN}{cluster}/{uid}]")
}

/// The trailer that a description has.
pub fn trailer_of(description: &str) -> Option<&str> {
    let last = description.trim_end().lines().last()?;
    (last.starts_with(BEGIN) && last.ends_with(']')).then_some(last)
}

/// A description without its trailer.
pub fn without_trailer(description: &str) -> &str {
    match trailer_of(description) {
        Some(trailer) => {
            let whole = description.trim_end();
            whole.get(..whole.len() - trailer.len()).unwrap_or_default().trim_end_matches(['\n', '\r'])
        }
        None => description,
    }
}

/// A description with this trailer.
pub fn appended(description: &str, trailer: &str) -> String {
    let text = description.trim_end_matches(['\n', '\r']);
    if text.is_empty() { trailer.to_owned() } else { format!("{text}\n\n{trailer}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_trailer_is_the_last_line_alone() {
        let line = trailer(&"rig".parse().unwrap(), "web");
        assert_eq!(line, "[pvegraph:rig/web]");
        assert_eq!(trailer_of("[pvegraph:rig/web]\n"), Some(&*line));
        assert_eq!(trailer_of("a\r\n\r\n[pvegraph:rig/web]\r\n"), Some(&*line));
        assert_eq!(trailer_of("[pvegraph:rig/web]\nmore"), None);
        assert_eq!(trailer_of("see [pvegraph:rig/web]"), None);
        assert_eq!(without_trailer("[pvegraph:rig/web]"), "");
    }

    proptest! {
        #[test]
        fn a_trailer_comes_and_goes(text in "[a-z\\n \\[\\]:]{0,40}") {
            let line = "[pvegraph:rig/web]";
            let whole = appended(&text, line);
            prop_assert_eq!(trailer_of(&whole), Some(line));
            prop_assert_eq!(without_trailer(&whole), text.trim_end_matches('\n'));
            // Once only.
            prop_assert_eq!(appended(without_trailer(&whole), line), whole);
        }
    }
}
