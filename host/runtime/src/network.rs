//! Networks: which addresses guests may reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// Addresses that begin alike: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network; write an address and how many bits of it count: 10.0.0.0/8, ::1/128")]
pub struct NetworkError(String);

/// What guests can't reach unless the operator opens it: everything but public unicast addresses.
const CLOSED: &[&str] = &[
    "0.0.0.0/8",       // this network
    "10.0.0.0/8",      // private
    "100.64.0.0/10",   // carrier-grade NAT
    "127.0.0.0/8",     // loopback
    "169.254.0.0/16",  // link-local, cloud metadata
    "172.16.0.0/12",   // private
    "192.0.0.0/24",    // protocol assignments
    "192.0.2.0/24",    // documentation
    "192.168.0.0/16",  // private
    "198.18.0.0/15",   // benchmarks
    "198.51.100.0/24", // documentation
    "203.0.113.0/24",  // documentation
    "224.0.0.0/3",     // multicast, reserved, broadcast
    "::/96",           // unspecified, loopback, IPv4-compatible
    "64:ff9b:1::/48",  // local NAT64
    "100::/64",        // discard
    "2001::/23",       // protocol assignments, Teredo among them
    "2001:db8::/32",   // documentation
    "fc00::/7",        // unique local
    "fe80::/10",       // link-local
    "fec0::/10",       // site-local
    "ff00::/8",        // multicast
];

impl Network {
    /// Whether an address is of this network. IPv4 addresses in IPv6 clothes count as what they wrap.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, unwrap(address)) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same(own.to_bits().into(), other.to_bits().into(), self.prefix, 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), self.prefix, 128),
            _ => false,
        }
    }
}

fn same(one: u128, other: u128, prefix: u8, bits: u32) -> bool {
    (one ^ other).checked_shr(bits - u32::from(prefix)).unwrap_or(0) == 0
}

/// The IPv4 address that an IPv6 address stands for (mapped, NAT64, 6to4), else the address itself.
fn unwrap(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let segments = six.segments();
    let four = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

/// Whether guests may reach an address: it is public, or in one of the networks that were opened.
pub(crate) fn is_open(address: IpAddr, open: &[Network]) -> bool {
    let closed = CLOSED
        .iter()
        .filter_map(|text| text.parse::<Network>().ok())
        .any(|network| network.contains(address));
    !closed || open.iter().any(|network| network.contains(address))
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let fail = || NetworkError(text.chars().take(80).collect());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| fail())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| fail())?;
        if prefix > bits { Err(fail()) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str, networks: &[&str]) -> bool {
        let networks: Vec<Network> = networks.iter().map(|n| n.parse().unwrap()).collect();
        is_open(address.parse().unwrap(), &networks)
    }

    #[test]
    fn only_public_addresses_are_open() {
        assert!(CLOSED.iter().all(|text| text.parse::<Network>().is_ok()));
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1"] {
            assert!(open(public, &[]), "{public}");
        }
        for closed in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:1::1",
        ] {
            assert!(!open(closed, &[]), "{closed}");
        }
    }

    #[test]
    fn the_operator_opens_networks() {
        assert!(open("127.0.0.1", &["127.0.0.0/8"]) && open("::ffff:127.0.0.1", &["127.0.0.0/8"]));
        assert!(!open("10.0.0.1", &["127.0.0.0/8"]));
        assert!(open("::1", &["::1"]) && open("10.0.0.1", &["0.0.0.0/0"]));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
