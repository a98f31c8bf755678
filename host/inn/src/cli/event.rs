//! `inn event`.

use super::client::{Client, call, pages};
use super::output::{self, Column, number, text};
use super::{Format, Global, Verdict, json, parse};
use anyhow::{Result, bail};
use innkeeper_api::proto::{Event, ListEventsRequest, NewEvent, PublishEventsRequest, TailEventsRequest};
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
        payload: Option<String>,
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
pub fn with_payload(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let publish = arguments.windows(2).position(|pair| pair[0] == "event" && pair[1] == "publish");
    for argument in arguments.iter_mut().skip(publish.map_or(usize::MAX, |at| at + 2)) {
        match argument.to_str() {
            Some("--data") => *argument = "--payload".into(),
            Some(text) => {
                if let Some(data) = text.strip_prefix("--data=") {
                    *argument = format!("--payload={data}").into();
                }
            }
            None => {}
        }
    }
    arguments
}

const COLUMNS: &[Column] = &[number("sequence"), text("at"), text("topic"), text("id"), text("data")];

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    let client = Client::connect(global).await?;
    match command {
        Command::Publish { topic, payload, content_type, id } => {
            let data = Some(parse::input(payload.as_deref(), content_type.as_deref())?);
            let event = NewEvent { id: id.unwrap_or_default(), topic, data };
            let request = PublishEventsRequest { events: vec![event] };
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
            tail(format, &client, pattern.unwrap_or_default(), from, count.unwrap_or(u64::MAX)).await?;
        }
        Command::Ls { pattern, last } => {
            let pattern = pattern.unwrap_or_default();
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
                                print(format, event);
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
        if ended.code() != Code::Unavailable || after.is_none() {
            return Err(ended.into());
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

fn print(format: Format, event: &Event) {
    match format {
        Format::Table => println!("{}", row(event).join("  ")),
        _ => println!("{}", value(event)),
    }
}

fn row(event: &Event) -> Vec<String> {
    let data = event.data.clone().unwrap_or_default();
    vec![
        event.sequence.to_string(),
        output::instant(event.at),
        event.topic.clone(),
        event.id.clone(),
        output::harmless(&String::from_utf8_lossy(&data.bytes)),
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

    #[test]
    fn data_is_the_events_after_publish_and_the_folder_before() {
        let changed = |text: &str| {
            let words = with_payload(text.split(' ').map(Into::into));
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            changed("inn --data d event publish a --data 1"),
            "inn --data d event publish a --payload 1"
        );
        assert_eq!(changed("inn event publish a --data={}"), "inn event publish a --payload={}");
        assert_eq!(changed("inn event ls --data d"), "inn event ls --data d");
    }
}
