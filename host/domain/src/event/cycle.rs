//! Loops of tasks that come after each other.

use crate::name::Name;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A task that comes after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub after: Name,
    pub task: Name,
}

/// A task that would come after itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tasks would start each other for ever: {}; leave one of them out, or let an event start it",
    path.iter().map(Name::as_str).collect::<Vec<_>>().join(" -> ")
)]
pub struct AfterLoop {
    /// From a task to itself, by what comes after what.
    pub path: Vec<Name>,
}

/// Refuses a new edge that closes a loop with those that there are.
pub fn find_loop(edges: &[Edge], new: &Edge) -> Result<(), AfterLoop> {
    let mut following: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    edges.iter().for_each(|edge| following.entry(&edge.after).or_default().push(&edge.task));
    // The shortest way from what comes after back to what it would come after.
    let mut came_from: BTreeMap<&Name, &Name> = BTreeMap::new();
    let (mut seen, mut next) = (BTreeSet::from([&new.task]), VecDeque::from([&new.task]));
    while let Some(task) = next.pop_front() {
        if *task == new.after {
            let mut path = vec![task.clone()];
            let mut at = task;
            while let Some(before) = came_from.get(at) {
                path.push((*before).clone());
                at = before;
            }
            path.push(new.after.clone());
            path.reverse();
            return Err(AfterLoop { path });
        }
        for task_after in following.get(task).into_iter().flatten() {
            if seen.insert(task_after) {
                came_from.insert(task_after, task);
                next.push_back(task_after);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(text: &str) -> Edge {
        let (after, task) = text.split_once('>').unwrap();
        Edge { after: after.parse().unwrap(), task: task.parse().unwrap() }
    }

    fn found(edges: &str, new: &str) -> Result<(), String> {
        let edges: Vec<Edge> = edges.split_whitespace().map(edge).collect();
        find_loop(&edges, &edge(new))
            .map_err(|e| e.path.iter().map(Name::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn loops_are_told_by_their_path() {
        assert_eq!(found("a>b b>c", "c>d"), Ok(()));
        assert_eq!(found("a>b b>c", "a>c"), Ok(()), "two ways are no loop");
        assert_eq!(found("a>b b>c", "c>a"), Err("c a b c".into()));
        assert_eq!(found("", "a>a"), Err("a a".into()));
        assert_eq!(found("a>b b>c c>d b>d", "d>a"), Err("d a b d".into()), "the shortest");
        assert_eq!(found("x>y y>z", "a>x"), Ok(()));
    }
}
