//! Files of JSON lines that only grow, and whose every line is on the disk before its writer goes on.
//!
//! A process that is killed leaves whole lines, and at most one that is torn: the last, without its line feed. Nothing was done
//! yet on the word of a torn line, because writing it had not come back; it is cut off. Any other damage is refused.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Why such a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The system refuses.
    #[error("{} can't be {what}: {source}; see to the directory's rights and to room on its disk", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A line is not what was written.
    #[error("line {line} of {} is damaged ({why}); {mend}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
        /// What to do.
        mend: &'static str,
    },
}

impl LinesError {
    pub(crate) fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), what, source }
    }
}

/// A file that lines are added to.
#[derive(Debug)]
pub(crate) struct Lines {
    file: File,
    path: PathBuf,
    /// How many bytes the whole lines take.
    len: u64,
    /// A line could not be written: none comes after it.
    broken: bool,
    /// How many bytes of a line the disk still takes.
    #[cfg(test)]
    room: Option<usize>,
}

impl Lines {
    /// Opens the file, makes it where there is none, cuts a torn line off, and answers the whole lines.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<String>), LinesError> {
        let existed = path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        private(&mut options);
        let mut file = options.open(path).map_err(LinesError::io(path, "opened"))?;
        if !existed && let Some(directory) = path.parent() {
            // Its name has to last as well.
            sync_directory(directory)?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(LinesError::io(path, "read"))?;
        let (lines, whole) = whole_lines(path, &bytes)?;
        if whole < bytes.len() {
            tracing::warn!(file = %path.display(), "its last line was torn, and is cut off: a process was killed while it wrote it");
            file.set_len(whole as u64).map_err(LinesError::io(path, "cut"))?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(LinesError::io(path, "read"))?;
        let open = Self {
            file,
            path: path.to_owned(),
            len: whole as u64,
            broken: false,
            #[cfg(test)]
            room: None,
        };
        Ok((open, lines))
    }

    /// Adds a line. It is on the disk when this comes back. After one that could not be written nothing more is taken: what would come
    /// next would stand behind half a line, or behind one that is missing.
    pub(crate) fn add(&mut self, line: &str) -> Result<(), LinesError> {
        if self.broken {
            let why = io::Error::other("a line before this one could not be written");
            return Err(LinesError::io(&self.path, "written")(why));
        }
        let bytes = format!("{line}\n");
        if let Err(error) = self.write(bytes.as_bytes()) {
            self.broken = true;
            // What was written of it goes; if that fails too it is a torn last line, which is cut off when the file is opened again.
            if let Err(error) = self.file.set_len(self.len) {
                tracing::warn!(file = %self.path.display(), %error, "a line that was written in part could not be cut off");
            }
            return Err(LinesError::io(&self.path, "written")(error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(room) = self.room {
            self.file.write_all(bytes.get(..room).unwrap_or(bytes))?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }
}

/// Reads the whole lines of a file without changing it. Nothing where there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<String>>, LinesError> {
    match std::fs::read(path) {
        Ok(bytes) => whole_lines(path, &bytes).map(|(lines, _)| Some(lines)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LinesError::io(path, "read")(error)),
    }
}

/// The lines, and how many bytes they take.
fn whole_lines(path: &Path, bytes: &[u8]) -> Result<(Vec<String>, usize), LinesError> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut lines = Vec::new();
    for (at, line) in
        bytes.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n').enumerate()
    {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| LinesError::Damaged {
            path: path.to_owned(),
            line: at + 1,
            why: "it is not text".to_owned(),
            mend: MEND,
        })?;
        lines.push(text.to_owned());
    }
    Ok((lines, whole))
}

/// What to do with a file that is damaged in the middle.
pub(crate) const MEND: &str = "bring the file back from a backup, or look at the guests that its other lines name, and then move it away";

/// Makes a name in a directory last.
pub(crate) fn sync_directory(path: &Path) -> Result<(), LinesError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(LinesError::io(path, "written"))
}

/// Puts a whole file in the place of the one that is there, for its owner alone: either of the two is on the disk, whenever a process is killed.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), LinesError> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    private(&mut options);
    let written = options
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(LinesError::io(&new, "written"))?;
    std::fs::rename(&new, path).map_err(LinesError::io(path, "written"))?;
    path.parent().map_or(Ok(()), sync_directory)
}

#[cfg(unix)]
pub(crate) fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
pub(crate) fn private(_: &mut OpenOptions) {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_which_the_disk_had_no_room_leaves_nothing_and_nothing_comes_after_it() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("lines");
        let (mut lines, _) = Lines::open(&path).unwrap();
        lines.add("one").unwrap();
        lines.room = Some(2);
        assert!(lines.add("two").is_err());
        lines.room = None;
        assert!(lines.add("three").is_err(), "what was not written is missing before it");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    }
}
