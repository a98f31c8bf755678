//! A database as the source and the target of a transfer.

use super::connection::{DatabaseUrl, connection};
use super::migrate::{MIGRATIONS, apply, begin, exists, newer, version};
use super::row::{row, rows, text};
use crate::StoreError;
use crate::transfer::{
    Batch, COMPONENT_BYTES, Header, NEEDED_COMPONENTS, Part, Parts, Row, Sender, Summary, TABLES, Table,
    Value, unfit,
};
use deadpool_postgres::{GenericClient, Transaction};
use futures::TryStreamExt;
use innkeeper_domain::Timestamp;
use std::error::Error;
use std::pin::pin;
use tokio_postgres::IsolationLevel;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// Our tables that aren't taken along.
const OTHER_TABLES: [&str; 2] = ["artifact", "schema_version"];

/// Gives all rows, of one moment. Hosts may use the database.
pub(crate) async fn export(url: &DatabaseUrl, now: Timestamp, to: &Sender) -> Result<(), StoreError> {
    let mut connection = connection(&url.pool(1)?).await?;
    let moment =
        connection.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let moment = moment.start().await?;
    // However long the target takes.
    moment
        .batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        .await?;
    let schema = version(&moment).await?;
    match schema {
        0 => return Err(StoreError::NotFound(format!("store in {url}"))),
        schema if schema > MIGRATIONS.len() => return Err(newer(schema)),
        _ => to.send(Part::Header(Header::new(schema, now))).await?,
    }
    for name in TABLES {
        export_table(&moment, name, to).await?;
    }
    moment.commit().await?;
    to.send(Part::End(None)).await
}

async fn export_table(c: &Transaction<'_>, name: &str, to: &Sender) -> Result<(), StoreError> {
    let columns = columns(c, name).await?;
    if columns.is_empty() {
        return Ok(());
    }
    let mut select = format!("SELECT {} FROM {}", quoted(&columns), quote(name));
    if name == COMPONENT_BYTES {
        select += &format!(" WHERE digest IN ({NEEDED_COMPONENTS})");
    }
    to.send(Part::Table(Table { table: name.into(), columns })).await?;
    // The database waits while nobody reads.
    let mut found = pin!(c.query_raw(&select, std::iter::empty::<&Value>()).await?);
    let mut batch = Batch::default();
    while let Some(row) = found.try_next().await? {
        let values = (0..row.len()).map(|at| row.try_get(at));
        to.send(batch.push(values.collect::<Result<Row, _>>()?)).await?;
    }
    to.send(batch.rest()).await
}

/// Takes all rows, in one transaction.
pub(crate) async fn import(url: &DatabaseUrl, mut parts: Parts) -> Result<Summary, StoreError> {
    let mut connection = connection(&url.pool(1)?).await?;
    let c = connection.transaction().await?;
    begin(&c).await.map_err(not_ready)?;
    clear(&c).await.map_err(not_ready)?;
    let header = parts.header().await?;
    header.check(MIGRATIONS.len())?;
    apply(&c, 0, header.schema).await.map_err(not_ready)?;
    let mut part = parts.next().await?;
    loop {
        part = match part {
            Part::Table(table) => import_table(&c, &table, &mut parts).await?,
            Part::End(_) => break,
            _ => unreachable!("rows follow a table"),
        }
    }
    // Rows that come now must not get ids that are taken.
    let next =
        "SELECT setval(pg_get_serial_sequence('skip', 'id'), coalesce(max(id), 0) + 1, false) FROM skip";
    row(&c, next, &[]).await?;
    apply(&c, header.schema, MIGRATIONS.len()).await?;
    c.commit().await?;
    parts.summary()
}

/// What goes wrong before there are rows is not the rows' fault.
fn not_ready(error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt(words) => {
            StoreError::Conflict(format!("the database can't take a store: {words}"))
        }
        error => error,
    }
}

