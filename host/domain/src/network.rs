//! Names of the networks that are closed to guests, and sets of them.

use crate::word::{UnknownWord, words};
use std::fmt;
use std::str::FromStr;

/// A kind of addresses that guests can't reach unless it is opened. Each closed address is of one kind, or an IPv6
/// form of an IPv4 address; then the form must be open, and the kind of what is within as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
// The numbers are kept as bits of a quota: never to be changed, nor used again.
pub enum NetworkName {
    /// The host itself.
    Loopback = 0,
    /// `10.0.0.0/8` and the like.
    Private = 1,
    /// What the next router doesn't pass on.
    LinkLocal = 2,
    /// Where clouds tell a machine its credentials, wherever these addresses are.
    Metadata = 3,
    /// Behind a carrier's NAT.
    Cgnat = 4,
    /// IPv6's private addresses.
    UniqueLocal = 5,
    /// What was that before.
    SiteLocal = 6,
    /// Many at once.
    Multicast = 7,
    /// All at once.
    Broadcast = 8,
    /// No address at all, which systems take for themselves.
    Unspecified = 9,
    /// For examples.
    Documentation = 10,
    /// For measurements.
    Benchmarking = 11,
    /// For protocols' own purposes.
    Protocol = 12,
    /// What goes there is lost on purpose.
    Discard = 13,
    /// Routers' instructions.
    SegmentRouting = 14,
    /// Not given to anybody.
    Reserved = 15,
    /// `::ffff:a.b.c.d`.
    Mapped = 16,
    /// `::a.b.c.d`.
    Compatible = 17,
    /// `::ffff:0:a.b.c.d`.
    Translated = 18,
    /// `2002:aabb:ccdd::`, and the relays to it.
    SixToFour = 19,
    /// A tunnel to an IPv4 address.
    Teredo = 20,
    /// A translation to IPv4 addresses that only its operator knows.
    LocalNat64 = 21,
}

words!(
    NetworkName,
    "a network that is closed to tasks",
    Loopback = "loopback",
    Private = "private",
    LinkLocal = "link-local",
    Metadata = "metadata",
    Cgnat = "cgnat",
    UniqueLocal = "unique-local",
    SiteLocal = "site-local",
    Multicast = "multicast",
    Broadcast = "broadcast",
    Unspecified = "unspecified",
    Documentation = "documentation",
    Benchmarking = "benchmarking",
    Protocol = "protocol",
    Discard = "discard",
    SegmentRouting = "segment-routing",
    Reserved = "reserved",
    Mapped = "mapped",
    Compatible = "compatible",
    Translated = "translated",
    SixToFour = "6to4",
    Teredo = "teredo",
    LocalNat64 = "local-nat64"
);

/// Some of them. As a number: the bit of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkSet(u64);

/// A number with bits that stand for no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bits} stands for no set of networks; a sum of these does:{}", known())]
pub struct UnknownNetworks {
    bits: u64,
}

fn known() -> String {
    NetworkName::ALL.iter().map(|name| format!(" {name}={}", name.bit())).collect()
}

impl NetworkName {
    fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

impl NetworkSet {
    /// The set that a number is.
    pub fn from_bits(bits: u64) -> Result<Self, UnknownNetworks> {
        let known = Self::from_known_bits(bits);
        if known.0 == bits { Ok(known) } else { Err(UnknownNetworks { bits }) }
    }

    /// The set that a number is, without those that only another version of the host knows.
    pub fn from_known_bits(bits: u64) -> Self {
        NetworkName::ALL.iter().copied().filter(|name| bits & name.bit() != 0).collect()
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    pub fn has(self, name: NetworkName) -> bool {
        self.0 & name.bit() != 0
    }

    /// The set with one more.
    pub fn with(self, name: NetworkName) -> Self {
        Self(self.0 | name.bit())
    }

    pub fn names(self) -> impl Iterator<Item = NetworkName> {
        NetworkName::ALL.iter().copied().filter(move |name| self.has(*name))
    }
}

impl FromIterator<NetworkName> for NetworkSet {
    fn from_iter<T: IntoIterator<Item = NetworkName>>(names: T) -> Self {
        names.into_iter().fold(Self::default(), Self::with)
    }
}

/// `loopback,private`, or `none`.
impl fmt::Display for NetworkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().map(NetworkName::as_str).collect();
        f.pad(&if names.is_empty() { "none".into() } else { names.join(",") })
    }
}

impl FromStr for NetworkSet {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        if text == "none" { Ok(Self::default()) } else { text.split(',').map(str::parse).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_a_number_and_words() {
        let set: NetworkSet = "private,loopback".parse().unwrap();
        assert_eq!((set.bits(), set.to_string().as_str()), (0b11, "loopback,private"));
        assert!(set.has(NetworkName::Private) && !set.has(NetworkName::Metadata));
        assert_eq!(set.with(NetworkName::Metadata).names().count(), 3);
        assert_eq!(
            (NetworkSet::default().to_string().as_str(), "none".parse()),
            ("none", Ok(NetworkSet::default()))
        );
        let all: NetworkSet = NetworkName::ALL.iter().copied().collect();
        assert_eq!((NetworkSet::from_bits(all.bits()), all.to_string().parse()), (Ok(all), Ok(all)));
        assert_eq!(all.names().count(), NetworkName::ALL.len());
    }

    #[test]
    fn what_is_no_set_says_what_would_be() {
        for bad in ["", "loopback,", "privat", "loopback, private", "none,loopback"] {
            assert!(bad.parse::<NetworkSet>().unwrap_err().to_string().contains("6to4"), "{bad}");
        }
        let unknown = NetworkSet::from_bits(1 << 40 | 2).unwrap_err().to_string();
        assert!(unknown.contains("1099511627778") && unknown.contains(" private=2"), "{unknown}");
        assert_eq!(NetworkSet::from_known_bits(1 << 40 | 2).to_string(), "private");
    }
}
