//! Which node a guest comes to where it may be on several. Pure: the same input gives the same node, and the plan says why.
//!
//! Nodes without a guest that it must not share one with come first, then those that are preferred, then those with the fewest guests, then
//! by name; the first on which it can be is taken. That node stands in the plan: whoever applies it chooses nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::guard::Forbidden;
use super::operations::{self, Found};
use super::{Action, Input, Operation};
use crate::desired::{Desired, Guest};
use crate::diff::{Class, GuestDiff};
use crate::document::Policy;

/// The nodes on which a new guest may be made; none where nothing names one. `source`: the node of what it is copied from; `known`: the nodes
/// of the cluster.
pub fn places<'a>(
    desired: &'a Desired,
    guest: &'a Guest,
    source: Option<&'a str>,
    known: impl IntoIterator<Item = &'a String>,
) -> BTreeSet<&'a str> {
    if !guest.nodes.is_empty() {
        return guest.nodes.iter().map(String::as_str).collect();
    }
    let mut all: BTreeSet<&str> = guest.prefer.iter().map(String::as_str).collect();
    match guest.node.as_deref().or(source).or(desired.node.as_deref()) {
        Some(usual) => drop(all.insert(usual)),
        None if !all.is_empty() => all.extend(known.into_iter().map(String::as_str)),
        None => {}
    }
    all
}

/// Where guests are, or will be by what was planned so far.
pub(super) struct Places<'a> {
    /// Nodes by `uid`.
    on: BTreeMap<String, String>,
    /// How many guests a node has; templates are none.
    guests: BTreeMap<String, i64>,
    /// The guests that must not be on one node, both ways.
    apart: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Places<'a> {
    pub(super) fn of(input: &Input<'a>) -> Self {
        let mut places = Self { on: BTreeMap::new(), guests: BTreeMap::new(), apart: BTreeMap::new() };
        for listed in input.around.listed.values().filter(|listed| !listed.template) {
            *places.guests.entry(listed.node.clone()).or_default() += 1;
        }
        for guest in input.desired.guests.values().filter(|guest| !guest.tombstone) {
            for other in &guest.anti_affinity {
                places.apart.entry(&guest.uid).or_default().insert(other);
                places.apart.entry(other).or_default().insert(&guest.uid);
            }
            let stays = |node: &&String| guest.policy == Policy::Observe || guest.may_be_on(node);
            let is = guest.vmid.and_then(|vmid| Some(&input.live.get(&vmid)?.node));
            // Of one that has to leave and may go to several nothing is known before it is its turn.
            if let Some(node) = is.filter(stays).or(guest.node.as_ref()) {
                places.on.insert(guest.uid.clone(), node.clone());
            }
        }
        places
    }

    /// The operations of a guest, on the first node on which they can be done.
    pub(super) fn found(
        &mut self,
        input: &Input<'_>,
        guest: &Guest,
        diff: &GuestDiff,
        taken: &mut BTreeSet<i64>,
    ) -> Result<Found, Forbidden> {
        let nodes = self.ranked(guest, choice(input, guest, diff));
        let found = match nodes.as_slice() {
            [] => operations::of(input, guest, diff, taken)?,
            nodes => self.first(input, guest, diff, taken, nodes)?,
        };
        found.operations.iter().for_each(|operation| self.note(operation));
        Ok(found)
    }

    fn first(
        &self,
        input: &Input<'_>,
        guest: &Guest,
        diff: &GuestDiff,
        taken: &mut BTreeSet<i64>,
        nodes: &[String],
    ) -> Result<Found, Forbidden> {
        let mut refused: Vec<(&str, Forbidden)> = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let placed = Guest { node: Some(node.clone()), ..guest.clone() };
            match operations::of(input, &placed, &diff.placed(node), taken) {
                Ok(mut found) => {
                    let goes = |one: &&mut Operation| matches!(one.action, Action::Create | Action::Migrate);
                    if let Some(operation) = found.operations.iter_mut().find(goes)
                        && nodes.len() > 1
                    {
                        operation.reasons.push(self.why(guest, node, nodes.get(at + 1), &refused));
                    }
                    return Ok(found);
                }
                Err(forbidden) => refused.push((node, forbidden)),
            }
        }
        Err(none(guest, refused))
    }

    /// What decides between nodes: the least comes first.
    fn rank(&self, guest: &Guest, node: &str) -> (usize, Reverse<bool>, i64) {
        let apart = self.apart.get(guest.uid.as_str()).into_iter().flatten();
        let there = apart.filter(|other| self.on.get(**other).is_some_and(|on| on == node)).count();
        let guests = self.guests.get(node).copied().unwrap_or_default();
        (there, Reverse(guest.prefer.contains(node)), guests)
    }

    fn ranked(&self, guest: &Guest, mut nodes: Vec<String>) -> Vec<String> {
        nodes.sort_by_cached_key(|node| (self.rank(guest, node), node.clone()));
        nodes
    }

    /// Why this node: as against the `next` one, and those that came before it and can't be.
    fn why(&self, guest: &Guest, node: &str, next: Option<&String>, refused: &[(&str, Forbidden)]) -> String {
        let rank = self.rank(guest, node);
        let (_, _, guests) = rank;
        let why = match next.map(|next| self.rank(guest, next)) {
            None => "no other is possible".to_owned(),
            Some((there, ..)) if there > rank.0 => {
                "no guest that it must not share a node with is there".to_owned()
            }
            Some((_, prefer, _)) if prefer > rank.1 => "it is preferred".to_owned(),
            Some((.., more)) if more > guests => format!("it has the fewest guests ({guests})"),
            Some(_) => format!("it is the first by name of those with as many guests ({guests})"),
        };
        let not: String =
            refused.iter().map(|(node, (field, text))| format!("; not {node}, `{field}`: {text}")).collect();
        format!("place: {node}, as {why}{not}")
    }

    /// What an operation does to who is where.
    fn note(&mut self, operation: &Operation) {
        let to = match operation.action {
            Action::Create => Some(operation.node.as_str()),
            _ => operation.target(),
        };
        if operation.action == Action::Destroy || operation.target().is_some() {
            *self.guests.entry(operation.node.clone()).or_default() -= 1;
        }
        if let Some(node) = to {
            *self.guests.entry(node.to_owned()).or_default() += 1;
            self.on.insert(operation.uid.clone(), node.to_owned());
        }
    }
}

