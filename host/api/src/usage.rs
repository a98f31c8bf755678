//! What tenants have used.

use crate::caller::Caller;
use crate::convert::{from_duration, optional_name, page};
use crate::proto::usage_service_server::UsageService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::bill::{Bill, day_number, day_of_number};
use innkeeper_store::UsageFilter;
use jiff::civil::Date;
use tonic::{Request, Response, Status};

/// Days that are shown when the request doesn't say.
const DAYS_DEFAULT: i64 = 30;

#[tonic::async_trait]
impl UsageService for Api {
    async fn list_usage(
        &self,
        request: Request<proto::ListUsageRequest>,
    ) -> Result<Response<proto::ListUsageResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let now = (self.now)();
        if request.all {
            caller.lists_all("usage")?;
        }
        let tenant = (!request.all).then_some(caller.tenant);
        let task = optional_name(&request.task, "the task")?;
        let days = days(&request.from, &request.to, day_number(now))?;
        let page = page(request.page_size, request.page_token)?;
        match &task {
            None if caller.known.token.tasks.is_some() => {
                return Err(invalid("the token is for some tasks; name one of them"));
            }
            // A task that never was has used nothing, either.
            Some(task) if !caller.may_use(task) => {
                return Ok(Response::new(proto::ListUsageResponse::default()));
            }
            _ => {}
        }
        let found =
            self.store.usage_list(UsageFilter { tenant, task, days }, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListUsageResponse {
            lines: found.items.into_iter().map(from_bill).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }
}

/// The first and the last day that are asked for.
fn days(from: &str, to: &str, today: i64) -> Result<(Date, Date), Status> {
    let default = |number| day_of_number(number).ok_or_else(|| invalid("there is no such day"));
    let to = if to.is_empty() { default(today)? } else { day(to)? };
    let from = if from.is_empty() { default(today - (DAYS_DEFAULT - 1))?.min(to) } else { day(from)? };
    if from > to {
        return Err(invalid(format!("the first day {from} is after the last, {to}")));
    }
    Ok((from, to))
}

fn day(text: &str) -> Result<Date, Status> {
    let day = Some(text).filter(|text| text.len() == "YYYY-MM-DD".len()).and_then(|text| text.parse().ok());
    day.ok_or_else(|| {
        let cut: String = text.chars().take(64).collect();
        invalid(format!("`{cut}` is no day; expected YYYY-MM-DD"))
    })
}

fn from_bill(bill: Bill) -> proto::UsageLine {
    proto::UsageLine {
        tenant: bill.tenant.to_string(),
        day: bill.day.to_string(),
        task: bill.task.to_string(),
        task_id: bill.task_id.to_string(),
        runs: bill.used.runs,
        attempts: bill.used.attempts,
        cpu: Some(from_duration(bill.used.cpu)),
        wall: Some(from_duration(bill.used.wall)),
        memory_byte_seconds: bill.used.memory_seconds,
        input_bytes: bill.used.input_bytes,
        output_bytes: bill.used.output_bytes,
        log_bytes: bill.used.log_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_defaults_and_an_order() {
        let read = |from: &str, to: &str| {
            days(from, to, 20_454)
                .map(|(from, to)| format!("{from} {to}"))
                .map_err(|e| e.message().to_string())
        };
        assert_eq!(read("", ""), Ok("2025-12-03 2026-01-01".into()));
        assert_eq!(read("2025-12-31", ""), Ok("2025-12-31 2026-01-01".into()));
        assert_eq!(read("", "2024-02-29"), Ok("2024-02-29 2024-02-29".into()));
        for (from, to) in
            [("2026-01-02", "2026-01-01"), ("2026-02-30", ""), ("yesterday", ""), ("2026-1-1", "")]
        {
            assert!(read(from, to).is_err(), "{from} {to}");
        }
    }
}
