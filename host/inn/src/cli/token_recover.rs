//! `inn token recover`: a new admin's token, for whoever has the host's own data.

use super::transfer::Database;
use super::{Format, Global, output};
use crate::data_folder::{ADMIN_TOKEN_FILE, new_token, private_folder, write_private};
use crate::host::open_existing;
use anyhow::{Context, Result};
use innkeeper_api::auth::token_hash;
use innkeeper_domain::access::{Proof, Role, Token};
use innkeeper_domain::audit::{Actor, Change};
use innkeeper_domain::ids::TokenId;
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;

/// Make a new admin's token on the host's own data, and revoke the one in admin.token
///
/// Needs no token, but the data folder, and the database if the store is there. A host with an embedded store must
/// be stopped meanwhile; one with a database goes on, and knows the new token at once. Other admins' tokens stay:
/// see `inn token ls --all`, and revoke what nobody should have. It is on record in the audit log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn token recover
  inn token recover --data ./a --database-url postgres://inn@127.0.0.1/inn")]
pub struct Args {
    #[command(flatten)]
    database: Database,
}

pub async fn run(args: Args, global: &Global) -> Result<()> {
    let data = global.data_folder()?;
    let place = args.database.place(global)?;
    let path = data.join(ADMIN_TOKEN_FILE);
    let old = match fs::read_to_string(&path) {
        Ok(old) => Some(old.trim().to_string()).filter(|old| !old.is_empty()),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(|| format!("can't read {}", path.display())),
    };
    let (store, now) = open_existing(&place).await?;
    private_folder(&data)?;
    let change = Change {
        now,
        by: Some(Arc::new(Actor {
            name: "data folder".into(),
            role: Some(Role::Admin),
            address: String::new(),
            action: "inn token recover".into(),
        })),
    };
    let token = Token {
        id: TokenId::new(now),
        tenant: None,
        role: Role::Admin,
        tasks: None,
        proof: Proof::Token,
        note: "recovered".into(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
    };
    let text = new_token()?;
    // In this order, whatever happens in between, there is a token that is good; doing it again mends the rest.
    let token = store.token_create(token, token_hash(&text), change.clone()).await?;
    write_private(&path, format!("{text}\n").as_bytes())?;
    let old = match old {
        Some(old) => store.token_find(token_hash(&old)).await?.map(|found| found.token),
        None => None,
    };
    let old = old.filter(|old| old.revoked_at.is_none()).map(|old| old.id);
    if let Some(id) = old {
        let revoked = store.token_revoke(None, id, change).await;
        revoked.with_context(|| {
            format!("the token that was there before is still good; revoke it: `inn token revoke {id}`")
        })?;
    }
    let revoked = old.map(|id| id.to_string());
    match global.output {
        Format::Json => output::json(&json!({
            "id": token.id.to_string(),
            "file": path,
            "revoked": revoked,
        }))?,
        Format::Table => {
            output::note(&format!("token {} is an admin's; its text is in {}", token.id, path.display()));
            if let Some(revoked) = revoked {
                output::note(&format!("token {revoked}, which was there before, is revoked"));
            }
        }
    }
    Ok(())
}
