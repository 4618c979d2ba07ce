//! Secrets that what is desired refers to: read where they are kept, and compared with what guests were sent.

use pvegraph_reconcile::apply::Files;
use pvegraph_reconcile::desired::{Desired, Problem};
use pvegraph_reconcile::diff::GuestDiff;
use pvegraph_reconcile::document::SecretRef;
use pvegraph_reconcile::live::Live;
use pvegraph_reconcile::sent::{self, Compared, Sent};
use secrecy::ExposeSecret;

use crate::config::Settings;
use crate::secret::{EnvSecret, Secret};

/// Reads a secret from where the desired state says that it is.
pub fn read(from: &SecretRef) -> Result<String, String> {
    let (file, env) = match from {
        SecretRef::File(path) => (Some(std::path::PathBuf::from(path)), None),
        SecretRef::Env(variable) => {
            let value = std::env::var(variable).map_err(|_| format!("the variable {variable} is not set"))?;
            if value.is_empty() {
                return Err(format!("the variable {variable} is empty"));
            }
            (None, Some(EnvSecret { variable: variable.clone(), value: value.into() }))
        }
    };
    let secret = Secret {
        what: "the secret".to_owned(),
        setting: from.to_string(),
        file: file.as_deref(),
        credential: String::new(),
        env: env.as_ref(),
        variable: from.to_string(),
    };
    let read = secret.read_with(None).map_err(|error| pvegraph_sync::chain(&error))?;
    read.map(|secret| secret.expose_secret().to_owned()).ok_or_else(|| secret.missing().to_string())
}

/// Enters into differences which passwords were changed where they are kept, and tells what could not be compared.
pub fn compare(settings: &Settings, desired: &Desired, live: &Live, diffs: &mut [GuestDiff]) -> Compared {
    let path = settings.apply.directory().map(|directory| Files::secrets_below(&directory, &desired.cluster));
    let (kept, unusable) = match path.as_deref().map_or(Ok(None), Sent::read) {
        Ok(kept) => (kept, None),
        Err(error) => (None, Some(error)),
    };
    let mut compared = sent::compare(desired, live, diffs, kept.as_ref(), read);
    if let Some(error) = unusable {
        // Whether they were sent from here is not known.
        let why = |uid: String| Problem::new(uid, sent::FIELD, format!("it is not compared: {error}"));
        compared.unread.extend(std::mem::take(&mut compared.never).into_iter().map(why));
    }
    for one in &compared.unread {
        tracing::warn!("{one}");
    }
    if !compared.never.is_empty() {
        tracing::warn!(
            "{}: `{}` is not compared, because this host has not sent it, and Proxmox VE never tells it: `plan --resend-secrets UID` sends it, \
             and it is compared from then on",
            compared.never.join(", "),
            sent::FIELD
        );
    }
    compared
}
