//! Triggers.

use crate::auth::Caller;
use crate::convert::{from_instant, input, name, optional_name, page};
use crate::proto::trigger_service_server::TriggerService;
use crate::status::{invalid, of_store};
use crate::trigger_convert::{from_trigger, spec};
use crate::{Api, proto};
use innkeeper_domain::ids::TriggerId;
use innkeeper_domain::limits::NOTE_CHARS_MAX;
use innkeeper_domain::trigger::SkipRange;
use innkeeper_store::NewTrigger;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl TriggerService for Api {
    async fn create_trigger(
        &self,
        request: Request<proto::CreateTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let mut request = request.into_inner();
        let now = (self.now)();
        let task = name(&request.task, "the task")?;
        let name = optional_name(&request.name, "the trigger")?;
        let input = input(request.input.take())?;
        let spec = spec(&request, now)?;
        let next_at = spec.check(&input, now).map_err(invalid)?;
        let trigger = NewTrigger { id: TriggerId::new(now), task, name, spec, input, next_at };
        let trigger = self.store.trigger_create(tenant, trigger, now).await.map_err(of_store)?;
        Ok(Response::new(from_trigger(trigger)))
    }

    async fn get_trigger(
        &self,
        request: Request<proto::GetTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let name = name(&request.into_inner().name, "the trigger")?;
        Ok(Response::new(from_trigger(self.store.trigger_get(tenant, &name).await.map_err(of_store)?)))
    }

    async fn list_triggers(
        &self,
        request: Request<proto::ListTriggersRequest>,
    ) -> Result<Response<proto::ListTriggersResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let request = request.into_inner();
        let task = optional_name(&request.task, "the task")?;
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.trigger_list(tenant, task.as_ref(), page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListTriggersResponse {
            triggers: found.items.into_iter().map(from_trigger).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn pause_trigger(
        &self,
        request: Request<proto::PauseTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let request = request.into_inner();
        let name = name(&request.name, "the trigger")?;
        if request.note.chars().count() > NOTE_CHARS_MAX {
            return Err(invalid(format!("a note has at most {NOTE_CHARS_MAX} characters")));
        }
        let trigger = self.store.trigger_pause(tenant, &name, request.note, (self.now)()).await;
        Ok(Response::new(from_trigger(trigger.map_err(of_store)?)))
    }

    async fn resume_trigger(
        &self,
        request: Request<proto::ResumeTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let name = name(&request.into_inner().name, "the trigger")?;
        let trigger = self.store.trigger_resume(tenant, &name, (self.now)()).await;
        Ok(Response::new(from_trigger(trigger.map_err(of_store)?)))
    }

    async fn delete_trigger(
        &self,
        request: Request<proto::DeleteTriggerRequest>,
    ) -> Result<Response<proto::DeleteTriggerResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let name = name(&request.into_inner().name, "the trigger")?;
        let cancelled_runs =
            self.store.trigger_delete(tenant, &name, (self.now)()).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteTriggerResponse { cancelled_runs }))
    }

    async fn list_skips(
        &self,
        request: Request<proto::ListSkipsRequest>,
    ) -> Result<Response<proto::ListSkipsResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let request = request.into_inner();
        let name = name(&request.trigger, "the trigger")?;
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.trigger_skips(tenant, &name, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListSkipsResponse {
            skips: found.items.into_iter().map(from_skip).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }
}

fn from_skip(skip: SkipRange) -> proto::Skip {
    proto::Skip {
        from: Some(from_instant(skip.from)),
        to: Some(from_instant(skip.to)),
        count: skip.count,
        reason: skip.reason.to_string(),
    }
}
