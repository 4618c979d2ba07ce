//! From differences to operations: what would be done, in which order, with which effect, and what forbids it. Pure: it is made of
//! what was read, and does nothing.

mod beforehand;
mod clone;
mod create;
mod effect;
mod file;
mod guard;
mod known;
mod merge;
mod migrate;
mod operations;
mod order;
mod place;
mod request;
mod snapshot;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::GuestType;
use serde::{Deserialize, Serialize};

pub use effect::Effect;
pub use file::{FileError, VERSION, canonical_json};
pub use guard::{FELLED_ONE_IN, MAX_FELLED, protected as is_protected, too_many};
pub use migrate::forbids as migration_forbidden;
pub use operations::pending_sha256;
pub use place::places;
pub use request::{FormValue, Hidden, Method, Onto, Origin, Request, Unresolved};
pub use snapshot::{Ask, snapshot_plan};

use crate::canonical::TagStyle;
use crate::desired::{Desired, Guest, Problem};
use crate::diff::GuestDiff;
use crate::document::Policy;
use crate::live::{Listed, Live, LiveGuest};
use crate::rollback::Was;
use crate::scope::Scope;
use crate::stored::{self, Binding, bound_to};
use order::Dependents;
use place::Places;

/// How long a plan holds.
pub const VALID_SECONDS: i64 = 3_600;

/// What is done to a guest; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// The marker is put on.
    Mark,
    /// A volume becomes larger.
    Grow,
    /// A volume goes to another storage.
    Move,
    /// Options are set and removed.
    Configure,
    /// It goes to another node.
    Migrate,
    /// It is started, stopped or restarted.
    Power,
    /// A snapshot of it is taken.
    Snapshot,
    /// It goes back to a snapshot.
    RestoreSnapshot,
    /// It becomes a template.
    Template,
    /// It is deleted.
    Destroy,
}

impl Action {
    /// What a scope can allow. Marking is allowed where configuring is.
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Grow,
        Self::Move,
        Self::Configure,
        Self::Migrate,
        Self::Power,
        Self::Snapshot,
        Self::RestoreSnapshot,
        Self::Template,
        Self::Destroy,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Mark => "mark",
            Self::Grow => "grow",
            Self::Move => "move",
            Self::Configure => "configure",
            Self::Migrate => "migrate",
            Self::Power => "power",
            Self::Snapshot => "snapshot",
            Self::RestoreSnapshot => "restore-snapshot",
            Self::Template => "template",
            Self::Destroy => "destroy",
        }
    }

    /// Can nothing bring back what was? A scope allows it only where it is told so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::RestoreSnapshot | Self::Template | Self::Destroy)
    }

    /// What a scope allows by this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its place in the plan, from 1.
    pub number: usize,
    /// The operations that have to be done before it.
    pub after: BTreeSet<usize>,
    /// The desired guest.
    pub uid: String,
    /// Its number.
    pub vmid: i64,
    /// Machine or container.
    pub kind: GuestType,
    /// The node that is asked: where the guest is, or will be made.
    pub node: String,
    /// What is done.
    pub action: Action,
    /// What it does to the guest while it runs.
    pub effect: Effect,
    /// Another plan can bring back all that it changes; see [`crate::rollback::comes_back`].
    pub reversible: bool,
    /// The fields that are as desired afterwards: `cores`, `net0.bridge`, `node`, `state`, `guest`.
    pub fields: Vec<String>,
    /// Why: the fields that differ. Secrets and free text are not shown.
    pub reasons: Vec<String>,
    /// The guests that feel it, by `uid`: this one, and those that depend on it where it goes down.
    pub affects: BTreeSet<String>,
    /// How many these are.
    pub blast: usize,
    /// The fingerprint that the guest must still have; nothing where it is made by this plan.
    pub fingerprint: Option<String>,
    /// The digest that its configuration must still have before the first operation of the guest.
    pub digest: Option<String>,
    /// SHA-256 of what waits for a restart there, likewise; see [`pending_sha256`].
    pub pending_sha256: Option<String>,
    /// What fields had that are neither secrets nor free text, and what they get: for the way back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<String, Was>,
    /// Whether it runs (`running`, `stopped`), which it must still do before the first operation of the guest; nothing where it is made by
    /// this plan, or was not known.
    pub status: Option<String>,
    /// The calls, in their order; each after the task of the one before ended.
    pub requests: Vec<Request>,
}

impl Operation {
    /// The node that it takes the guest to; nothing where it is no migration.
    pub fn target(&self) -> Option<&str> {
        self.requests.iter().find_map(Request::target)
    }
}

