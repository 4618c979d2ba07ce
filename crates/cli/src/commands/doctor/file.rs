//! The file of an embedded store, looked at from outside.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::Findings;
use crate::exit::Exit;

const FILE: &str = "file";
const WRITER: &str = "writer";

/// Checks the file. True: there is one to be read.
pub fn check(found: &mut Findings, path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let detail = format!("the directory {} does not exist", parent.display());
        found.fail(
            FILE,
            Exit::Store,
            detail,
            format!("mkdir -p {}, or correct `uri` in [store]", parent.display()),
        );
        return skipped(found);
    }
    if path.is_dir() {
        let mend = "name a file in it as `uri` in [store], such as graph.kgl";
        found.fail(FILE, Exit::Store, "it is a directory", mend);
        return skipped(found);
    }
    // Log and lock are beside the file, so that its directory must be writable as well.
    let exists = path.exists();
    let places = [parent].into_iter().chain(exists.then_some(path));
    if let Some((place, why)) = places.filter_map(|place| Some((place, denied(place)?))).next() {
        let detail = format!("{} can't be written to: {why}", place.display());
        found.fail(FILE, Exit::Store, detail, "run as the user that owns it, or correct its permissions");
        return exists && busy(found, path);
    }
    if !exists {
        found.warn(FILE, "there is no graph yet", "run `pvegraph sync`, which makes it");
        return skipped(found);
    }
    found.ok(FILE, "it is there and can be written to");
    busy(found, path)
}

fn skipped(found: &mut Findings) -> bool {
    found.skip(&[WRITER], "there is no file");
    false
}

/// The lease of the writer is a lock on a file beside the graph's, which ends with the writer.
fn busy(found: &mut Findings, path: &Path) -> bool {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = File::open(PathBuf::from(lock));
    if lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))) {
        let detail = "another process is writing to it; what is read here is its last checkpoint";
        found.warn(WRITER, detail, "try again when that process is done");
    } else {
        found.ok(WRITER, "nobody is writing to it");
    }
    true
}

#[cfg(unix)]
fn denied(path: &Path) -> Option<std::io::Error> {
    use rustix::fs::{Access, access};
    access(path, Access::WRITE_OK).err().map(Into::into)
}

/// Elsewhere only the attribute is known.
#[cfg(not(unix))]
fn denied(path: &Path) -> Option<std::io::Error> {
    let readonly = path.is_file() && path.metadata().is_ok_and(|meta| meta.permissions().readonly());
    readonly.then(|| std::io::ErrorKind::PermissionDenied.into())
}
