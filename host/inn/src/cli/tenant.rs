//! `inn tenant`.

use super::client::{Client, call, pages};
use super::output::{self, Column, number, text};
use super::{Format, Global, Usage, Verdict, json, quota, runs_many};
use anyhow::Result;
use innkeeper_api::proto::{
    CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, ListTenantsRequest, PauseTenantRequest,
    QuotaValue, Tenant, TenantPause, UnpauseTenantRequest, UpdateTenantRequest, tenant::State,
};
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Write};

/// Create, suspend and delete tenants, for the host's admins; pause your own
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a tenant
    #[command(after_help = "Examples:
  inn tenant create acme
  inn tenant create acme --weight 3 --quota triggers=100 --quota cpu-per-day=1h --quota stored-bytes=1GiB
  inn token create --tenant acme --role owner")]
    Create {
        name: String,
        /// Its share when there is more to execute than hosts can, in proportion to the others', 1 to 1000
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        weight: u32,
        /// A quota, as of `inn quota set`; can be repeated
        #[arg(long = "quota", value_name = "QUOTA=VALUE", value_parser = quota::value)]
        quotas: Vec<QuotaValue>,
    },
    /// List tenants
    Ls,
    /// Show a tenant, your own if none is named
    Show { name: Option<String> },
    /// Let nothing of a tenant begin any more; what executes goes on
    #[command(after_help = "Examples:
  inn tenant suspend acme --note 'unpaid since May'
  inn tenant resume acme")]
    Suspend {
        name: String,
        /// Why, for people
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Let a suspended tenant go on
    Resume { name: String },
    /// Pause your own tenant: nothing of it begins until `unpause`; what executes goes on
    ///
    /// Queued runs wait, and so do those that are started by hand. Due times of triggers are skipped, on record.
    #[command(after_help = "Examples:
  inn tenant pause --note 'the database is being moved'
  inn tenant pause --cancel-running
  inn tenant unpause
  inn tenant pause --tenant acme                      for the host's admins")]
    Pause {
        /// Why, for people
        #[arg(long, default_value = "")]
        note: String,
        /// Tell what executes to end, as `inn runs cancel` does
        #[arg(long)]
        cancel_running: bool,
    },
    /// Let your own tenant, which you paused, go on
    Unpause,
    /// Change a tenant's weight; its quotas by `inn quota set`
    Set {
        name: String,
        /// Its share when there is more to execute than hosts can, in proportion to the others', 1 to 1000
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        weight: u32,
    },
    /// Delete a tenant with everything of its own: tasks, runs, components, tokens, secrets
    Rm {
        name: String,
        /// Don't ask; on a terminal its name is asked for, elsewhere this is needed
        #[arg(short, long)]
        yes: bool,
    },
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    if let Command::Rm { name, yes: false } = &command
        && !agreed(name)?
    {
        output::note("nothing was deleted");
        return Ok(Verdict::Failed);
    }
    let client = Client::connect(global).await?;
    let update = async |request: UpdateTenantRequest| {
        Ok::<_, anyhow::Error>(client.tenants().update_tenant(call(request)).await?.into_inner())
    };
    let tenant = match command {
        Command::Create { name, weight, quotas } => {
            let request = CreateTenantRequest { name, weight, quotas };
            client.tenants().create_tenant(call(request)).await?.into_inner()
        }
        Command::Ls => {
            list(format, &client).await?;
            return Ok(Verdict::Succeeded);
        }
        Command::Show { name } => {
            let request = GetTenantRequest { name: name.unwrap_or_default() };
            client.tenants().get_tenant(call(request)).await?.into_inner()
        }
        Command::Suspend { name, note } => {
            let state = State::Suspended.into();
            update(UpdateTenantRequest { name, state, note, ..UpdateTenantRequest::default() }).await?
        }
        Command::Resume { name } => {
            let state = State::Active.into();
            update(UpdateTenantRequest { name, state, ..UpdateTenantRequest::default() }).await?
        }
        Command::Pause { note, cancel_running } => {
            let paused = client.tenants().pause_tenant(call(PauseTenantRequest { note })).await?.into_inner();
            if cancel_running {
                let told = runs_many::cancel_running(global, false).await?;
                output::note(&format!("{told} that execute were told to end"));
            }
            paused
        }
        Command::Unpause => {
            client.tenants().unpause_tenant(call(UnpauseTenantRequest {})).await?.into_inner()
        }
        Command::Set { name, weight } => {
            update(UpdateTenantRequest { name, weight, ..UpdateTenantRequest::default() }).await?
        }
        Command::Rm { name, .. } => {
            client.tenants().delete_tenant(call(DeleteTenantRequest { name: name.clone() })).await?;
            match format {
                Format::Json => output::json(&json!({"deleted": name}))?,
                Format::Table => output::note(&format!("`{name}` is deleted")),
            }
            return Ok(Verdict::Succeeded);
        }
    };
    show(format, &tenant)?;
    Ok(Verdict::Succeeded)
}

