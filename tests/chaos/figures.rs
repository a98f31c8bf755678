//! What campaigns have been through, in figures.

use crate::campaign::Report;
use crate::history::Answer;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Figures {
    took: Duration,
    campaigns: u64,
    acknowledged: usize,
    refused: usize,
    unknown: usize,
    runs: usize,
    attempts: usize,
    triggers: usize,
    faults: BTreeMap<&'static str, u64>,
    pub violations: usize,
    takeovers: Vec<Duration>,
    answers_again: Vec<Duration>,
}

impl Figures {
    pub fn add(&mut self, report: &Report) {
        self.took += report.took;
        self.campaigns += 1;
        for call in &report.history.starts {
            match call.answer {
                Answer::Acknowledged(_) => self.acknowledged += 1,
                Answer::Refused(_) => self.refused += 1,
                Answer::Unknown(_) => self.unknown += 1,
            }
        }
        self.runs += report.state.runs.len();
        self.attempts += report.state.runs.iter().map(|run| run.attempts.len()).sum::<usize>();
        self.triggers += report.state.triggers.len();
        for (kind, count) in &report.done.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.violations += report.violations.len();
        self.takeovers.extend(&report.takeovers);
        self.answers_again.extend(&report.done.answers_again);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
        write!(f, "{:.0} s, {} campaigns\n  ", self.took.as_secs_f32(), self.campaigns)?;
        writeln!(f, "faults: {}", faults.join(", "))?;
        write!(f, "  starts: {} acknowledged, {} refused, ", self.acknowledged, self.refused)?;
        writeln!(f, "{} without an answer", self.unknown)?;
        writeln!(f, "  {} triggers, {} runs, {} attempts", self.triggers, self.runs, self.attempts)?;
        writeln!(f, "  violations: {}", self.violations)?;
        writeln!(f, "  runs of a lost host taken up again after: {}", spread(&self.takeovers))?;
        write!(f, "  answers again after: {}", spread(&self.answers_again))
    }
}

/// The least, the middle and the most.
fn spread(of: &[Duration]) -> String {
    let mut sorted = of.to_vec();
    sorted.sort();
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(min), Some(median), Some(max)) => {
            let seconds = |duration: &Duration| duration.as_secs_f32();
            format!(
                "min {:.2} s, median {:.2} s, max {:.2} s ({} times)",
                seconds(min),
                seconds(median),
                seconds(max),
                sorted.len()
            )
        }
        _ => "never".into(),
    }
}
