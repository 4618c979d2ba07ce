//! From differences to operations: what would be done, in which order, with which effect, and what forbids it. Pure: it is made of
//! what was read, and does nothing.

mod effect;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use effect::Effect;

use crate::canonical::hex;
use crate::desired::{Desired, Guest, Problem};
use crate::diff::{Change, Class, GuestDiff};
use crate::document::{Deletion, Policy, Reboot};
use crate::live::LiveGuest;
use crate::stored::Binding;

/// How long a plan holds.
pub const VALID_SECONDS: i64 = 3_600;
/// A plan that restarts more guests than this is refused, whatever share of the estate they are.
pub const MAX_RESTARTS: usize = 5;
/// A plan that restarts more than one in this many guests is refused, where that is more than one guest.
pub const RESTARTS_ONE_IN: usize = 10;

/// What is done to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is made.
    Create,
    /// A volume becomes larger.
    Grow,
    /// A volume goes to another storage.
    Move,
    /// Options are set and removed.
    Configure,
    /// It goes to another node.
    Migrate,
    /// It is started or stopped.
    Power,
}

impl Action {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Grow => "grow",
            Self::Move => "move",
            Self::Configure => "configure",
            Self::Migrate => "migrate",
            Self::Power => "power",
        }
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Op {
    /// The desired guest.
    pub uid: String,
    /// Its number.
    pub vmid: Option<i64>,
    /// What is done.
    pub action: Action,
    /// What it does to the guest while it runs.
    pub effect: Effect,
    /// Why: the fields that differ. Secrets and free text are not shown.
    pub reasons: Vec<String>,
    /// The guests that feel it: this one, and those that depend on it where it goes down.
    pub blast: usize,
    /// The fingerprint that the guest must still have.
    pub fingerprint: Option<String>,
    /// The digest that its configuration must still have.
    pub digest: Option<String>,
}

/// What would be done, and what forbids it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The cluster.
    pub cluster: String,
    /// The desired state's generation.
    pub generation: i64,
    /// When it was made, in epoch seconds.
    pub made_at: i64,
    /// When it is stale.
    pub expires_at: i64,
    /// The operations, in their order.
    pub ops: Vec<Op>,
    /// What forbids it: guest, field and mend. Nothing is applied while there is one.
    pub blocked: Vec<Blocked>,
    /// Guests that are only observed and differ.
    pub observed: Vec<String>,
    /// Guests that restart.
    pub restarts: usize,
    /// Guests that are deleted.
    pub deletes: usize,
    /// Guests that feel something.
    pub blast: usize,
}

/// What forbids an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// The guest.
    pub subject: String,
    /// The field.
    pub field: String,
    /// Why, and the mend.
    pub text: String,
}

impl From<Problem> for Blocked {
    fn from(Problem { subject, field, text }: Problem) -> Self {
        Self { subject, field, text }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.subject, self.field, self.text)
    }
}

impl Plan {
    /// Nothing would be done, and nothing forbids it.
    pub fn noop(&self) -> bool {
        self.ops.is_empty() && self.blocked.is_empty()
    }

    /// SHA-256 of its canonical JSON: what an approval binds to. Keys are in one order, so that equal plans have equal hashes.
    pub fn sha256(&self) -> String {
        let json = serde_json::to_value(self).map(|value| value.to_string()).unwrap_or_default();
        hex(&Sha256::digest(json.as_bytes()))
    }
}

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What is desired.
    pub desired: &'a Desired,
    /// Its generation.
    pub generation: i64,
    /// Bindings by `uid`.
    pub bindings: &'a BTreeMap<String, Binding>,
    /// The live guests by number.
    pub live: &'a BTreeMap<i64, LiveGuest>,
    /// What differs, for each desired guest that could be compared.
    pub diffs: &'a [GuestDiff],
    /// Guests that could not be compared, and why.
    pub unread: &'a BTreeMap<String, String>,
    /// Now, in epoch seconds.
    pub now: i64,
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan {
        cluster: input.desired.cluster.to_string(),
        generation: input.generation,
        made_at: input.now,
        expires_at: input.now + VALID_SECONDS,
        ops: Vec::new(),
        blocked: Vec::new(),
        observed: Vec::new(),
        restarts: 0,
        deletes: 0,
        blast: 0,
    };
    let block =
        |guest: &Guest, field: &str, text: String| Blocked::from(Problem::new(guest.label(), field, text));
    if input.desired.guests.is_empty() {
        let text = "nothing is desired: an empty estate is never applied; import a document or adopt guests";
        plan.blocked.push(Problem::new("the estate", "guests", text).into());
    }
    for (guest, reason) in input.unread {
        let text = format!("it could not be read, so that nothing is known of it: {reason}");
        plan.blocked.push(Problem::new(guest, "guest", text).into());
    }
    for diff in input.diffs.iter().filter(|diff| !diff.noop()) {
        let Some(guest) = input.desired.guests.get(&diff.uid) else { continue };
        if guest.policy == Policy::Observe {
            plan.observed.push(guest.uid.clone());
            continue;
        }
        let live = guest.vmid.and_then(|vmid| input.live.get(&vmid));
        match forbidden(guest, diff, live, input.bindings.get(&guest.uid)) {
            Some((field, text)) => plan.blocked.push(block(guest, &field, text)),
            None => plan.ops.extend(operations(guest, diff, live)),
        }
    }
    let dependents = |uid: &str| dependents(input.desired, uid);
    let mut felt: BTreeSet<String> = BTreeSet::new();
    let mut restarted: BTreeSet<String> = BTreeSet::new();
    for op in &mut plan.ops {
        let mut own = BTreeSet::from([op.uid.clone()]);
        if op.effect.interrupts() {
            own.extend(dependents(&op.uid));
        }
        if op.effect == Effect::Restart {
            restarted.insert(op.uid.clone());
        }
        op.blast = own.len();
        felt.extend(own);
    }
    plan.restarts = restarted.len();
    plan.blast = felt.len();
    let share = (input.desired.guests.len() / RESTARTS_ONE_IN).max(1);
    if plan.restarts > share.min(MAX_RESTARTS) {
        let text = format!(
            "{} of {} guests would restart, and at most {} may in one plan: change fewer at once, or let fewer restart (`reboot`)",
            plan.restarts,
            input.desired.guests.len(),
            share.min(MAX_RESTARTS)
        );
        plan.blocked.push(Problem::new("the estate", "reboot", text).into());
    }
    let depth = depths(input.desired);
    plan.ops.sort_by_cached_key(|op| {
        (op.action, depth.get(op.uid.as_str()).copied().unwrap_or_default(), op.uid.clone())
    });
    plan.blocked.sort_by(|a, b| (&a.subject, &a.field).cmp(&(&b.subject, &b.field)));
    plan
}