/// What would be done, and what forbids it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The cluster.
    pub cluster: String,
    /// What no other plan has, however alike they are: a plan is for one run, known by its hash, and the next one may be made in the same
    /// second with the same calls.
    pub nonce: String,
    /// The desired state's generation.
    pub generation: i64,
    /// SHA-256 of the desired state: what is written by hand does not raise the generation. See [`Desired::sha256`].
    pub desired_sha256: String,
    /// The plan that this one takes back, by its SHA-256: guests go to where they were then, whatever is desired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_of: Option<String>,
    /// When it was made, in epoch seconds.
    pub made_at: i64,
    /// When it is stale.
    pub expires_at: i64,
    /// The operations, in their order.
    pub operations: Vec<Operation>,
    /// What forbids it: guest, field and mend. Nothing is applied while there is one.
    pub blocked: Vec<Remark>,
    /// What is left for a later plan, and why.
    pub postponed: Vec<Remark>,
    /// What policies warn of, and what else should be known before it is applied.
    pub warnings: Vec<Remark>,
    /// The policies that were asked, with the SHA-256 of each.
    pub policies: BTreeMap<String, String>,
    /// Guests that are only observed and differ.
    pub observed: Vec<String>,
    /// Guests that restart or stop.
    pub restarts: usize,
    /// Guests that are deleted.
    pub deletes: usize,
    /// Guests that feel something.
    pub blast: usize,
}

/// Something to say of a guest's field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remark {
    /// The guest.
    pub subject: String,
    /// The field.
    pub field: String,
    /// What, and the mend.
    pub text: String,
}

impl From<Problem> for Remark {
    fn from(Problem { subject, field, text }: Problem) -> Self {
        Self { subject, field, text }
    }
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: `{}`: {}", self.subject, self.field, self.text)
    }
}

impl Plan {
    /// A plan of nothing.
    fn empty(input: &Input<'_>) -> Self {
        let (generation, desired_sha256) = (input.generation, input.desired.sha256());
        let nonce = input.nonce.to_owned();
        Self {
            nonce,
            generation,
            desired_sha256,
            ..Self::of_nothing(input.desired.cluster.as_str(), input.now)
        }
    }

    /// The same for a desired state that nobody has written. `now` is in epoch seconds.
    pub(crate) fn of_nothing(cluster: &str, now: i64) -> Self {
        Self {
            cluster: cluster.to_owned(),
            nonce: String::new(),
            generation: 0,
            desired_sha256: String::new(),
            back_of: None,
            made_at: now,
            expires_at: now + VALID_SECONDS,
            operations: Vec::new(),
            blocked: Vec::new(),
            postponed: Vec::new(),
            warnings: Vec::new(),
            policies: BTreeMap::new(),
            observed: Vec::new(),
            restarts: 0,
            deletes: 0,
            blast: 0,
        }
    }

    /// Would something be lost for good, so that somebody has to agree to it?
    pub fn loses(&self) -> bool {
        let is = |operation: &Operation| {
            operation.effect == Effect::Delete
                || matches!(operation.action, Action::Destroy | Action::RestoreSnapshot | Action::Template)
        };
        self.deletes > 0 || self.operations.iter().any(is)
    }

    /// Nothing would be done, and nothing forbids it.
    pub fn noop(&self) -> bool {
        self.operations.is_empty() && self.blocked.is_empty()
    }

    /// Does it make this guest?
    pub fn makes(&self, uid: &str) -> bool {
        self.operations.iter().any(|operation| operation.action == Action::Create && operation.uid == uid)
    }
}

/// What waits for a restart at a guest: the value that comes, or nothing where the option goes. See [`crate::live::pending`].
pub type Pending = BTreeMap<String, Option<String>>;

/// What a plan is made of, besides what is desired and what is there.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// All guests of the cluster.
    pub listed: BTreeMap<i64, Listed>,
    /// What waits for a restart, by number; a guest of which nothing was asked is absent.
    pub pending: BTreeMap<i64, Pending>,
    /// Nodes, and whether they are online. Empty where it is not known.
    pub nodes: BTreeMap<String, bool>,
    /// Storages by node; a node of which they are not known is absent.
    pub storages: BTreeMap<String, BTreeSet<String>>,
    /// Storages that are the same on all nodes; nothing where it is not known.
    pub shared: Option<BTreeSet<String>>,
    /// The options of snapshots that are copied, by number and name: nothing for one that is not there; one that could not be read is absent.
    pub snapshots: BTreeMap<(i64, String), Option<BTreeMap<String, String>>>,
    /// Types of storages by name, where they are known: `zfspool`.
    pub storage_types: BTreeMap<String, String>,
    /// Bridges by node, likewise.
    pub bridges: BTreeMap<String, BTreeSet<String>>,
    /// Templates of containers by node, likewise.
    pub templates: BTreeMap<String, BTreeSet<String>>,
    /// Guests that replication copies, where somebody asked.
    pub replicated: BTreeSet<i64>,
    /// Guests that build on a guest's volumes, by its number, likewise.
    pub clones: BTreeMap<i64, Vec<i64>>,
    /// The volumes that a guest's snapshots are of, by its number, likewise.
    pub snapshotted: BTreeMap<i64, BTreeSet<String>>,
    /// What Proxmox VE says of migrations, by number, likewise.
    pub migrations: BTreeMap<i64, Migration>,
    /// How tags are spelled.
    pub style: TagStyle,
}

