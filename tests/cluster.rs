//! The tests' own PostgreSQL: that it starts, survives a crash, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Durability};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};
use tokio_util::task::TaskTracker;

async fn connect(url: &str) -> Option<Client> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            TaskTracker::new().spawn(connection);
            return Some(client);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

#[tokio::test]
async fn every_database_is_a_new_one() {
    for _ in 0..2 {
        let client = connect(&cluster::database()).await.unwrap();
        client.execute("CREATE TABLE t (x TEXT)", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_committed_survives_a_hard_stop_and_nothing_is_left_in_the_end() {
    let cluster = Cluster::start(Durability::Fsync);
    let url = cluster.database();
    let client = connect(&url).await.unwrap();
    client.batch_execute("CREATE TABLE t (x INT); INSERT INTO t VALUES (1)").await.unwrap();
    cluster.stop_hard();
    assert!(client.execute("SELECT 1", &[]).await.is_err());
    cluster.start_again();
    let client = connect(&url).await.unwrap();
    client.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    cluster.kill_children();
    let client = connect(&url).await.unwrap();
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 2, "{}", cluster.log());
    let folder = cluster.folder().to_path_buf();
    drop(cluster);
    assert!(!folder.exists());
}
