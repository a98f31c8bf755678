//! Events.

use crate::caller::Caller;
use crate::convert::{from_instant, from_payload, page};
use crate::proto::event_service_server::EventService;
use crate::proto::publish_events_response::Result as Outcome;
use crate::slots::Slot;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use futures::stream::{BoxStream, StreamExt, unfold};
use innkeeper_domain::event::{Event, TopicPattern, check};
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::{EVENTS_PER_CALL_MAX, EVENTS_PER_DECISION};
use innkeeper_domain::payload::Payload;
use innkeeper_store::NewEvent;
use serde::de::IgnoredAny;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// The longest that a tail doesn't look: wake-ups are hints.
const POLL: Duration = Duration::from_secs(2);

#[tonic::async_trait]
impl EventService for Api {
    async fn publish_events(
        &self,
        request: Request<proto::PublishEventsRequest>,
    ) -> Result<Response<proto::PublishEventsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let events = request.into_inner().events;
        if events.is_empty() || events.len() > EVENTS_PER_CALL_MAX {
            let count = events.len();
            return Err(invalid(format!("{count} events in one call; 1 to {EVENTS_PER_CALL_MAX} are taken")));
        }
        let now = (self.now)();
        let new = events.into_iter().map(|event| {
            // A UUID of this instant, whatever it is the id of.
            let id = if event.id.is_empty() { RunId::new(now).to_string() } else { event.id };
            let proto::Payload { content_type, bytes } = event.data.unwrap_or_default();
            let data = Payload { content_type, bytes };
            let topic = check(&id, &event.topic, &data).map_err(invalid)?;
            is_what_it_says(&data)?;
            Ok(NewEvent { id, topic, data })
        });
        let new: Vec<NewEvent> = new.collect::<Result<_, Status>>()?;
        let ids: Vec<String> = new.iter().map(|event| event.id.clone()).collect();
        let results = self.store.events_publish(caller.tenant, new, caller.change(now)).await;
        let results = ids.into_iter().zip(results.map_err(of_store)?).map(|(id, result)| match result {
            Ok(event) => {
                Outcome { id, sequence: event.sequence, existed: event.existed, error: String::new() }
            }
            Err(error) => Outcome { id, error: error.to_string(), ..Default::default() },
        });
        Ok(Response::new(proto::PublishEventsResponse { results: results.collect() }))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let pattern = pattern(&request.pattern)?;
        let page = page(request.page_size, request.page_token)?;
        let mut after = match &page.after {
            Some(token) => token.parse().map_err(|_| invalid("this is no page token of this list"))?,
            None if request.last > 0 => {
                let head = self.store.events_head(caller.tenant).await.map_err(of_store)?;
                request.after.max(head.saturating_sub(request.last.into()))
            }
            None => request.after,
        };
        // As many are looked at as one decision does; those that are wanted may be few of them, or none.
        let limit = page.size.min(EVENTS_PER_DECISION);
        let found = self.store.events_after(caller.tenant, after, limit).await.map_err(of_store)?;
        let end = found.last().map(|last| last.sequence);
        after = end.unwrap_or(after);
        let events = found.into_iter().filter(|event| wanted(pattern.as_ref(), event)).map(from_event);
        Ok(Response::new(proto::ListEventsResponse {
            events: events.collect(),
            next_page_token: end.map_or_else(String::new, |_| after.to_string()),
        }))
    }

    type TailEventsStream = BoxStream<'static, Result<proto::TailEventsResponse, Status>>;

    async fn tail_events(
        &self,
        request: Request<proto::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let pattern = pattern(&request.pattern)?;
        let changed = self.store.hints().watch_events();
        let after = match request.after {
            Some(after) => after,
            None => self.store.events_head(caller.tenant).await.map_err(of_store)?,
        };
        let slot = self.streams.take(caller.tenant)?;
        let tail = Tail { api: self.clone(), caller, pattern, after, changed, is_new: true, _slot: slot };
        let stop = self.stop.clone();
        let events = unfold(Some(tail), |tail| async move {
            let mut tail = tail?;
            match tail.next().await {
                Ok(events) => Some((Ok(events), Some(tail))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(events.take_until(stop.cancelled_owned()).boxed()))
    }
}

/// Somebody who follows events.
struct Tail {
    api: Api,
    caller: Caller,
    pattern: Option<TopicPattern>,
    after: u64,
    changed: watch::Receiver<u64>,
    /// Nothing was sent yet: where it begins is told at once.
    is_new: bool,
    _slot: Slot,
}

impl Tail {
    /// The next events, as soon as there are some. An error when who follows may no longer.
    async fn next(&mut self) -> Result<proto::TailEventsResponse, Status> {
        if std::mem::take(&mut self.is_new) {
            return Ok(proto::TailEventsResponse { events: Vec::new(), after: self.after });
        }
        loop {
            self.api.still(&self.caller).await?;
            self.changed.mark_unchanged();
            let found =
                self.api.store.events_after(self.caller.tenant, self.after, EVENTS_PER_DECISION).await;
            let found = found.map_err(of_store)?;
            if let Some(last) = found.last() {
                self.after = last.sequence;
                let wanted = found.into_iter().filter(|event| wanted(self.pattern.as_ref(), event));
                let events: Vec<proto::Event> = wanted.map(from_event).collect();
                return Ok(proto::TailEventsResponse { events, after: self.after });
            }
            let _ = tokio::time::timeout(POLL, self.changed.changed()).await;
        }
    }
}

fn pattern(text: &str) -> Result<Option<TopicPattern>, Status> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(invalid) }
}

/// Refuses data that is said to be JSON and isn't: an expression could never read it.
fn is_what_it_says(data: &Payload) -> Result<(), Status> {
    let media_type = data.content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(&data.bytes)
        .map(drop)
        .map_err(|error| invalid(format!("the event's data is not JSON, as its content type says: {error}")))
}

fn wanted(pattern: Option<&TopicPattern>, event: &Event) -> bool {
    pattern.is_none_or(|pattern| pattern.matches(&event.topic))
}

fn from_event(event: Event) -> proto::Event {
    proto::Event {
        sequence: event.sequence,
        id: event.id,
        topic: event.topic.to_string(),
        data: Some(from_payload(event.data)),
        at: Some(from_instant(event.at)),
        depth: event.depth,
    }
}
