//! What is sent with a call and must not be told.

use std::collections::BTreeMap;

use super::call::Sending;
use crate::plan::FormValue;

/// What is sent with a call and must not be told: PVE repeats values in some of its messages.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    /// By the names of the parameters.
    values: BTreeMap<String, String>,
    /// They can't be read any more: nothing that PVE says is told then.
    unreadable: bool,
}

impl Withheld {
    /// A foreign text without it.
    pub(super) fn redacted(&self, text: &str) -> String {
        if self.unreadable {
            return "(what Proxmox VE says is left out: it may repeat a secret or a text that can't be looked up any more)".to_owned();
        }
        let mut text = text.to_owned();
        for (key, value) in self.values.iter().filter(|(_, value)| !value.is_empty()) {
            text = text.replace(value, &format!("({key})"));
        }
        text
    }
}

impl Sending<'_, '_> {
    /// What is sent and must not be told.
    pub(super) fn hidden(&self, form: &BTreeMap<String, String>) -> Withheld {
        let secret = |key: &String| {
            !matches!(self.request.set.get(key), None | Some(FormValue::Plain(_) | FormValue::Onto(_)))
        };
        let values = form
            .iter()
            .filter(|(key, _)| secret(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Withheld { values, unreadable: false }
    }

    /// The same of a call that a process before this one has sent.
    pub(super) async fn withheld_again(&self) -> Withheld {
        let Self { run, operation, request, .. } = *self;
        if request.set.values().all(|value| matches!(value, FormValue::Plain(_) | FormValue::Onto(_))) {
            return Withheld::default();
        }
        let seen = self.look().await.ok().flatten();
        let form = run.setup.desired.guests.get(&operation.uid).and_then(|guest| {
            request.form(None, guest, seen.as_ref().map(|seen| &seen.guest), run.setup.secrets).ok()
        });
        match form {
            Some(form) => self.hidden(&form),
            None => Withheld { values: BTreeMap::new(), unreadable: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_told_is_taken_out_of_what_pve_says() {
        let values = BTreeMap::from([("cipassword".to_owned(), "hunter2".to_owned())]);
        let known = Withheld { values, unreadable: false };
        assert_eq!(known.redacted("bad value 'hunter2'"), "bad value '(cipassword)'");
        let unknown = Withheld { values: BTreeMap::new(), unreadable: true };
        assert!(!unknown.redacted("bad value 'hunter2'").contains("hunter2"));
    }
}
