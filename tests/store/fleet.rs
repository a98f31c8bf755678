//! Hosts: what they claim by their labels, and what they are told.

use super::*;
use innkeeper_domain::host::HostStatus;

fn labels(text: &str) -> Labels {
    text.parse().expect("good labels")
}

/// A task of this name whose runs require these labels, and a run of it.
async fn start_requiring(f: &Fixture, task: &str, requires: &str) -> RunId {
    let spec = TaskSpec { requires: labels(requires), ..TaskSpec::new(digest()) };
    let new = NewTask { id: TaskId::new(at(2)), name: name(task), spec };
    f.store.task_create(f.tenant.id, new, at(2).into()).await.unwrap();
    start_of(f, task).await
}

async fn start_of(f: &Fixture, task: &str) -> RunId {
    let new = NewRun { task: name(task), ..f.new_run("1", None) };
    f.store.runs_start(f.tenant.id, vec![new], at(2).into()).await.unwrap().remove(0).unwrap().id
}

async fn claim_as(f: &Fixture, offered: &str, limit: usize) -> Vec<RunId> {
    let claimed = f.store.runs_claim(f.host, &labels(offered), limit, at(500)).await.unwrap();
    claimed.iter().map(|run| run.lease.run).collect()
}

pub async fn runs_go_to_hosts_that_have_what_they_require(f: Fixture) {
    let both = start_requiring(&f, "both", "gpu=a100,zone=eu").await;
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(0)).await, Ok(None));
    assert_eq!(f.store.runs_next_ready(&labels("gpu=a100"), at(0)).await, Ok(None));
    assert_eq!(f.store.runs_next_ready(&labels("disk=ssd,gpu=a100,zone=eu"), at(0)).await, Ok(Some(at(2))));
    let (any, gpu) = (f.start("1").await, start_requiring(&f, "gpu", "gpu=a100").await);
    assert_eq!(claim_as(&f, "gpu=h100,zone=eu", 1).await, [any]);
    assert_eq!(claim_as(&f, "", 9).await, []);
    let any = f.start("2").await;
    // Those that few hosts can execute first.
    assert_eq!(claim_as(&f, "gpu=a100", 1).await, [gpu]);
    assert_eq!(claim_as(&f, "gpu=a100", 9).await, [any]);
    assert_eq!(claim_as(&f, "disk=ssd,gpu=a100,zone=eu", 9).await, [both]);
}

pub async fn a_run_keeps_what_its_revision_requires(f: Fixture) {
    let old = start_requiring(&f, "moves", "zone=eu").await;
    let spec = TaskSpec { requires: labels("zone=us"), ..TaskSpec::new(digest()) };
    f.store
        .task_update(f.tenant.id, &name("moves"), spec, None, OnGrowth::Accept, at(3).into())
        .await
        .unwrap();
    let new = start_of(&f, "moves").await;
    assert_eq!(claim_as(&f, "zone=us", 9).await, [new]);
    let claimed = f.store.runs_claim(f.host, &labels("zone=eu"), 9, at(500)).await.unwrap();
    assert_eq!(claimed[0].lease.run, old);
    // Also when it is tried again.
    f.finish(&claimed[0], failed(FailureKind::Trap), Some(at(50))).await.unwrap();
    assert_eq!(f.store.runs_next_ready(&labels("zone=us"), at(0)).await, Ok(None));
    assert_eq!(f.store.runs_next_ready(&labels("zone=eu"), at(0)).await, Ok(Some(at(50))));
    assert_eq!(claim_as(&f, "zone=us", 9).await, []);
    assert_eq!(claim_as(&f, "zone=eu", 9).await, [old]);
}

