//! What is sent with a call and must not be told.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::call::Sending;
use crate::plan::FormValue;

/// The length in characters from which a single line of a value is taken out.
const MIN_LINE: usize = 4;

/// What is encoded in URLs and forms.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

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
        let mut forms: Vec<(String, &String)> =
            self.values.iter().flat_map(|(key, value)| spelled(value).map(move |form| (form, key))).collect();
        // What is part of another one goes after it.
        forms.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        forms.iter().fold(text.to_owned(), |text, (form, key)| text.replace(form, &format!("({key})")))
    }
}

/// As what a value may be repeated: whole or one of its lines, each plain, percent-encoded (`sshkeys` are sent so) or decoded. Lines that are
/// shorter than [`MIN_LINE`] tell nothing, and would be found everywhere.
fn spelled(value: &str) -> impl Iterator<Item = String> {
    let decoded = percent_decode_str(value).decode_utf8_lossy().into_owned();
    let lines = |text: &str| -> Vec<String> {
        let long = |line: &&str| line.chars().count() >= MIN_LINE;
        text.lines().map(str::trim).filter(long).map(str::to_owned).collect()
    };
    let mut plain = vec![value.to_owned(), value.trim().to_owned(), decoded.clone()];
    plain.extend(lines(value));
    plain.extend(lines(&decoded));
    let encoded = plain.clone().into_iter().flat_map(|text| {
        let percent = utf8_percent_encode(&text, UNRESERVED).to_string();
        let path = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
        [percent.replace("%20", "+"), lower_hex(&percent), lower_hex(&path), percent, path]
    });
    let all: BTreeSet<String> = plain.clone().into_iter().chain(encoded).collect();
    all.into_iter().filter(|form| !form.is_empty())
}

/// The same with `%2f` for `%2F`.
fn lower_hex(encoded: &str) -> String {
    let mut after = usize::MAX;
    let lower = encoded.chars().map(|c| {
        after = if c == '%' { 0 } else { after.saturating_add(1) };
        if after <= 2 { c.to_ascii_lowercase() } else { c }
    });
    lower.collect()
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

    /// Seen failing with: values that are only taken out as a whole, and as they are.
    #[test]
    fn one_line_of_a_value_and_what_is_encoded_are_taken_out_too() {
        let text = "the root password\nis hunter2/ä\na";
        let keys = "ssh-ed25519%20AAAA%2Fxyz%20me%0Assh-rsa%20BBBB%2Bq%20you";
        let values = [("description", text), ("sshkeys", keys)];
        let values = values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let known = Withheld { values, unreadable: false };
        for (said, told) in [
            ("a line: is hunter2/ä", "a line: (description)"),
            ("is%20hunter2%2F%C3%A4!", "(description)!"),
            ("is+hunter2%2F%C3%A4!", "(description)!"),
            ("is%20hunter2%2f%c3%a4!", "(description)!"),
            ("bad key ssh-rsa BBBB+q you", "bad key (sshkeys)"),
            ("bad key 'ssh-ed25519%20AAAA%2Fxyz%20me'", "bad key '(sshkeys)'"),
            ("a name has an a", "a name has an a"),
        ] {
            assert_eq!(known.redacted(said), told, "{said}");
        }
    }
}
