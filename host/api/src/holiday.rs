//! Holiday calendars.

use crate::caller::Caller;
use crate::convert::{from_instant, name, page};
use crate::proto::holiday_service_server::HolidayService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::holiday::{self, Holiday, HolidayCalendar, HolidayCalendarInfo};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl HolidayService for Api {
    async fn put_holiday_calendar(
        &self,
        request: Request<proto::PutHolidayCalendarRequest>,
    ) -> Result<Response<proto::HolidayCalendar>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = name(&request.name, "the holiday calendar")?;
        let holidays = holiday::read(&request.file).map_err(|error| invalid(format!("the file: {error}")))?;
        let change = caller.change((self.now)());
        let calendar = self.store.holidays_put(caller.tenant, &name, holidays, change).await;
        Ok(Response::new(from_calendar(calendar.map_err(of_store)?)))
    }

    async fn get_holiday_calendar(
        &self,
        request: Request<proto::GetHolidayCalendarRequest>,
    ) -> Result<Response<proto::HolidayCalendar>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let name = name(&request.into_inner().name, "the holiday calendar")?;
        let calendar = self.store.holidays_get(tenant, &name).await.map_err(of_store)?;
        Ok(Response::new(from_calendar(calendar)))
    }

    async fn list_holiday_calendars(
        &self,
        request: Request<proto::ListHolidayCalendarsRequest>,
    ) -> Result<Response<proto::ListHolidayCalendarsResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let request = request.into_inner();
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.holidays_list(tenant, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListHolidayCalendarsResponse {
            calendars: found.items.into_iter().map(from_info).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn delete_holiday_calendar(
        &self,
        request: Request<proto::DeleteHolidayCalendarRequest>,
    ) -> Result<Response<proto::DeleteHolidayCalendarResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = name(&request.into_inner().name, "the holiday calendar")?;
        let change = caller.change((self.now)());
        self.store.holidays_delete(caller.tenant, &name, change).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteHolidayCalendarResponse {}))
    }
}

fn from_calendar(calendar: HolidayCalendar) -> proto::HolidayCalendar {
    proto::HolidayCalendar {
        name: calendar.name.to_string(),
        count: calendar.holidays.len() as u64,
        holidays: calendar.holidays.into_iter().map(from_holiday).collect(),
        created_at: Some(from_instant(calendar.created_at)),
        updated_at: Some(from_instant(calendar.updated_at)),
    }
}

fn from_holiday(holiday: Holiday) -> proto::Holiday {
    proto::Holiday { day: holiday.day.to_string(), title: holiday.title }
}

fn from_info(info: HolidayCalendarInfo) -> proto::HolidayCalendar {
    proto::HolidayCalendar {
        name: info.name.to_string(),
        holidays: Vec::new(),
        count: info.holidays,
        created_at: Some(from_instant(info.created_at)),
        updated_at: Some(from_instant(info.updated_at)),
    }
}
