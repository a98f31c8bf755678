//! `inn quota`.

use super::client::{Client, call};
use super::output::{self, Column, number, text};
use super::{Format, Global, Verdict, parse};
use anyhow::Result;
use innkeeper_api::proto::{GetQuotasRequest, GetQuotasResponse, Quota, QuotaValue, SetQuotasRequest};
use innkeeper_domain::network::{NetworkName, NetworkSet};
use innkeeper_domain::quota::{Quota as Kind, Unit};
use serde_json::{Value, json};
use std::time::Duration;

/// See and set how much of the host a tenant may have
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the tenant's quotas (--tenant), and what is used of them
    Show,
    /// Set quotas of the tenant (--tenant); the others stay. For the host's admins
    ///
    /// concurrent-runs, triggers, components, starts-per-second (by hand), begins-per-second (of attempts) and fan-out
    /// (runs that one call may start) are counts; run-memory, stored-bytes and run-log-bytes (of one attempt) are sizes; cpu-per-day and least-interval
    /// (between two firings of a trigger) are times. What is there already stays when a quota gets less.
    ///
    /// open-networks names networks that are closed to tasks, with commas between, and opens them to the tenant's, if these
    /// are granted hosts there (`inn task create --allow-http`): loopback, private, link-local, metadata (a cloud's, with its
    /// credentials), cgnat, unique-local, ...; a word that isn't known is answered with all that are.
    #[command(after_help = "Examples:
  inn quota set --tenant acme concurrent-runs=10 run-memory=256MiB cpu-per-day=1h30m
  inn quota set --tenant acme open-networks=loopback,private
  inn quota set --tenant acme triggers=100 least-interval=10s stored-bytes=1GiB
  inn quota set --tenant acme starts-per-second=none      takes it away")]
    Set {
        #[arg(required = true, value_name = "QUOTA=VALUE", value_parser = value)]
        quotas: Vec<QuotaValue>,
    },
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let client = Client::connect(global).await?;
    let quotas = match command {
        Command::Show => client.quotas().get_quotas(call(GetQuotasRequest {})).await?,
        Command::Set { quotas } => client.quotas().set_quotas(call(SetQuotasRequest { quotas })).await?,
    };
    show(global.output, quotas.get_ref())?;
    Ok(Verdict::Succeeded)
}

/// `triggers=100`, `run-memory=1GiB`, `cpu-per-day=1h30m`, `fan-out=none`.
pub fn value(text: &str) -> Result<QuotaValue, String> {
    let (name, value) = parse::pair(text)?;
    let kind: Kind = name.parse().map_err(|e: innkeeper_domain::quota::QuotaError| e.to_string())?;
    if value == "none" {
        return Ok(QuotaValue { name, value: None });
    }
    let value = match kind.unit() {
        Unit::Count => {
            value.parse().map_err(|_| format!("`{value}` is not a count; write a number, or none"))?
        }
        Unit::Bytes => parse::size(&value)?,
        Unit::Time => u64::try_from(parse::duration(&value)?.as_micros())
            .map_err(|_| format!("`{value}` is too long"))?,
        Unit::Networks => value.parse::<NetworkSet>().map_err(|e| e.to_string())?.bits(),
    };
    Ok(QuotaValue { name, value: Some(value) })
}

fn unit(name: &str) -> Unit {
    name.parse::<Kind>().map_or(Unit::Count, Kind::unit)
}

