//! A bug that both the simulation and the chaos test must find: what should be one commit is two.

use innkeeper_domain::firing::Firing;
use innkeeper_store::Advance;

/// Decisions in two commits: the triggers go on, and then their runs are inserted. The last ones are left as they are.
pub fn in_two(advances: Vec<Advance>) -> (Vec<Advance>, Vec<Advance>) {
    let only_next = |advance: &Advance| match advance.firing.next {
        None => advance.clone(),
        Some(_) => Advance {
            firing: Firing { runs: Vec::new(), ..advance.firing.clone() },
            run_ids: Vec::new(),
            ..advance.clone()
        },
    };
    let first = advances.iter().map(only_next).collect();
    let only_runs = |advance: Advance| {
        let due = advance.firing.next?.nominal;
        Some(Advance { due, firing: Firing { skips: Vec::new(), ..advance.firing }, ..advance })
    };
    (first, advances.into_iter().filter_map(only_runs).collect())
}
