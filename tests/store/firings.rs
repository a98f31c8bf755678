//! Runs of triggers that something other than the clock starts.

use super::*;
use innkeeper_domain::rule::{WEBHOOK_TOLERANCE, WebhookRule};
use innkeeper_domain::secret::SealedSecret;
use innkeeper_domain::webhook::Scheme;

/// What a webhook's trigger says.
fn hook() -> TriggerSpec {
    let (scheme, secret) = (Scheme::Github, name("signing"));
    TriggerSpec::new(WebhookRule { scheme, secret, tolerance: WEBHOOK_TOLERANCE })
}

impl Fixture {
    /// A trigger, and the secret that it names.
    async fn create_hook(&self, spec: TriggerSpec) -> TriggerId {
        let secret = SealedSecret {
            tenant: self.tenant.id,
            name: name("signing"),
            key_id: "k".into(),
            sealed: b"sealed".into(),
            created_at: at(1),
            updated_at: at(1),
        };
        self.store.secret_put(secret, at(1).into()).await.unwrap();
        self.create(spec, None).await
    }

    async fn fire(&self, trigger: TriggerId, occurrence: &str, second: i64) -> Result<Fired, StoreError> {
        let run_id = RunId::new(at(second));
        let input = Payload::json(format!("[{second}]"));
        let firing = NewFiring { run_id, occurrence: occurrence.into(), nominal_at: at(second), input };
        self.store.trigger_fire(self.tenant.id, trigger, firing, at(second)).await
    }
}

pub async fn a_webhook_starts_one_run_of_a_delivery(f: Fixture) {
    let id = f.create_hook(hook()).await;
    let Ok(Fired::Run(run)) = f.fire(id, "delivery 1", 10).await else { panic!("it is admitted") };
    assert_eq!(f.fire(id, "delivery 1", 11).await, Ok(Fired::Existing(run)));
    let found = f.run(run).await;
    assert_eq!(
        (found.input, found.nominal_at, found.state),
        (Payload::json("[10]"), at(10), RunState::Queued)
    );
    assert_eq!(found.trigger, Some(name("work-1")));
    assert!(matches!(f.fire(id, "delivery 2", 12).await, Ok(Fired::Run(_))), "both may run");
    let (owner, trigger) = f.store.trigger_by_id(id).await.unwrap();
    assert_eq!((owner, &trigger.spec, trigger.started), (f.tenant.id, &hook(), 2));
    assert_eq!((trigger.state, trigger.next_at), (TriggerState::Active, None));
    assert_eq!((f.due(10_000).await, f.store.triggers_next().await), (vec![], Ok(None)));
    assert_eq!(f.claim(9).await.len(), 2);
    let stranger = f.store.tenant_ensure(&name("stranger"), at(1)).await.unwrap();
    let firing = NewFiring {
        run_id: RunId::new(at(13)),
        occurrence: "3".into(),
        nominal_at: at(13),
        input: Payload::default(),
    };
    let theirs = f.store.trigger_fire(stranger.id, id, firing, at(13)).await;
    assert!(matches!(theirs, Err(StoreError::NotFound(_))), "{theirs:?}");
}

pub async fn a_webhook_starts_no_run_that_it_may_not(f: Fixture) {
    let (overlap, max_runs) = (OverlapPolicy::Skip, Some(2));
    let window = (Some(at(10)), Some(at(90)));
    let spec = TriggerSpec { overlap, max_runs, not_before: window.0, not_after: window.1, ..hook() };
    let id = f.create_hook(spec).await;
    let hook = name("work-1");
    assert_eq!(f.fire(id, "early", 9).await, Ok(Fired::Skipped(SkipReason::OutsideWindow)));
    assert!(matches!(f.fire(id, "1", 10).await, Ok(Fired::Run(_))));
    assert_eq!(f.fire(id, "2", 11).await, Ok(Fired::Skipped(SkipReason::Overlap)));
    f.store.trigger_pause(f.tenant.id, &hook, String::new(), QueuedRuns::Keep, at(12).into()).await.unwrap();
    assert_eq!(f.fire(id, "3", 13).await, Ok(Fired::Skipped(SkipReason::Paused)));
    assert_eq!(f.fire(id, "4", 14).await, Ok(Fired::Skipped(SkipReason::Paused)));
    f.store.trigger_resume(f.tenant.id, &hook, at(15).into()).await.unwrap();
    let expected = [
        skip(13, 14, 2, SkipReason::Paused),
        skip(11, 11, 1, SkipReason::Overlap),
        skip(9, 9, 1, SkipReason::OutsideWindow),
    ];
    assert_eq!(f.skips().await, expected);
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, output("1"), None).await.unwrap();
    // What was skipped can be delivered again.
    assert!(matches!(f.fire(id, "2", 16).await, Ok(Fired::Run(_))));
    let trigger = f.store.trigger_get(f.tenant.id, &hook).await.unwrap();
    assert_eq!((trigger.state, trigger.started, trigger.skipped), (TriggerState::Finished, 2, 4));
    let over = f.fire(id, "5", 17).await;
    assert!(matches!(&over, Err(StoreError::Conflict(_))), "{over:?}");
    for (occurrence, trigger) in [("", id), ("x", f.trigger(OverlapPolicy::Skip).await)] {
        let invalid = f.fire(trigger, occurrence, 18).await;
        assert!(matches!(&invalid, Err(StoreError::Invalid(_))), "{invalid:?}");
    }
    f.store.trigger_delete(f.tenant.id, &hook, at(19).into()).await.unwrap();
    assert!(matches!(f.fire(id, "6", 20).await, Err(StoreError::NotFound(_))));
}

pub async fn a_secret_is_kept_while_a_trigger_verifies_with_it(f: Fixture) {
    f.create_hook(hook()).await;
    let (secret, trigger) = (name("signing"), name("work-1"));
    let used = f.store.secret_delete(f.tenant.id, &secret, at(5).into()).await.unwrap_err();
    assert!(matches!(&used, StoreError::Conflict(words) if words.contains("`work-1`")), "{used}");
    f.store.trigger_delete(f.tenant.id, &trigger, at(6).into()).await.unwrap();
    f.store.secret_delete(f.tenant.id, &secret, at(7).into()).await.unwrap();
    let (id, input) = (TriggerId::new(at(8)), Payload::default());
    let new = NewTrigger { id, task: name("work"), name: None, spec: hook(), input, first: None };
    let missing = f.store.trigger_create(f.tenant.id, new, at(8).into()).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))), "{missing:?}");
}
