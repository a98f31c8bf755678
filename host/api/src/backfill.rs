//! Backfills.

use crate::caller::Caller;
use crate::convert::{from_instant, instant, name, optional_name, page};
use crate::proto::backfill::State;
use crate::proto::backfill_plan::Ran;
use crate::proto::backfill_service_server::BackfillService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::Timestamp;
use innkeeper_domain::backfill::{Again, Backfill, BackfillPlan, BackfillSpec, BackfillState};
use innkeeper_domain::calendar::BundledZones;
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::ids::BackfillId;
use innkeeper_store::NewBackfill;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl BackfillService for Api {
    async fn plan_backfill(
        &self,
        request: Request<proto::PlanBackfillRequest>,
    ) -> Result<Response<proto::BackfillPlan>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner().backfill.ok_or_else(|| invalid("the backfill is missing"))?;
        let _slot = self.forecasts.take(caller.tenant)?;
        let new = self.new_backfill(&caller, &asked, (self.now)()).await?;
        let plan = self.store.backfill_plan(caller.tenant, new).await.map_err(of_store)?;
        Ok(Response::new(from_plan(plan)))
    }

    async fn create_backfill(
        &self,
        request: Request<proto::CreateBackfillRequest>,
    ) -> Result<Response<proto::Backfill>, Status> {
        let caller = Caller::of(&request)?;
        let now = (self.now)();
        let _slot = self.forecasts.take(caller.tenant)?;
        let new = self.new_backfill(&caller, request.get_ref(), now).await?;
        let tenant = caller.tenant;
        let backfill = self.store.backfill_create(tenant, new, caller.change(now)).await.map_err(of_store)?;
        Ok(Response::new(from_backfill(backfill)))
    }

    async fn get_backfill(
        &self,
        request: Request<proto::GetBackfillRequest>,
    ) -> Result<Response<proto::Backfill>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().id.parse().map_err(invalid)?;
        let backfill = self.store.backfill_get(caller.tenant, id).await.map_err(of_store)?;
        caller.backfill(&backfill.task, id)?;
        Ok(Response::new(from_backfill(backfill)))
    }

    async fn list_backfills(
        &self,
        request: Request<proto::ListBackfillsRequest>,
    ) -> Result<Response<proto::ListBackfillsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let trigger = optional_name(&request.trigger, "the trigger")?;
        let page = page(request.page_size, request.page_token)?;
        if let Some(trigger) = &trigger {
            self.may_see_trigger(&caller, trigger).await?;
        }
        let found = self.store.backfill_list(caller.tenant, trigger.as_ref(), caller.only(), page).await;
        let found = found.map_err(of_store)?;
        Ok(Response::new(proto::ListBackfillsResponse {
            backfills: found.items.into_iter().map(from_backfill).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn cancel_backfill(
        &self,
        request: Request<proto::CancelBackfillRequest>,
    ) -> Result<Response<proto::Backfill>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let id = request.into_inner().id.parse().map_err(invalid)?;
        self.may_see_backfill(&caller, id).await?;
        let backfill = self.store.backfill_cancel(tenant, id, caller.change((self.now)())).await;
        Ok(Response::new(from_backfill(backfill.map_err(of_store)?)))
    }
}

impl Api {
    /// What is asked for, with the times that it is about.
    async fn new_backfill(
        &self,
        caller: &Caller,
        asked: &proto::CreateBackfillRequest,
        now: Timestamp,
    ) -> Result<NewBackfill, Status> {
        let name = name(&asked.trigger, "the trigger")?;
        let from = asked.from.as_ref().ok_or_else(|| invalid("the beginning of the range is missing"))?;
        let spec = BackfillSpec {
            from: instant(from, "the beginning of the range")?,
            to: asked.to.as_ref().map_or(Ok(now), |at| instant(at, "the end of the range"))?,
            concurrency: if asked.concurrency == 0 { 1 } else { asked.concurrency },
            again: if asked.again.is_empty() { Again::None } else { asked.again.parse().map_err(invalid)? },
        };
        let trigger = self.store.trigger_get(caller.tenant, &name).await.map_err(of_store)?;
        caller.trigger(&trigger.task, &name)?;
        let holidays = self.holidays(caller.tenant, trigger.spec.exclude.clone()).await?;
        let holidays = Holidays::of(holidays.into_values());
        // A long range has many times.
        let times = tokio::task::spawn_blocking(move || {
            spec.times(trigger.id, &trigger.spec, &holidays, &BundledZones, now)
        });
        let times = times.await.map_err(|error| Status::internal(error.to_string()))?.map_err(invalid)?;
        Ok(NewBackfill { id: BackfillId::new(now), trigger: name, trigger_id: trigger.id, spec, times })
    }
}

fn from_plan(plan: BackfillPlan) -> proto::BackfillPlan {
    let instants = |times: Vec<Timestamp>| times.into_iter().map(from_instant).collect();
    proto::BackfillPlan {
        times: plan.times,
        left_to_trigger: plan.left_to_trigger,
        ran: plan.ran.into_iter().map(|(state, count)| Ran { state: state.into(), count }).collect(),
        runs: plan.runs,
        first: instants(plan.first),
        last: instants(plan.last),
    }
}

fn from_backfill(backfill: Backfill) -> proto::Backfill {
    let state = match backfill.state {
        BackfillState::Active => State::Active,
        BackfillState::Finished => State::Finished,
        BackfillState::Cancelled => State::Cancelled,
    };
    let remaining = backfill.remaining();
    let (spec, counts) = (backfill.spec, backfill.counts);
    proto::Backfill {
        id: backfill.id.to_string(),
        trigger: backfill.trigger.to_string(),
        task: backfill.task.to_string(),
        from: Some(from_instant(spec.from)),
        to: Some(from_instant(spec.to)),
        concurrency: spec.concurrency,
        again: spec.again.to_string(),
        state: state.into(),
        waits_for: backfill.waits_for.map(|reason| reason.to_string()).unwrap_or_default(),
        times: backfill.times,
        left_to_trigger: backfill.left_to_trigger,
        created: counts.created,
        left_out: counts.left_out,
        remaining,
        unfinished: counts.unfinished,
        succeeded: counts.succeeded,
        failed: counts.failed,
        cancelled: counts.cancelled,
        created_at: Some(from_instant(backfill.created_at)),
        finished_at: backfill.finished_at.map(from_instant),
    }
}
