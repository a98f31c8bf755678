//! `inn event`.

use super::client::{Client, call, pages};
use super::output::{self, Column, number, text};
use super::{Format, Global, Usage, Verdict, is_broken_connection, json, parse};
use anyhow::{Result, bail};
use innkeeper_api::proto::{
    Event, ListEventsRequest, NewEvent, Payload, PublishEventsRequest, TailEventsRequest,
};
use innkeeper_domain::limits::EVENT_BYTES_MAX;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::time::Duration;
use tonic::{Code, Request};

/// Events that `ls` shows.
const SHOWN: u32 = 100;

/// How long a tail waits before it connects again.
const AGAIN: Duration = Duration::from_secs(1);

/// Publish events, and see them: messages on topics, which triggers can start runs on
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Publish an event
    #[command(after_help = "Examples:
  inn event publish orders.created --data '{\"id\": 7, \"total\": 120}'
  inn event publish orders.created --data @order.json --id order-7
  inn trigger create bill --on-event 'orders.*' --filter 'data.total > 100'")]
    Publish {
        /// 1 to 8 segments of letters, digits, _ and - with dots in between
        topic: String,
        /// Its data, which can also be written `--data`: the text itself, @FILE, or - for stdin
        #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
        payload: Vec<String>,
        /// The data's media type; after its looks if not given
        #[arg(long, value_name = "TYPE")]
        content_type: Option<String>,
        /// Its id: published again with the same, it is the same event
        #[arg(long)]
        id: Option<String>,
    },
    /// Print events as they come, from now on
    #[command(after_help = "Examples:
  inn event tail
  inn event tail 'orders.**' -o json
  inn event tail --from 0 -n 10")]
    Tail {
        /// Only those on these topics: segments may be *, and the last ** for one or more
        pattern: Option<String>,
        /// From those on after this sequence; 0 for all that are kept
        #[arg(long, value_name = "SEQUENCE")]
        from: Option<u64>,
        /// End after so many
        #[arg(short = 'n', long, value_name = "N")]
        count: Option<u64>,
    },
    /// List the last events
    Ls {
        /// Only those on these topics: segments may be *, and the last ** for one or more
        pattern: Option<String>,
        /// Of so many that were last, on whatever topic; 0 for all that are kept
        #[arg(long, value_name = "N", default_value_t = SHOWN)]
        last: u32,
    },
}

/// The program's arguments, of which `--data` after `event publish` is the event's: before, it is the data folder.
/// `program` tells which options have their value as a word of its own.
pub fn with_payload(
    program: impl FnOnce() -> clap::Command,
    arguments: impl Iterator<Item = OsString>,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if !arguments.iter().any(|argument| argument == "publish") {
        return arguments;
    }
    let mut program = program();
    program.build();
    let (mut command, mut nouns, mut is_value) = (&program, ["event", "publish"].iter(), false);
    for argument in arguments.iter_mut().skip(1) {
        if std::mem::take(&mut is_value) {
            continue;
        }
        let Some(text) = argument.to_str() else { continue };
        if text == "--" {
            break;
        }
        let is_published = nouns.len() == 0;
        if is_published && (text == "--data" || text.starts_with("--data=")) {
            *argument = text.replacen("--data", "--payload", 1).into();
            is_value = argument == "--payload";
        } else if text.starts_with('-') {
            is_value = has_value_after(command, text);
        } else if !is_published {
            match nouns.next().filter(|noun| **noun == text).and_then(|noun| command.find_subcommand(noun)) {
                Some(found) => command = found,
                None => break,
            }
        }
    }
    arguments
}

/// Whether an option's value is the word after it.
fn has_value_after(command: &clap::Command, option: &str) -> bool {
    let found = match option.strip_prefix("--") {
        Some(long) => command.get_arguments().find(|argument| argument.get_long() == Some(long)),
        // Of `-ojson` the rest is the value.
        None => option
            .strip_prefix('-')
            .and_then(|short| short.parse::<char>().ok())
            .and_then(|short| command.get_arguments().find(|argument| argument.get_short() == Some(short))),
    };
    found.is_some_and(|argument| argument.get_action().takes_values())
}

/// An event's data.
fn data(payload: &[String], content_type: Option<&str>) -> Result<Payload> {
    if payload.len() > 1 {
        return Err(Usage(
            "--data and --payload are the same, the event's data: say one of them, once".into(),
        )
        .into());
    }
    parse::payload(payload.first().map(String::as_str), content_type, "an event", EVENT_BYTES_MAX)
}

