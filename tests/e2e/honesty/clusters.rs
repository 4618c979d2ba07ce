//! 1: a second cluster's run leaves the first one's data alone, in one process and in two.
//!
//! Seen failing with: the `cluster_id` left out of the statement that finds untouched guests.

use pve_sim::{Fault, FaultRule, ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_testkit::emptied;

use super::estate::{Whole, flat};
use crate::support::{Graph, Rig};

const SEED: u64 = 20_261_131;

async fn serve(name: &str) -> SimServer {
    println!("seed {SEED}");
    // The same seed: the same node names, storage names and vmids.
    let world = World::generate(&WorldSpec::new(name, 3, 24, SEED));
    SimServer::start(world, SimOptions::default()).await.unwrap()
}

fn of_first(mut whole: Whole) -> Whole {
    whole.values_mut().for_each(|rows| rows.retain(|row| row["cluster_id"] == "one"));
    whole
}

fn remove_two(server: &SimServer) {
    let world = server.world().unwrap();
    let vmids = world.read(|state| state.guests.keys().copied().take(2).collect::<Vec<_>>());
    vmids.iter().for_each(|vmid| world.remove_guest(*vmid).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn item_1_a_second_cluster_leaves_the_first_alone() {
    let db = emptied().await;
    let (one, two) = (serve("one").await, serve("two").await);
    let credential = |server: &SimServer| server.world().unwrap().credential(ROOT_TOKEN);
    let rig = Rig::new(&Graph::Neo4j((*db).clone()))
        .cluster(Some("one"), &one, credential(&one).as_ref())
        .cluster(Some("two"), &two, credential(&two).as_ref());
    rig.sync(0).await;
    let before = of_first(rig.stable(&[]).await);
    assert_eq!(before["ProxmoxVM"].len(), 24);

    // One process that asks both: the first keeps its values.
    remove_two(&two);
    assert_eq!(rig.sync(0).await.counts("ProxmoxVM"), [0, 0, 46, 2, 0]);
    let then = of_first(rig.stable(&[]).await);
    assert_eq!(flat(&then), flat(&before));

    // One process, and the first does not answer: nothing of it is touched, its stamps included.
    one.faults().add(FaultRule::below("/", Fault::Status { status: 500, reason: "no".into() }));
    remove_two(&two);
    assert_eq!(rig.sync(3).await.counts("ProxmoxVM"), [0, 0, 20, 2, 0]);
    assert_eq!(of_first(rig.stable(&[]).await), then);
    one.faults().clear();

    // Two processes: that of the second does not know the first.
    let rig = rig.without_clusters().cluster(Some("two"), &two, credential(&two).as_ref());
    remove_two(&two);
    assert_eq!(rig.sync(0).await.counts("ProxmoxVM"), [0, 0, 18, 2, 0]);
    assert_eq!(of_first(rig.stable(&[]).await), then);
    one.shutdown().await;
    two.shutdown().await;
}