/// Why a guest may not be touched: the field, and the mend.
fn forbidden(
    guest: &Guest,
    diff: &GuestDiff,
    live: Option<&LiveGuest>,
    binding: Option<&Binding>,
) -> Option<(String, String)> {
    let is = |class: &dyn Fn(&Class) -> bool| diff.changes.iter().find(|change| class(&change.class));
    if let Some(change) = is(&|class| *class == Class::IdentityConflict) {
        let text = "the live guest is another one: look at it, and adopt it with --replace if it is meant"
            .to_owned();
        return Some((change.field.clone(), text));
    }
    if let Some((change, why)) = diff.changes.iter().find_map(|change| match change.class {
        Class::Impossible(why) => Some((change, why)),
        _ => None,
    }) {
        return Some((change.field.clone(), why.to_owned()));
    }
    let Some(live) = live else {
        // Absence never makes a second guest of one that was there.
        return binding.map(|_| {
            let mend = "it was adopted or made before and is gone: look for it, and remove its Binding to have it made anew";
            ("guest".to_owned(), mend.to_owned())
        });
    };
    if binding.is_none() {
        return Some((
            "guest".to_owned(),
            format!("it is not bound: run `pvegraph adopt {}` first", live.vmid),
        ));
    }
    if guest.tombstone {
        return Some(("tombstone".to_owned(), tombstone(guest, live)));
    }
    live.config
        .get("lock")
        .map(|lock| ("lock".to_owned(), format!("Proxmox VE has it locked ({lock}): wait for that to end")))
}

/// Which key to a deletion is absent.
fn tombstone(guest: &Guest, live: &LiveGuest) -> String {
    let protected = live.config.get("protection").is_some_and(|value| value == "1");
    if guest.protected || protected {
        "it is protected: take `protected` here and `protection` at the guest away first".to_owned()
    } else if guest.deletion != Deletion::Destroy {
        "its `deletion` is `forbid`: write `destroy`".to_owned()
    } else {
        "deletions are not allowed yet: a scope's `max_deletes` is 0".to_owned()
    }
}

fn operations(guest: &Guest, diff: &GuestDiff, live: Option<&LiveGuest>) -> Vec<Op> {
    let op = |action: Action, effect: Effect, changes: &[&Change]| Op {
        uid: guest.uid.clone(),
        vmid: guest.vmid,
        action,
        effect,
        reasons: changes.iter().map(ToString::to_string).collect(),
        blast: 1,
        fingerprint: live.and_then(LiveGuest::fingerprint),
        digest: live.and_then(|live| live.config.get("digest").cloned()),
    };
    let Some(live) = live else {
        return vec![op(Action::Create, Effect::Create, &diff.changes.iter().collect::<Vec<_>>())];
    };
    let mut by_action: BTreeMap<Action, Vec<&Change>> = BTreeMap::new();
    // What is pending already needs no writing; it only waits.
    for change in diff.changes.iter().filter(|change| change.class == Class::Drift) {
        by_action.entry(effect::action_of(guest.kind, &change.field)).or_default().push(change);
    }
    by_action
        .into_iter()
        .map(|(action, changes)| {
            let effects = changes.iter().map(|change| effect::of(live, action, &change.field));
            let effect = effects.max().unwrap_or(Effect::Hot);
            let effect = match effect {
                Effect::Restart if guest.reboot == Reboot::Never => Effect::Pending,
                effect => effect,
            };
            op(action, effect, &changes)
        })
        .collect()
}

/// The guests that depend on this one, directly or through others.
fn dependents(desired: &Desired, uid: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![uid.to_owned()];
    while let Some(next) = open.pop() {
        for guest in desired.guests.values().filter(|guest| guest.depends_on.contains(&next)) {
            if guest.uid != uid && found.insert(guest.uid.clone()) {
                open.push(guest.uid.clone());
            }
        }
    }
    found
}

/// How many guests have to come before each one. There are no cycles: the desired state was checked.
fn depths(desired: &Desired) -> BTreeMap<&str, usize> {
    let mut depths: BTreeMap<&str, usize> = desired.guests.keys().map(|uid| (uid.as_str(), 0)).collect();
    // The longest path has fewer steps than there are guests.
    for _ in 0..desired.guests.len() {
        let mut changed = false;
        for guest in desired.guests.values() {
            let below = guest
                .depends_on
                .iter()
                .filter_map(|uid| depths.get(uid.as_str()))
                .max()
                .map_or(0, |depth| depth + 1);
            if depths.get(guest.uid.as_str()) != Some(&below) {
                depths.insert(&guest.uid, below);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    depths
}
