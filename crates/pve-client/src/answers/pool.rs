//! Pools.

use super::Resource;
use crate::wire::answer;

answer! {
    /// A row of `/pools`.
    pub struct PoolRow {
        required {
            /// The pool's name; a pool in a pool has both names, with `/`.
            poolid: String = "poolid",
        }
        optional {
            /// A comment.
            comment: String = "comment",
            /// The members, where the request named one pool.
            members: Vec<PoolMember> = "members",
        }
    }
}

answer! {
    /// `/pools/{poolid}`.
    pub struct PoolDetail {
        optional {
            /// The pool's name; PVE may leave it out here.
            poolid: String = "poolid",
            /// A comment.
            comment: String = "comment",
            /// The guests and storages in it that the user may see.
            members: Vec<PoolMember> = "members",
        }
    }
}

/// A guest or a storage in a pool, in the form of `/cluster/resources`.
pub type PoolMember = Resource;