/// A quota's value as [`value`] reads it.
fn exact(unit: Unit, number: u64) -> String {
    const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    const TIMES: &[(&str, u64)] =
        &[("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
    match unit {
        Unit::Count => number.to_string(),
        Unit::Bytes => {
            let whole = SIZES.iter().find(|(_, size)| number >= *size && number.is_multiple_of(*size));
            whole.map_or_else(|| number.to_string(), |(name, size)| format!("{}{name}", number / size))
        }
        Unit::Time if number == 0 => "0s".into(),
        Unit::Time => {
            let (mut rest, mut text) = (number, String::new());
            for (name, length) in TIMES {
                if rest >= *length {
                    text.push_str(&format!("{}{name}", rest / length));
                    rest %= length;
                }
            }
            if rest > 0 { format!("{text}{rest}µs") } else { text }
        }
        Unit::Networks => networks(number).to_string(),
    }
}

/// Those of them that this version knows.
fn networks(number: u64) -> NetworkSet {
    NetworkSet::from_known_bits(number)
}

/// What is used, for people.
fn about(unit: Unit, number: u64) -> String {
    match unit {
        Unit::Count => number.to_string(),
        Unit::Bytes => output::bytes(number),
        Unit::Time => output::duration(Duration::from_micros(number)),
        Unit::Networks => networks(number).to_string(),
    }
}

fn percent(quota: &Quota) -> Option<f64> {
    match (quota.used, quota.value) {
        (Some(used), Some(value)) if value > 0 => Some(used as f64 * 100.0 / value as f64),
        _ => None,
    }
}

fn show(format: Format, quotas: &GetQuotasResponse) -> Result<()> {
    const COLUMNS: &[Column] = &[text("quota"), number("value"), number("used"), number("percent")];
    let rows = quotas.quotas.iter().map(|quota| {
        let unit = unit(&quota.name);
        vec![
            quota.name.clone(),
            quota.value.map_or_else(|| "none".into(), |value| exact(unit, value)),
            quota.used.map(|used| about(unit, used)).unwrap_or_default(),
            percent(quota).map(|percent| format!("{percent:.0} %")).unwrap_or_default(),
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || Value::Array(quotas.quotas.iter().map(json).collect()))
}

fn json(quota: &Quota) -> Value {
    let (unit, value) = match unit(&quota.name) {
        Unit::Count => ("count", json!(quota.value)),
        Unit::Bytes => ("bytes", json!(quota.value)),
        Unit::Time => ("microseconds", json!(quota.value)),
        Unit::Networks => {
            let names = |set| networks(set).names().map(NetworkName::as_str).collect::<Vec<_>>();
            ("networks", json!(quota.value.map(names)))
        }
    };
    json!({"name": quota.name, "value": value, "used": quota.used, "unit": unit})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_their_units_and_shown_as_they_were_written() {
        for (text, number, shown) in [
            ("triggers=100", 100, "100"),
            ("run-memory=1GiB", 1 << 30, "1GiB"),
            ("run-memory=1536MiB", 1_536 << 20, "1536MiB"),
            ("stored-bytes=1000", 1_000, "1000"),
            ("cpu-per-day=1h30m", 5_400_000_000, "1h30m"),
            ("cpu-per-day=90m", 5_400_000_000, "1h30m"),
            ("least-interval=10s", 10_000_000, "10s"),
            ("least-interval=1500ms", 1_500_000, "1s500ms"),
            ("concurrent-runs=0", 0, "0"),
            ("cpu-per-day=0s", 0, "0s"),
            ("open-networks=private,loopback", 0b11, "loopback,private"),
            ("open-networks=metadata", 0b1000, "metadata"),
        ] {
            let read = value(text).unwrap();
            assert_eq!(read.value, Some(number), "{text}");
            let again = exact(unit(&read.name), number);
            assert_eq!(again, shown, "{text}");
            assert_eq!(value(&format!("{}={again}", read.name)).unwrap().value, Some(number), "{text}");
        }
        assert_eq!(value("fan-out=none").unwrap().value, None);
        for kind in Kind::ALL {
            assert_eq!(value(&format!("{kind}=none")).unwrap().name, kind.to_string());
        }
        for bad in
            ["triggers", "triggers=1GiB", "triggers=-1", "run-memory=1h", "cpu-per-day=5", "rooms=3", "=3"]
        {
            assert!(value(bad).is_err(), "{bad}");
        }
        for bad in ["3", "intranet", "loopback,", "10.0.0.0/8"] {
            assert!(value(&format!("open-networks={bad}")).unwrap_err().contains("link-local"), "{bad}");
        }
        assert_eq!(exact(Unit::Networks, 0), "none");
    }

    #[test]
    fn networks_are_named_in_json() {
        let of = |value| json(&Quota { name: "open-networks".into(), value, used: None });
        assert_eq!(of(Some(0b1001))["value"], json!(["loopback", "metadata"]));
        assert_eq!((of(None)["value"].clone(), of(None)["unit"].clone()), (Value::Null, json!("networks")));
    }

    #[test]
    fn a_quota_of_nothing_has_no_percentage() {
        let of = |value, used| percent(&Quota { name: String::new(), value, used });
        assert_eq!(of(Some(200), Some(50)), Some(25.0));
        assert_eq!((of(Some(0), Some(0)), of(None, Some(3)), of(Some(3), None)), (None, None, None));
    }
}