pub async fn a_host_that_is_not_active_claims_nothing(f: Fixture) {
    f.start("1").await;
    let running = f.claim(1).await.remove(0);
    f.start("2").await;
    for state in [HostState::Cordoned, HostState::Draining] {
        let told = f.store.host_set_state(&name("one"), state, at(1).into()).await.unwrap();
        assert_eq!(told.iter().map(|host| (host.host.id, host.state)).collect::<Vec<_>>(), [(f.host, state)]);
        assert_eq!(f.claim(9).await, []);
        assert_eq!(f.store.host_orders(f.host).await, Ok(Orders { state, cancelled: vec![] }));
        f.store.host_renew(f.host, at(2_000)).await.unwrap();
    }
    let hosts = f.store.host_list().await.unwrap();
    let expected = HostStatus {
        host: a_host(f.host),
        state: HostState::Draining,
        started_at: at(1),
        lease_until: at(2_000),
        running: 1,
    };
    assert_eq!(hosts, [expected]);
    // What it has it may end.
    assert_eq!(f.finish(&running, output("1"), None).await, Ok(RunState::Succeeded));
    assert_eq!(f.store.host_list().await.unwrap()[0].running, 0);
    f.store.host_set_state(&name("one"), HostState::Active, at(1).into()).await.unwrap();
    assert_eq!(f.claim(9).await.len(), 1);
    let nobody = f.store.host_set_state(&name("nobody"), HostState::Cordoned, at(1).into()).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))), "{nobody:?}");
}

pub async fn a_lost_host_that_was_cordoned_is_so_when_it_comes_again(f: Fixture) {
    f.start("1").await;
    f.store.host_set_state(&name("one"), HostState::Cordoned, at(1).into()).await.unwrap();
    // Its lease ended at 1,000.
    let again = HostId::new(at(2_000));
    f.store.host_start(a_host(again), at(9_000), at(2_000)).await.unwrap();
    let orders = f.store.host_orders(again).await.unwrap();
    assert_eq!(orders.state, HostState::Cordoned);
    assert_eq!(f.store.runs_claim(again, &Labels::default(), 9, at(2_000)).await, Ok(vec![]));
    // Whether or not the loss was noticed in between.
    f.store.hosts_reap(another_host(), at(9_001)).await.unwrap();
    let again = HostId::new(at(9_002));
    f.store.host_start(a_host(again), at(20_000), at(9_002)).await.unwrap();
    assert_eq!(f.store.host_orders(again).await.unwrap().state, HostState::Cordoned);
    // One that has stopped in order is new when it comes again.
    f.store.host_stop(again, at(9_003)).await.unwrap();
    f.store.hosts_reap(another_host(), at(9_003)).await.unwrap();
    let new = HostId::new(at(9_004));
    f.store.host_start(a_host(new), at(20_000), at(9_004)).await.unwrap();
    assert_eq!(f.store.host_orders(new).await.unwrap().state, HostState::Active);
}

pub async fn a_host_hands_back_what_it_does_not_know(f: Fixture) {
    let (one, two) = (f.start("1").await, f.start("2").await);
    let claimed = f.claim(9).await;
    let lease = |run| claimed.iter().find(|claimed| claimed.lease.run == run).unwrap();
    let (kept, lost) = (lease(one), lease(two));
    assert_eq!(f.store.host_release(f.host, vec![kept.lease], at(5)).await, Ok(1));
    assert_eq!(f.store.host_release(f.host, vec![kept.lease], at(5)).await, Ok(0));
    assert_eq!(f.run(two).await.state, RunState::Queued);
    assert_eq!(f.finish(lost, output("late"), None).await, Err(StoreError::LeaseLost));
    assert_eq!(f.finish(kept, output("1"), None).await, Ok(RunState::Succeeded));
    let again = f.claim(9).await.remove(0);
    assert_eq!((again.lease.run, again.lease.attempt, again.try_number), (two, 2, 1));
}

pub async fn a_host_that_is_gone_has_no_orders(f: Fixture) {
    assert_eq!(f.store.host_orders(HostId::new(at(1))).await, Err(StoreError::LeaseLost));
    f.store.host_stop(f.host, at(5)).await.unwrap();
    assert_eq!(f.store.host_orders(f.host).await, Err(StoreError::LeaseLost));
    assert_eq!(f.store.host_list().await, Ok(vec![]));
    let unknown = f.store.host_set_state(&name("one"), HostState::Active, at(1).into()).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))), "{unknown:?}");
}
