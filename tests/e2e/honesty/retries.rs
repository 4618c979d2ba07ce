//! 6: 503s and dropped connections are repeated; a 401 in mid-run renews the ticket once; a 403 is not repeated.
//!
//! The delays between repeats are the client's, and tested there (`crates/pve-client`).
//! Seen failing with: no repeats (`RetryPolicy::default` with `max_retries: 0`).

use pve_client::{Auth, ClientConfig, PveClient, Trust};
use pve_sim::{Fault, FaultRule};
use pvegraph_graph::lease::Holder;
use pvegraph_inventory::Completeness;
use pvegraph_sync::history::Retention;
use pvegraph_sync::run::{Options, Silent, Target, run};
use pvegraph_sync::sweep::Guard;

use super::estate::{Estate, differences, flat};

const LISTING: &str = "/nodes/pve2/lxc";

#[tokio::test(flavor = "multi_thread")]
async fn item_6_what_passes_is_repeated_and_a_refusal_is_not() {
    let it = Estate::new().await;
    let before = flat(&it.whole().await);
    let places = ["/cluster/resources", LISTING, "/nodes/pve2/qemu/202/config"];
    let asked = || places.map(|path| it.server.counters().of(path));
    let busy = Fault::BareStatus { status: 503, reason: "Service Unavailable".to_owned() };
    for fault in [busy, Fault::Drop] {
        for path in places {
            it.server.faults().add(FaultRule::at(path, fault.clone()).times(2));
        }
        let then = asked();
        it.rig.sync(0).await;
        assert_eq!(asked(), then.map(|count| count + 3), "{fault:?}");
        assert_eq!(differences(&before, &flat(&it.whole().await)), [""; 0]);
    }
    let forbidden = Fault::Status { status: 403, reason: "Permission check failed".to_owned() };
    places.iter().skip(1).for_each(|path| {
        it.server.faults().add(FaultRule::at(path, forbidden.clone()));
    });
    let then = asked();
    it.rig.sync(3).await;
    assert_eq!(asked(), then.map(|count| count + 1));
    it.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn item_6_a_401_in_mid_run_renews_the_ticket_once() {
    let it = Estate::new().await;
    let before = flat(&it.whole().await);
    let password = it.world().password("audit@pve").unwrap();
    let tickets = || it.server.counters().of("/access/ticket");
    for (times, completeness) in [(1, Completeness::Complete), (usize::MAX, Completeness::Failed)] {
        let refused = Fault::Status { status: 401, reason: "permission denied - invalid PVE ticket".into() };
        it.server.faults().add(FaultRule::at(LISTING, refused).times(times));
        let auth = Auth::Password { user: "audit@pve".to_owned(), password: password.clone().into() };
        let trust = Trust::Fingerprint(vec![it.server.fingerprint().parse().unwrap()]);
        let config = ClientConfig::new(vec![it.server.url().parse().unwrap()], auth, trust);
        let client = PveClient::new(config).unwrap();
        let options = Options {
            dry_run: false,
            guard: Guard::default(),
            offline_is_partial: true,
            accept_new_authority: Vec::new(),
            holder: Holder { name: "honesty".to_owned(), lock: None },
            history: Retention::default(),
        };
        let then = tickets();
        let targets = [Target { name: Some("rig".parse().unwrap()), client }];
        let ran = run(&it.store, &targets, &options, &Silent).await.unwrap().remove(0).unwrap();
        assert_eq!(ran.completeness, completeness, "{:?}", ran.scopes);
        assert_eq!(tickets(), then + 2, "logged in, and renewed once");
        assert_eq!(differences(&before, &flat(&it.whole().await)), [""; 0]);
        it.server.faults().clear();
    }
    it.server.shutdown().await;
}
