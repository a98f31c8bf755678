//! Calls of a shared database that nobody waits for any more.

use innkeeper_store::postgres::PostgresStore;
use innkeeper_store::{HostStore, TenantStore};
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_util::task::TaskTracker;

#[tokio::test]
async fn what_nobody_waits_for_is_not_in_the_way_of_others() {
    let url = crate::cluster::database();
    let store = PostgresStore::open(&url.parse().unwrap()).await.unwrap();
    let (other, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    TaskTracker::new().spawn(connection);
    other.batch_execute("BEGIN; LOCK TABLE token IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // More than there are connections, cut off while their statements wait for the lock.
    let calls = futures::future::join_all((0..20).map(|_| store.token_find([1; 32])));
    assert!(timeout(Duration::from_millis(300), calls).await.is_err());
    // Sooner than those give up.
    let hosts = timeout(Duration::from_secs(3), store.host_list()).await;
    assert_eq!(hosts.expect("a free connection"), Ok(vec![]));
}
