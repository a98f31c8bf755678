//! What is wrong with a shared database, or with those who use it, and stays without harm to the others.

use innkeeper_domain::Timestamp;
use innkeeper_domain::trigger::OverlapPolicy;
use innkeeper_store::postgres::PostgresStore;
use innkeeper_store::{HostStore, StoreError, TokenStore, TriggerStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_util::task::TaskTracker;

pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    TaskTracker::new().spawn(connection);
    client
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_in_the_way_of_others() {
    let url = crate::cluster::database();
    let store = PostgresStore::open(&url.parse().unwrap()).await.unwrap();
    let other = connect(&url).await;
    other.batch_execute("BEGIN; LOCK TABLE token IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // More than there are connections, cut off while their statements wait for the lock.
    let calls = futures::future::join_all((0..20).map(|_| store.token_find([1; 32])));
    assert!(timeout(Duration::from_millis(300), calls).await.is_err());
    // Sooner than those give up.
    let hosts = timeout(Duration::from_secs(3), store.host_list()).await;
    assert_eq!(hosts.expect("a free connection"), Ok(vec![]));
}

#[tokio::test]
async fn a_trigger_that_cannot_be_read_does_not_stop_the_others() {
    let url = crate::cluster::database();
    let store = Arc::new(PostgresStore::open(&url.parse().unwrap()).await.unwrap());
    let f = crate::conformance::Fixture::new(store.clone()).await;
    let (bad, good) = (f.trigger(OverlapPolicy::Skip).await, f.trigger(OverlapPolicy::Skip).await);
    let database = connect(&url).await;
    let damage = "UPDATE trigger SET spec = '{', next_at = 1, due_at = 1 WHERE id = $1";
    database.execute(damage, &[&bad.0]).await.unwrap();
    assert_eq!(f.due(100).await, [(good, 10)]);
    // It is not what there is to wait for, nor takes the place of others.
    assert_eq!(store.triggers_next().await.unwrap().unwrap().as_second(), 10);
    assert_eq!(f.due(100).await, [(good, 10)]);
    database
        .execute("UPDATE trigger SET spec = (SELECT spec FROM trigger WHERE id = $1)", &[&good.0])
        .await
        .unwrap();
    assert_eq!(f.due(100).await, [(bad, 0), (good, 10)]);
    // Nor when there are as many of them as are taken at once, and more.
    let due = "UPDATE trigger SET next_at = $2, due_at = $2 WHERE id = $1";
    for second in 11..=15i64 {
        let next = f.trigger(OverlapPolicy::Skip).await;
        database.execute(due, &[&next.0, &(second * 1_000_000)]).await.unwrap();
    }
    let mut damaged = vec![bad];
    for _ in 0..10 {
        damaged.push(f.trigger(OverlapPolicy::Skip).await);
    }
    for id in damaged {
        database.execute(damage, &[&id.0]).await.unwrap();
    }
    for _ in 0..3 {
        f.due(100).await;
    }
    assert_eq!(f.due(100).await.len(), 6);
    let some = store.triggers_due(Timestamp::from_second(100).unwrap(), 4).await.unwrap();
    assert_eq!(some.iter().map(|due| due.due.as_second()).collect::<Vec<_>>(), [10, 11, 14, 15]);
}

#[tokio::test]
async fn hosts_of_an_older_version_are_not_left_with_a_schema_that_they_do_not_know() {
    let url = crate::cluster::database();
    let database = connect(&url).await;
    for sql in [
        include_str!("../../host/store/migrations/postgres/0001_initial.sql"),
        include_str!("../../host/store/migrations/postgres/0002_fleet.sql"),
        "CREATE TABLE schema_version (version BIGINT NOT NULL); INSERT INTO schema_version VALUES (2)",
        "INSERT INTO host (id, started_at, lease_until, name)
         VALUES (gen_random_uuid(), 1, 9000000000000000, 'one'), (gen_random_uuid(), 1, 2, 'lost')",
    ] {
        database.batch_execute(sql).await.unwrap();
    }
    let refused = PostgresStore::open(&url.parse().unwrap()).await.err();
    let told = |words: &String| words.contains("(one)") && words.contains("stop all hosts first");
    assert!(matches!(&refused, Some(StoreError::Conflict(words)) if told(words)), "{refused:?}");
    database.batch_execute("UPDATE host SET lease_until = 3").await.unwrap();
    assert!(PostgresStore::open(&url.parse().unwrap()).await.is_ok());
}
