//! Where a cluster's journal, plan and audit log are: a directory of its own for each cluster.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pvegraph_inventory::ClusterId;

use crate::journal::{self, Record};
use crate::lines::{LinesError, private, sync_directory};

/// The files of one cluster.
#[derive(Debug, Clone)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// Those of this cluster below `directory`, which is made where it is absent, for its owner alone.
    ///
    /// # Errors
    /// It can't be made.
    pub fn of(directory: &Path, cluster: &ClusterId) -> Result<Self, LinesError> {
        let files = Self { directory: directory.join(file_name(cluster.as_str())) };
        let runs = files.directory.join("runs");
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&runs).map_err(LinesError::io(&runs, "made"))?;
        Ok(files)
    }

    /// The journal of the run that is under way, or was cut off.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal.jsonl")
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.directory.join("audit.jsonl")
    }

    /// The lock of the process that applies.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    fn plan(&self) -> PathBuf {
        self.directory.join("plan.json")
    }

    /// The run that was cut off, or whose outcome is not known, if there is one.
    ///
    /// # Errors
    /// Its journal can't be read.
    pub fn open_run(&self) -> Result<Option<Record>, LinesError> {
        journal::read(&self.journal())
    }

    /// Keeps a run's plan beside its journal, before that is begun.
    ///
    /// # Errors
    /// It can't be written.
    pub fn keep_plan(&self, text: &str) -> Result<(), LinesError> {
        let (path, new) = (self.plan(), self.directory.join("plan.new"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        private(&mut options);
        let written = options
            .open(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(LinesError::io(&new, "written"))?;
        fs::rename(&new, &path).map_err(LinesError::io(&path, "written"))?;
        sync_directory(&self.directory)
    }

    /// The plan of the run that was cut off.
    ///
    /// # Errors
    /// It can't be read.
    pub fn kept_plan(&self) -> Result<String, LinesError> {
        fs::read_to_string(self.plan()).map_err(LinesError::io(&self.plan(), "read"))
    }

    /// Puts the journal of a run that has ended away.
    ///
    /// # Errors
    /// It can't be moved.
    pub fn close_run(&self, run: &str) -> Result<(), LinesError> {
        let (from, to) =
            (self.journal(), self.directory.join("runs").join(format!("{}.jsonl", file_name(run))));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LinesError::io(&from, "moved")(error)),
        }
        sync_directory(&self.directory)
    }
}

/// A name that is one part of a path, whatever is in it.
fn file_name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = text.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}