/// What Proxmox VE says of a guest's migration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migration {
    /// The nodes that it may go to; nothing where it does not say.
    pub allowed: Option<BTreeSet<String>>,
    /// It has volumes that only its node has.
    pub local_disks: bool,
    /// What ties it to its node: devices, media.
    pub ties: Vec<String>,
    /// Other guests that high availability would move with it.
    pub carries: Vec<String>,
}

impl Around {
    /// What the cluster's listing says.
    pub fn of(live: &Live) -> Self {
        Self {
            listed: live.listed.clone(),
            nodes: live.nodes.iter().map(|(name, node)| (name.clone(), node.online)).collect(),
            storages: live.storages.clone(),
            shared: Some(live.shared.clone()),
            storage_types: live.storage_types.clone(),
            style: live.style,
            ..Self::default()
        }
    }
}

/// What whoever plans agrees to for this plan.
#[derive(Debug, Clone, Default)]
pub struct Consent {
    /// Guests that may be deleted.
    pub delete: BTreeSet<String>,
    /// Guests that may get the marker.
    pub mark: BTreeSet<String>,
    /// Guests whose secrets are sent anew: PVE never tells them, so that no difference is seen.
    pub resend: BTreeSet<String>,
    /// A snapshot is taken before what restarts a guest or has no way back.
    pub snapshot: bool,
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
    /// Where guests may be touched.
    pub scopes: &'a [Scope],
    /// The live guests by number.
    pub live: &'a BTreeMap<i64, LiveGuest>,
    /// What differs, for each desired guest that could be compared.
    pub diffs: &'a [GuestDiff],
    /// Guests that could not be compared, and why.
    pub unread: &'a BTreeMap<String, String>,
    /// What else is known of the cluster.
    pub around: &'a Around,
    /// What is agreed to.
    pub consent: &'a Consent,
    /// Now, in epoch seconds.
    pub now: i64,
    /// What this plan alone has; see [`Plan::nonce`].
    pub nonce: &'a str,
}

/// Are this guest's secrets sent anew? One that is not there gets them when it is made.
fn resends(input: &Input<'_>, guest: &Guest) -> bool {
    let there = guest.vmid.is_some_and(|vmid| input.live.contains_key(&vmid));
    there && guest.cipassword.is_some() && !guest.tombstone && input.consent.resend.contains(&guest.uid)
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty(input);
    if input.desired.guests.is_empty() {
        let text = "nothing is desired: an empty estate is never applied; import a document or adopt guests";
        plan.blocked.push(Problem::new("the estate", "guests", text).into());
    }
    for (guest, reason) in input.unread {
        let text = format!("it could not be read, so that nothing is known of it: {reason}");
        plan.blocked.push(Problem::new(guest, "guest", text).into());
    }
    let mut taken: BTreeSet<i64> = input.around.listed.keys().copied().collect();
    taken.extend(input.desired.guests.values().filter_map(|guest| guest.vmid));
    let mut places = Places::of(input);
    for diff in input.diffs {
        let Some(guest) = input.desired.guests.get(&diff.uid) else { continue };
        let resent;
        let diff = if resends(input, guest) {
            resent = diff.with_secrets_anew();
            &resent
        } else {
            diff
        };
        let marks = input.consent.mark.contains(&guest.uid);
        // What a run has made and not finished is bound for good by its next plan.
        let reserved = guard::reserved(bound_to(input.bindings, &guest.uid)).is_some();
        if stored::is_done(input.bindings, guest) || diff.noop() && !marks && !reserved {
            continue;
        }
        if guest.policy == Policy::Observe {
            plan.observed.push(guest.uid.clone());
            continue;
        }
        match places.found(input, guest, diff, &mut taken) {
            Ok(found) => {
                plan.operations.extend(found.operations);
                plan.postponed.extend(found.postponed);
                plan.warnings.extend(found.warnings);
            }
            Err((field, text)) => plan.blocked.push(Problem::new(guest.label(), field, text).into()),
        }
    }
    let dependents = Dependents::of(input.desired);
    let mut felt: BTreeSet<String> = BTreeSet::new();
    for operation in &mut plan.operations {
        operation.affects.insert(operation.uid.clone());
        if operation.effect.interrupts() {
            operation.affects.extend(dependents.all(&operation.uid));
        }
        operation.blast = operation.affects.len();
        felt.extend(operation.affects.iter().cloned());
    }
    let uids = |effects: &[Effect]| -> BTreeSet<&str> {
        let of = plan.operations.iter().filter(|operation| effects.contains(&operation.effect));
        of.map(|operation| operation.uid.as_str()).collect()
    };
    (plan.restarts, plan.deletes) =
        (uids(&[Effect::Restart, Effect::Stop]).len(), uids(&[Effect::Delete]).len());
    plan.blast = felt.len();
    plan.blocked.extend(guard::limits(input, &plan).into_iter().map(Remark::from));
    plan.blocked.extend(guard::copied_from(input, &plan).into_iter().map(Remark::from));
    plan.blocked.extend(guard::unknown_consent(input).into_iter().map(Remark::from));
    order::order(input.desired, &dependents, &mut plan.operations);
    plan.blocked.sort_by(|a, b| (&a.subject, &a.field).cmp(&(&b.subject, &b.field)));
    plan
}
