//! 4: a token that sees half of the estate, after one that saw all.
//!
//! Seen failing with: the question for the right left out of the evidence for a guest (`Evidence::guest`).

use super::estate::{Estate, GONE, differences, flat};

const SEEN: [u32; 6] = [101, 103, 201, 203, 301, 303];
const UNSEEN: u32 = 302;

#[tokio::test(flavor = "multi_thread")]
async fn item_4_a_token_that_sees_half_deletes_only_what_it_would_see() {
    let mut it = Estate::new().await;
    let before = flat(&it.whole().await);
    let token = {
        let world = it.world();
        let token = world.add_token("half@pve", "half", "PVEAuditor", &format!("/vms/{GONE}")).unwrap();
        for vmid in SEEN {
            for who in ["half@pve", &token.id] {
                world.grant(who, "PVEAuditor", &format!("/vms/{vmid}"), true).unwrap();
            }
        }
        token
    };
    it.rig = it.rig.without_clusters().cluster(Some("rig"), &it.server, Some(&token));
    assert_eq!(it.rig.sync(0).await.counts("ProxmoxVM"), [0, 0, 7, 0, 6]);
    assert_eq!(differences(&before, &flat(&it.whole().await)), [""; 0]);
    let filtered = it.recorded().await.incomplete();
    assert!(filtered.iter().all(|(_, _, status)| status == "filtered"), "{filtered:?}");
    assert!(filtered.iter().any(|(collector, ..)| collector == "guests"), "{filtered:?}");

    // Both are gone; the token would have seen one of them.
    it.world().remove_guest(GONE).unwrap();
    it.world().remove_guest(UNSEEN).unwrap();
    let ran = it.rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxVM"), [0, 0, 6, 1, 6]);
    let changed = differences(&before, &flat(&it.whole().await));
    assert!(!changed.is_empty());
    let of_gone = |line: &String| line.contains("pve2:290") || line.contains(" 290:");
    assert_eq!(changed.iter().filter(|line| !of_gone(line)).collect::<Vec<_>>(), [""; 0]);
    it.server.shutdown().await;
}