/// The nodes that there are to choose from; none where there is nothing to choose.
fn choice(input: &Input<'_>, guest: &Guest, diff: &GuestDiff) -> Vec<String> {
    let several = guest.node.is_none() && !(guest.nodes.is_empty() && guest.prefer.is_empty());
    let makes = diff.changes.iter().any(|change| change.class == Class::Missing);
    let moves = diff.changes.iter().any(|change| change.field == "node");
    match (several, makes, moves) {
        (true, true, _) => {
            let source = guest.clone_of.as_ref().and_then(|clone| input.desired.source(clone));
            let source = source.and_then(|vmid| input.live.get(&vmid)).map(|source| source.node.as_str());
            let all = places(input.desired, guest, source, input.around.nodes.keys());
            all.into_iter().map(str::to_owned).collect()
        }
        (true, false, true) => guest.nodes.iter().cloned().collect(),
        _ => Vec::new(),
    }
}

/// No node is possible. What forbids it on each of them in the same words is no matter of nodes.
fn none(guest: &Guest, refused: Vec<(&str, Forbidden)>) -> Forbidden {
    let mut all = refused.iter().map(|(_, forbidden)| forbidden);
    if let Some(first) = all.next()
        && all.all(|other| other == first)
    {
        return first.clone();
    }
    let each = refused.iter().map(|(node, (field, text))| format!("{node}, `{field}`: {text}"));
    let field = if guest.nodes.is_empty() { "prefer" } else { "nodes" };
    let text = format!("it can be on none of them: {}", each.collect::<Vec<_>>().join("; "));
    (field.to_owned(), text)
}