/// Clears away a schema without rows, which may be of another version. `Conflict` if there are rows.
async fn clear(c: &Transaction<'_>) -> Result<(), StoreError> {
    let done = version(c).await?;
    if done == 0 {
        return Ok(());
    }
    let mut ours = Vec::new();
    for name in TABLES.iter().rev().chain(&OTHER_TABLES) {
        if exists(c, name).await? {
            ours.push(quote(name));
        }
    }
    for name in ours.iter().filter(|name| **name != quote("schema_version")) {
        if row(c, &format!("SELECT 1 FROM {name} LIMIT 1"), &[]).await?.is_some() {
            return Err(StoreError::Conflict(format!(
                "there is a store in the database already ({name} has rows); take an empty one"
            )));
        }
    }
    Ok(c.batch_execute(&format!("DROP TABLE {}", ours.join(", "))).await?)
}

/// Takes the rows of a table; gives the part that comes after them.
async fn import_table(c: &Transaction<'_>, table: &Table, parts: &mut Parts) -> Result<Part, StoreError> {
    let (name, columns) = (quote(&table.table), quoted(&table.columns));
    if self::columns(c, &table.table).await? != table.columns {
        return Err(unfit(&format!("the columns of {name} are others")));
    }
    let like = c.prepare(&format!("SELECT {columns} FROM {name}")).await?;
    let types: Vec<Type> = like.columns().iter().map(|column| column.type_().clone()).collect();
    let copy = c.copy_in(&format!("COPY {name} ({columns}) FROM STDIN BINARY")).await?;
    let mut copy = pin!(BinaryCopyInWriter::new(copy, &types));
    loop {
        match parts.next().await? {
            Part::Rows(rows) => {
                for row in &rows {
                    copy.as_mut().write_raw(row).await.map_err(not_copied)?;
                }
            }
            next => {
                copy.finish().await?;
                return Ok(next);
            }
        }
    }
}

/// An error before the database had its say is the value's.
fn not_copied(error: tokio_postgres::Error) -> StoreError {
    match error.source().and_then(|source| source.downcast_ref::<Unfit>()) {
        Some(_) => unfit("a value is not of its column's type"),
        None => error.into(),
    }
}

/// A table's columns by name; none if there is no such table.
async fn columns(c: &impl GenericClient, table: &str) -> Result<Vec<String>, StoreError> {
    let list = "SELECT attname::text FROM pg_attribute
         WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped ORDER BY attname COLLATE \"C\"";
    let found = rows(c, list, &[&table]).await?;
    Ok(found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

fn quote(name: &str) -> String {
    format!("\"{name}\"")
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// A value that its column can't have.
#[derive(Debug, thiserror::Error)]
#[error("it is not of the column's type")]
struct Unfit;

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, ty) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Int(number), &Type::INT8) => number.to_sql(ty, out),
            (Self::Int(number), &Type::INT2) => i16::try_from(*number).map_err(|_| Unfit)?.to_sql(ty, out),
            (Self::Int(number @ 0..=1), &Type::BOOL) => (*number == 1).to_sql(ty, out),
            (Self::Text(value), &Type::TEXT) => text(value).to_sql(ty, out),
            (Self::Blob(bytes), &Type::BYTEA) => bytes.to_sql(ty, out),
            (Self::Blob(bytes), &Type::UUID) => Uuid::from_slice(bytes).map_err(|_| Unfit)?.to_sql(ty, out),
            _ => Err(Unfit.into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *ty {
            Type::INT8 => Self::Int(i64::from_sql(ty, raw)?),
            Type::INT2 => Self::Int(i16::from_sql(ty, raw)?.into()),
            Type::BOOL => Self::Int(bool::from_sql(ty, raw)?.into()),
            Type::TEXT => Self::Text(String::from_sql(ty, raw)?),
            Type::BYTEA => Self::Blob(raw.into()),
            Type::UUID => Self::Blob(Uuid::from_sql(ty, raw)?.as_bytes().into()),
            _ => return Err(Unfit.into()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::INT2, Type::BOOL, Type::TEXT, Type::BYTEA, Type::UUID].contains(ty)
    }
}