const COLUMNS: &[Column] = &[number("sequence"), text("at"), text("topic"), text("id"), text("data")];

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    match command {
        Command::Publish { topic, payload, content_type, id } => {
            if id.as_deref() == Some("") {
                return Err(Usage(
                    "an event's id has a character at least; without --id the host makes one".into(),
                )
                .into());
            }
            let data = Some(data(&payload, content_type.as_deref())?);
            let event = NewEvent { id: id.unwrap_or_default(), topic, data };
            let request = PublishEventsRequest { events: vec![event] };
            let client = Client::connect(global).await?;
            let answer = client.events().publish_events(call(request)).await?.into_inner();
            let Some(result) = answer.results.into_iter().next() else { bail!("the host gave no answer") };
            if !result.error.is_empty() {
                bail!(result.error);
            }
            let facts = [
                ("id", result.id.clone()),
                ("sequence", result.sequence.to_string()),
                ("existed", if result.existed { "yes".into() } else { String::new() }),
            ];
            output::facts(
                format,
                &facts,
                || json!({"id": result.id, "sequence": result.sequence, "existed": result.existed}),
            )?;
        }
        Command::Tail { pattern, from, count } => {
            let client = Client::connect(global).await?;
            tail(format, &client, pattern.unwrap_or_default(), from, count.unwrap_or(u64::MAX)).await?;
        }
        Command::Ls { pattern, last } => {
            let pattern = pattern.unwrap_or_default();
            let client = Client::connect(global).await?;
            let events = pages(usize::MAX, async |page_size, page_token| {
                let pattern = pattern.clone();
                let request = ListEventsRequest { pattern, after: 0, last, page_size, page_token };
                let page = client.events().list_events(call(request)).await?.into_inner();
                Ok((page.events, page.next_page_token))
            });
            let events = events.await?;
            let rows = events.iter().map(row).collect();
            output::rows(format, COLUMNS, rows, || Value::Array(events.iter().map(value).collect()))?;
        }
    }
    Ok(Verdict::Succeeded)
}

/// Prints events until there were so many. A connection that is lost is made again, and nothing is missed.
async fn tail(
    format: Format,
    client: &Client,
    pattern: String,
    mut after: Option<u64>,
    count: u64,
) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let request = TailEventsRequest { pattern: pattern.clone(), after };
        let ended = match client.events().tail_events(Request::new(request)).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Err(status) => break status,
                        Ok(None) => break tonic::Status::unavailable("the host has ended the stream"),
                        Ok(Some(told)) => {
                            for event in &told.events {
                                if left == 0 {
                                    return Ok(());
                                }
                                left -= 1;
                                print(format, event)?;
                            }
                            if left == 0 {
                                return Ok(());
                            }
                            after = Some(told.after);
                        }
                    }
                }
            }
        };
        // Before it has begun there is nothing to go on from.
        let is_lost = ended.code() == Code::Unavailable || is_broken_connection(&ended);
        if !is_lost || after.is_none() {
            return Err(ended.into());
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

fn print(format: Format, event: &Event) -> Result<()> {
    match format {
        Format::Table => output::line(&output::harmless(&row(event).join("  "))),
        Format::Json => output::json_line(&value(event)),
    }
}

fn row(event: &Event) -> Vec<String> {
    let data = event.data.clone().unwrap_or_default();
    vec![
        event.sequence.to_string(),
        output::instant(event.at),
        event.topic.clone(),
        event.id.clone(),
        String::from_utf8_lossy(&data.bytes).into(),
    ]
}

fn value(event: &Event) -> Value {
    json!({
        "sequence": event.sequence,
        "id": event.id,
        "topic": event.topic,
        "at": json::instant(event.at),
        "depth": event.depth,
        "content_type": event.data.as_ref().map(|data| &data.content_type),
        "data": json::payload(event.data.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn data_is_the_events_after_publish_and_the_folder_before() {
        for (given, becomes) in [
            ("inn --data d event publish a --data 1", "inn --data d event publish a --payload 1"),
            ("inn event publish a --data={}", "inn event publish a --payload={}"),
            ("inn event -o json publish a --data 1", "inn event -o json publish a --payload 1"),
            (
                "inn event --data d -ojson publish --id --x a --data 1",
                "inn event --data d -ojson publish --id --x a --payload 1",
            ),
            (
                "inn --host publish event --insecure-plain-text publish --data 1 a",
                "inn --host publish event --insecure-plain-text publish --payload 1 a",
            ),
            ("inn event publish a --payload --data", "inn event publish a --payload --data"),
            ("inn event publish a --data --data", "inn event publish a --payload --data"),
            ("inn event ls --data d", "inn event ls --data d"),
            ("inn run publish --data d", "inn run publish --data d"),
            ("inn task create event publish --data d", "inn task create event publish --data d"),
        ] {
            let words = with_payload(crate::cli::Cli::command, given.split(' ').map(Into::into));
            assert_eq!(
                words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" "),
                becomes
            );
        }
    }

    #[test]
    fn data_is_said_once() {
        let twice = data(&["a".into(), "b".into()], None).unwrap_err();
        assert!(twice.is::<Usage>() && twice.to_string().contains("--data and --payload"), "{twice}");
        assert_eq!(data(&["{}".into()], None).unwrap().content_type, "application/json");
    }
}
