//! `inn holidays`.

use super::client::{Client, call, pages};
use super::output::{self, Column, number, text};
use super::{Format, Global, Usage, Verdict, json};
use anyhow::{Context, Result};
use innkeeper_api::proto::{
    DeleteHolidayCalendarRequest, GetHolidayCalendarRequest, HolidayCalendar, ListHolidayCalendarsRequest,
    PutHolidayCalendarRequest,
};
use innkeeper_domain::limits::HOLIDAY_FILE_BYTES_MAX;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read};

/// Keep holiday calendars: dates on which triggers that exclude them don't run
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Put a calendar, in the place of the one of this name; it counts for what is decided from then on
    ///
    /// The file has a date a line and after it a title if wanted, `2026-12-25 Christmas`; `2026-12-25/yearly` is that
    /// date of every year from then on; a comment begins with #. Or it is an .ics file, whose events are whole days,
    /// once or once a year.
    #[command(after_help = "Examples:
  inn holidays put germany germany.ics
  printf '2026-12-24 closed\\n2020-12-25/yearly Christmas\\n' | inn holidays put office -
  inn trigger create report --cron '0 9 * * 1-5' --tz Europe/Berlin --exclude germany --exclude office")]
    Put {
        name: String,
        /// The file, or - for stdin
        #[arg(value_name = "FILE|-")]
        file: String,
    },
    /// List calendars
    Ls,
    /// Show a calendar's holidays
    Show { name: String },
    /// Delete a calendar that no trigger excludes
    Rm { name: String },
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    match command {
        Command::Put { name, file } => {
            let file = read(&file)?;
            let client = Client::connect(global).await?;
            let request = PutHolidayCalendarRequest { name, file };
            let calendar = client.holidays().put_holiday_calendar(call(request)).await?.into_inner();
            let facts = [
                ("name", calendar.name.clone()),
                ("holidays", calendar.count.to_string()),
                ("created", output::instant(calendar.created_at)),
                ("updated", output::instant(calendar.updated_at)),
            ];
            output::facts(format, &facts, || with_holidays(&calendar))?;
        }
        Command::Ls => {
            let client = Client::connect(global).await?;
            let calendars = pages(usize::MAX, async |page_size, page_token| {
                let request = ListHolidayCalendarsRequest { page_size, page_token };
                let page = client.holidays().list_holiday_calendars(call(request)).await?.into_inner();
                Ok((page.calendars, page.next_page_token))
            });
            list(format, &calendars.await?)?;
        }
        Command::Show { name } => {
            let client = Client::connect(global).await?;
            let request = GetHolidayCalendarRequest { name };
            let calendar = client.holidays().get_holiday_calendar(call(request)).await?.into_inner();
            const COLUMNS: &[Column] = &[text("day"), text("title")];
            let rows =
                calendar.holidays.iter().map(|holiday| vec![holiday.day.clone(), holiday.title.clone()]);
            output::rows(format, COLUMNS, rows.collect(), || with_holidays(&calendar))?;
        }
        Command::Rm { name } => {
            let client = Client::connect(global).await?;
            let request = DeleteHolidayCalendarRequest { name: name.clone() };
            client.holidays().delete_holiday_calendar(call(request)).await?;
            if format == Format::Json {
                output::json(&json!({"deleted": name}))?;
            }
        }
    }
    Ok(Verdict::Succeeded)
}

fn read(file: &str) -> Result<Vec<u8>> {
    let bytes = match file {
        "-" => bounded(io::stdin().lock()).context("can't read stdin")?,
        path => {
            let opened = File::open(path).with_context(|| format!("can't open {path}"))?;
            bounded(opened).with_context(|| format!("can't read {path}"))?
        }
    };
    if bytes.len() > HOLIDAY_FILE_BYTES_MAX {
        return Err(Usage(format!(
            "{file} has more than {HOLIDAY_FILE_BYTES_MAX} bytes, which is the most that a holiday calendar can have"
        ))
        .into());
    }
    Ok(bytes)
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(HOLIDAY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn list(format: Format, calendars: &[HolidayCalendar]) -> Result<()> {
    const COLUMNS: &[Column] = &[text("name"), number("holidays"), text("updated")];
    let rows = calendars.iter().map(|calendar| {
        vec![calendar.name.clone(), calendar.count.to_string(), output::instant(calendar.updated_at)]
    });
    output::rows(format, COLUMNS, rows.collect(), || calendars.iter().map(calendar_json).collect())
}

fn calendar_json(calendar: &HolidayCalendar) -> Value {
    json!({
        "name": calendar.name,
        "count": calendar.count,
        "created_at": json::instant(calendar.created_at),
        "updated_at": json::instant(calendar.updated_at),
    })
}

fn with_holidays(calendar: &HolidayCalendar) -> Value {
    let mut value = calendar_json(calendar);
    let holidays = calendar.holidays.iter();
    value["holidays"] = holidays.map(|holiday| json!({"day": holiday.day, "title": holiday.title})).collect();
    value
}
