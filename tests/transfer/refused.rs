//! Backups and places that don't do: each is refused with words, and nothing is left behind.

use crate::format::{Record, file, records, tables};
use crate::{Kind, Somewhere, at, cluster, filled, random, unseen};
use innkeeper_store::StoreError;
use innkeeper_store::transfer::{self, Place, TABLES};
use std::collections::BTreeSet;
use std::io::Cursor;
use tokio_postgres::NoTls;
use tokio_util::task::TaskTracker;

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    TaskTracker::new().spawn(connection);
    client
}

/// Runs statements.
pub async fn sql(url: &str, statements: &str) {
    connect(url).await.batch_execute(statements).await.unwrap();
}

async fn tables_of(url: &str) -> BTreeSet<String> {
    let list = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    connect(url).await.query(list, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// What is there where no store is.
async fn nothing_is_at(place: &Place) {
    match place {
        Place::Folder(folder) => {
            let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
            assert_eq!(files.collect::<Vec<_>>(), ["lock"]);
        }
        Place::Database(url) => assert!(tables_of(url.text()).await.is_empty()),
    }
}

#[tokio::test]
async fn every_table_of_a_database_is_taken_along() {
    let database = Somewhere::new(Kind::Postgres);
    drop(database.open().await);
    let Place::Database(url) = &database.place else { panic!("it is one") };
    let mut expected: BTreeSet<String> = TABLES.map(Into::into).into();
    // What can be made again, and what each place has of its own.
    expected.extend(["artifact".to_string(), "schema_version".into()]);
    assert_eq!(tables_of(url.text()).await, expected, "add new tables to TABLES");
}

#[tokio::test]
async fn bad_backups_are_refused_and_leave_nothing() {
    let original = Somewhere::new(Kind::Sqlite);
    drop(filled(random::first_seed(), &original).await);
    let good = original.backup().await;
    let with = |change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = records(&good);
        change(&mut records);
        file(&records)
    };
    let flipped = |place: usize| {
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        bytes
    };
    let of_schema = |schema: u64| {
        with(&|records| {
            let mut header: serde_json::Value = serde_json::from_slice(&records[0].1).unwrap();
            header["schema"] = schema.into();
            records[0].1 = header.to_string().into_bytes();
        })
    };
    let row = |content: &[u8]| {
        with(&|records| {
            let first = records.iter().position(|(kind, _)| *kind == b'r').unwrap();
            records[first].1 = content.into();
        })
    };
    let mut bad = vec![
        (good[..good.len() - 1].to_vec(), "cut off"),
        (good[..good.len() / 2].to_vec(), "cut off"),
        (good[..30].to_vec(), "cut off"),
        ([&good[..], b"x"].concat(), "follows"),
        (b"PK\x03\x04 and so on, for a while".to_vec(), "no backup"),
        (Vec::new(), "no backup"),
        (b"innkeeper backup 2\n".to_vec(), "format `2`"),
        (of_schema(99), "version 99"),
        (of_schema(0), "version 0"),
        // Whole, but not what an Innkeeper makes.
        (with(&|records| records.truncate(5)), "cut off"),
        (with(&|records| records[1].1 = br#"{"table": "pg_class", "columns": ["a"]}"#.into()), "pg_class"),
        (with(&|records| records[1].1 = br#"{"table": "tenant", "columns": ["a"]}"#.into()), "columns"),
        (with(&|records| records.swap(0, 1)), "out of order"),
        (with(&|records| records.insert(2, (b'r', vec![9]))), "damaged"),
        (with(&|records| *records.last_mut().unwrap() = (b'e', br#"{"rows": 1}"#.into())), "damaged"),
        // As many rows as its end says.
        (row(&[0, 0, 0]), "too few or too many"),
        (row(&[3, 0, 0, 0, 0, 3, 0, 0, 0, 0]), "digest"),
    ];
    for at in [0, 17, 40, good.len() / 3, good.len() / 2, good.len() - 40, good.len() - 1] {
        bad.push((flipped(at), if at < 19 { "backup" } else { "" }));
    }
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let target = Somewhere::new(kind);
        for (bytes, words) in &bad {
            let error = target.restore(bytes).await.unwrap_err();
            // It is the backup's fault, and not the host's.
            assert!(matches!(error, StoreError::Invalid(_) | StoreError::Conflict(_)), "{error:?}");
            assert!(error.to_string().contains(words), "{words}: {error}");
            nothing_is_at(&target.place).await;
        }
        target.restore(&good).await.unwrap();
        assert_eq!(tables(&target.backup().await), tables(&good));
        // Now there is a store.
        let error = target.restore(&good).await.unwrap_err().to_string();
        assert!(error.contains("already"), "{error}");
        assert_eq!(tables(&target.backup().await), tables(&good));
    }
}

#[tokio::test]
async fn there_is_no_backup_of_nothing() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let nothing = Somewhere::new(kind);
        let error =
            transfer::backup(&nothing.place, at(0), Vec::new(), unseen()).await.unwrap_err().to_string();
        assert!(error.starts_with("there is no store in "), "{error}");
    }
    // A database that isn't there isn't without a store.
    let nowhere: Place = "postgres://a@127.0.0.1:1/b".parse().unwrap();
    let error = transfer::backup(&nowhere, at(0), Vec::new(), unseen()).await.unwrap_err().to_string();
    assert!(error.contains("unavailable"), "{error}");
}

/// A schema that has no rows yet, of whatever version, is no store.
#[tokio::test]
async fn an_empty_schema_can_be_restored_into() {
    let original = Somewhere::new(Kind::Sqlite);
    drop(filled(random::first_seed(), &original).await);
    let good = original.backup().await;
    let target = Somewhere::new(Kind::Postgres);
    drop(target.open().await);
    target.restore(&good).await.unwrap();
    assert_eq!(tables(&target.backup().await), tables(&good));
}

/// That is not the backup's fault, and has a remedy.
#[tokio::test]
async fn a_user_that_may_create_nothing_is_told_what_it_lacks() {
    let original = Somewhere::new(Kind::Sqlite);
    drop(original.open().await);
    let good = original.backup().await;
    let url = cluster::database();
    sql(&url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE visitor LOGIN").await;
    let place: Place = url.replace("//innkeeper@", "//visitor@").parse().unwrap();
    let target = Somewhere { place, _folder: None };
    let error = target.restore(&good).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(why) if why.contains("GRANT USAGE, CREATE")),
        "{error:?}"
    );
    nothing_is_at(&target.place).await;
}

/// A database of the first schema, and what becomes of its backup.
#[tokio::test]
async fn an_older_schema_is_brought_to_this_one() {
    let url = cluster::database();
    sql(
        &url,
        &format!(
            "{}; CREATE TABLE schema_version (version BIGINT NOT NULL); INSERT INTO schema_version VALUES (1);
             INSERT INTO tenant VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'default', 1);
             INSERT INTO task SELECT id, id, 'work', 1, 0, 1 FROM tenant;
             INSERT INTO task_revision SELECT id, 1, '\\x00', '{{}}', NULL, 1 FROM tenant",
            include_str!("../../host/store/migrations/postgres/0001_initial.sql")
        ),
    )
    .await;
    let place: Place = url.parse().unwrap();
    let original = Somewhere { place, _folder: None };
    let old = original.backup().await;
    assert!(!tables(&old).contains_key("upload"), "there was none");
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let target = Somewhere::new(kind);
        transfer::restore(Cursor::new(old.clone()), &target.place, unseen()).await.unwrap();
        drop(target.open().await);
        let new = tables(&target.backup().await);
        assert_eq!(new["task_revision"], tables(&old)["task_revision"]);
        assert!(new["run"].0.as_array().unwrap().contains(&"requires".into()));
        assert_eq!(new["upload"].1, [""; 0]);
    }
}