/// Whether the person at the terminal types the tenant's name. Without a terminal that is refused: what is deleted
/// is gone.
fn agreed(name: &str) -> Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Usage(format!(
            "deleting tenant `{name}` takes everything of it away for good; say --yes if that is meant"
        ))
        .into());
    }
    let question = format!("this deletes all that tenant `{name}` has, for good; type its name to go on: ");
    write!(io::stderr().lock(), "{question}")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == name)
}

async fn list(format: Format, client: &Client) -> Result<()> {
    let tenants = pages(usize::MAX, async |page_size, page_token| {
        let request = ListTenantsRequest { page_size, page_token };
        let page = client.tenants().list_tenants(call(request)).await?.into_inner();
        Ok((page.tenants, page.next_page_token))
    });
    let tenants = tenants.await?;
    const COLUMNS: &[Column] =
        &[text("name"), text("state"), number("weight"), text("created"), text("note")];
    let rows = tenants.iter().map(|tenant| {
        vec![
            tenant.name.clone(),
            state(tenant).into(),
            tenant.weight.to_string(),
            output::instant(tenant.created_at),
            note(tenant).into(),
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || Value::Array(tenants.iter().map(json).collect()))
}

fn show(format: Format, tenant: &Tenant) -> Result<()> {
    let facts = [
        ("name", tenant.name.clone()),
        ("state", state(tenant).into()),
        ("note", tenant.note.clone()),
        ("paused", tenant.pause.as_ref().map(paused).unwrap_or_default()),
        ("weight", tenant.weight.to_string()),
        ("id", tenant.id.clone()),
        ("created", output::instant(tenant.created_at)),
    ];
    output::facts(format, &facts, || json(tenant))
}

/// Since when, and why.
pub fn paused(pause: &TenantPause) -> String {
    format!("since {}  {}", output::instant(pause.at), pause.note).trim_end().to_string()
}

/// Why nothing of it begins.
fn note(tenant: &Tenant) -> &str {
    match &tenant.pause {
        Some(pause) if tenant.state() != State::Suspended => &pause.note,
        _ => &tenant.note,
    }
}

fn state(tenant: &Tenant) -> &'static str {
    match tenant.state() {
        State::Active if tenant.pause.is_some() => "paused",
        State::Active => "active",
        State::Suspended => "suspended",
        State::Unspecified => "unknown",
    }
}

fn json(tenant: &Tenant) -> Value {
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "state": state(tenant),
        "note": (!tenant.note.is_empty()).then_some(&tenant.note),
        "paused_at": json::instant(tenant.pause.as_ref().and_then(|pause| pause.at)),
        "pause_note": tenant.pause.as_ref().map(|pause| &pause.note).filter(|note| !note.is_empty()),
        "weight": tenant.weight,
        "created_at": json::instant(tenant.created_at),
    })
}
