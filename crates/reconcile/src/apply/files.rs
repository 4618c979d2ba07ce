//! Where a cluster's journal, plan and audit log are: a directory of its own for each cluster.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pvegraph_inventory::ClusterId;

use crate::journal::{self, Record};
use crate::lines::{LinesError, replace, sync_directory};

/// The name of the file of hashes of passwords.
const SECRETS: &str = "secrets.json";

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

    /// The hashes of passwords that guests were sent.
    pub fn secrets(&self) -> PathBuf {
        self.directory.join(SECRETS)
    }

    /// The same below `directory`, for whoever only reads: nothing is made.
    pub fn secrets_below(directory: &Path, cluster: &ClusterId) -> PathBuf {
        directory.join(file_name(cluster.as_str())).join(SECRETS)
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
        replace(&self.plan(), text)
    }

    /// The plan of the run that was cut off.
    ///
    /// # Errors
    /// It can't be read.
    pub fn kept_plan(&self) -> Result<String, LinesError> {
        fs::read_to_string(self.plan()).map_err(LinesError::io(&self.plan(), "read"))
    }

    /// What the journals of the runs say that have ended, the oldest first.
    ///
    /// # Errors
    /// One can't be read.
    pub fn runs(&self) -> Result<Vec<Record>, LinesError> {
        let directory = self.directory.join("runs");
        let entries = fs::read_dir(&directory).map_err(LinesError::io(&directory, "read"))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        // Their names begin with the time.
        paths.sort();
        paths.iter().filter_map(|path| journal::read(path).transpose()).collect()
    }

    /// The plan of a run that has ended.
    ///
    /// # Errors
    /// It can't be read.
    pub fn plan_of(&self, run: &str) -> Result<String, LinesError> {
        let path = self.plans().join(format!("{}.json", file_name(run)));
        fs::read_to_string(&path).map_err(LinesError::io(&path, "read"))
    }

    fn plans(&self) -> PathBuf {
        self.directory.join("plans")
    }

    /// Keeps the plan of a run that ends beside those of other runs: for the way back.
    fn keep_plan_of(&self, run: &str) -> Result<(), LinesError> {
        let (directory, from) = (self.plans(), self.plan());
        let to = directory.join(format!("{}.json", file_name(run)));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&directory).map_err(LinesError::io(&directory, "made"))?;
        match fs::copy(&from, &to) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(LinesError::io(&to, "written")(error)),
        }
    }

    /// Puts the journal of a run that has ended away, and its plan beside those of other runs.
    ///
    /// # Errors
    /// It can't be moved.
    pub fn close_run(&self, run: &str) -> Result<(), LinesError> {
        self.keep_plan_of(run)?;
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
