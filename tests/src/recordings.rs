//! The recorded answers of a genuine estate, which live beside the project and not in it.

use std::io::Write;
use std::path::PathBuf;

/// The directory of the recordings, or nothing where there are none, in which case the test returns.
///
/// `PVEGRAPH_RECORDINGS` names it, else it is `../shared/pve` beside the workspace. Where it is absent a line
/// `not run: TEST: PATH is absent` goes to standard error, past the capture of the test harness.
///
/// # Panics
/// Where it is absent although it is asked for: by `CI=true`, or by `PVEGRAPH_RECORDINGS`.
pub fn recordings_dir(test: &str) -> Option<PathBuf> {
    match locate(|name| std::env::var(name).ok()) {
        Ok(dir) => Some(dir),
        Err(Absent { path, required: false }) => {
            let _ = writeln!(std::io::stderr(), "not run: {test}: {} is absent", path.display());
            None
        }
        Err(Absent { path, required: true }) => {
            panic!("{test}: {} is absent, and CI=true or PVEGRAPH_RECORDINGS asks for it", path.display())
        }
    }
}

#[derive(Debug, PartialEq)]
struct Absent {
    path: PathBuf,
    required: bool,
}

fn locate(env: impl Fn(&str) -> Option<String>) -> Result<PathBuf, Absent> {
    let named = env("PVEGRAPH_RECORDINGS").filter(|v| !v.is_empty());
    let required = named.is_some() || env("CI").as_deref() == Some("true");
    let path = match named {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/pve")),
    };
    if path.is_dir() { Ok(path.canonicalize().unwrap_or(path)) } else { Err(Absent { path, required }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_named_directory_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert_eq!(locate(env(&[("PVEGRAPH_RECORDINGS", path.to_str().unwrap())])), Ok(path));
    }

    #[test]
    fn a_named_directory_that_is_absent_is_always_an_error() {
        let absent = locate(env(&[("PVEGRAPH_RECORDINGS", "/nonexistent/recordings")])).unwrap_err();
        assert_eq!(absent, Absent { path: "/nonexistent/recordings".into(), required: true });
    }

    #[test]
    fn without_a_name_only_ci_requires_them() {
        for (ci, required) in [("true", true), ("false", false), ("", false)] {
            if let Err(absent) = locate(env(&[("CI", ci)])) {
                assert_eq!(absent.required, required, "CI={ci}");
            }
        }
        let empty = locate(env(&[("PVEGRAPH_RECORDINGS", "")]));
        assert_eq!(empty, locate(env(&[])), "an empty name is no name");
    }
}
