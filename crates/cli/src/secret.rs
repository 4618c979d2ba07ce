//! Secrets: from a file, from systemd's credentials, or from the environment; never from a flag or the configuration file.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// Set by systemd for a unit with `LoadCredential=`.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A secret is a line. What is longer is a wrong file, or one that never ends.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret from the environment.
#[derive(Debug, Clone)]
pub struct EnvSecret {
    /// The variable.
    pub variable: String,
    /// Its value.
    pub value: SecretString,
}

/// Where one secret may be. The places are tried in the order of the fields.
#[derive(Debug)]
pub struct Secret<'a> {
    /// What it is, for messages.
    pub what: String,
    /// The setting that names its file.
    pub setting: String,
    /// That file.
    pub file: Option<&'a Path>,
    /// Its name among systemd's credentials.
    pub credential: String,
    /// The variable, if it is set.
    pub env: Option<&'a EnvSecret>,
    /// The variable's name.
    pub variable: String,
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It is given nowhere.
    #[error(
        "{what} is given nowhere: name its file in `{setting}`, or set {variable}, or pass it as the systemd credential \
         `{credential}`"
    )]
    Missing {
        /// The secret.
        what: String,
        /// The setting that could name its file.
        setting: String,
        /// The variable that could hold it.
        variable: String,
        /// Its name among systemd's credentials.
        credential: String,
    },
    /// Its file can't be read.
    #[error("the file {} with {what} (from {from}) can't be read", path.display())]
    Read {
        /// The secret.
        what: String,
        /// Its file.
        path: PathBuf,
        /// What named the file.
        from: String,
        /// The cause.
        source: io::Error,
    },
    /// Its file holds something else.
    #[error("the file {} with {what} (from {from}) {wrong}", path.display())]
    Content {
        /// The secret.
        what: String,
        /// Its file.
        path: PathBuf,
        /// What named the file.
        from: String,
        /// What is wrong.
        wrong: &'static str,
    },
}

impl Secret<'_> {
    /// Reads it from the first place that has it.
    ///
    /// # Errors
    /// That place can't be read, or does not hold one line of text.
    pub fn read(&self) -> Result<Option<SecretString>, SecretError> {
        let directory = env::var_os(CREDENTIALS_DIRECTORY).filter(|directory| !directory.is_empty());
        self.read_with(directory.as_deref().map(Path::new))
    }

    /// Reads it, with systemd's credentials in this directory.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(&self, credentials: Option<&Path>) -> Result<Option<SecretString>, SecretError> {
        if let Some(path) = self.file {
            if let Some(EnvSecret { variable, .. }) = self.env {
                tracing::warn!(variable, "not used, because `{}` names a file", self.setting);
            }
            return self.file_at(path, &format!("`{}`", self.setting)).map(Some);
        }
        if let Some(directory) = credentials {
            let path = directory.join(&self.credential);
            match self.file_at(&path, &format!("${CREDENTIALS_DIRECTORY}")) {
                Err(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                read => return read.map(Some),
            }
        }
        Ok(self.env.map(|secret| secret.value.clone()))
    }

    /// The error for a secret that is needed and given nowhere.
    pub fn missing(&self) -> SecretError {
        SecretError::Missing {
            what: self.what.clone(),
            setting: self.setting.clone(),
            variable: self.variable.clone(),
            credential: self.credential.clone(),
        }
    }

    fn file_at(&self, path: &Path, from: &str) -> Result<SecretString, SecretError> {
        let content = |wrong| SecretError::Content {
            what: self.what.clone(),
            path: path.into(),
            from: from.into(),
            wrong,
        };
        let bytes = read(path).map_err(|source| SecretError::Read {
            what: self.what.clone(),
            path: path.into(),
            from: from.into(),
            source,
        })?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(content("is larger than 64 KiB: is it the right file?"));
        }
        let text = String::from_utf8(bytes).map_err(|_| content("is not UTF-8 text"))?;
        let line =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if line.trim().is_empty() {
            return Err(content("is empty"));
        }
        if line.contains(['\n', '\r']) {
            return Err(content("has more than one line: it must hold the secret alone"));
        }
        Ok(SecretString::from(line))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    warn_if_open_to_all(path, &file);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(unix)]
fn warn_if_open_to_all(path: &Path, file: &File) {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_READ: u32 = 0o004;
    // Of a directory or a pipe the bit says nothing.
    let open = |meta: std::fs::Metadata| meta.is_file() && meta.permissions().mode() & OTHERS_READ != 0;
    if file.metadata().is_ok_and(open) {
        tracing::warn!(file = %path.display(), "every user of this machine can read this secret: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_open_to_all(_: &Path, _: &File) {}
