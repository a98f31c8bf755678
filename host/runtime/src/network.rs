//! Networks: which addresses guests may reach.

use innkeeper_domain::network::{NetworkName, NetworkSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::LazyLock;

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

/// What guests can't reach unless it is opened: everything but public unicast addresses. Where two have an address, the
/// smaller one does. After IANA's registries of special-purpose addresses, and what clouds document.
const CLOSED: &[(&str, NetworkName)] = &[
    ("0.0.0.0/8", NetworkName::Unspecified),
    ("10.0.0.0/8", NetworkName::Private),
    ("100.64.0.0/10", NetworkName::Cgnat),
    ("100.100.100.200/32", NetworkName::Metadata), // Alibaba
    ("127.0.0.0/8", NetworkName::Loopback),
    ("168.63.129.16/32", NetworkName::Metadata), // Azure
    ("169.254.0.0/16", NetworkName::LinkLocal),
    ("169.254.42.42/32", NetworkName::Metadata),   // Scaleway
    ("169.254.169.254/32", NetworkName::Metadata), // AWS, Azure, Google and most others
    ("169.254.170.2/32", NetworkName::Metadata),   // AWS ECS
    ("169.254.170.23/32", NetworkName::Metadata),  // AWS EKS
    ("172.16.0.0/12", NetworkName::Private),
    ("192.0.0.0/24", NetworkName::Protocol),
    ("192.0.0.192/32", NetworkName::Metadata), // Oracle
    ("192.0.2.0/24", NetworkName::Documentation),
    ("192.88.99.0/24", NetworkName::SixToFour),
    ("192.168.0.0/16", NetworkName::Private),
    ("198.18.0.0/15", NetworkName::Benchmarking),
    ("198.51.100.0/24", NetworkName::Documentation),
    ("203.0.113.0/24", NetworkName::Documentation),
    ("224.0.0.0/4", NetworkName::Multicast),
    ("240.0.0.0/4", NetworkName::Reserved),
    ("255.255.255.255/32", NetworkName::Broadcast),
    // All but 2000::/3, which is what has been given out.
    ("::/3", NetworkName::Reserved),
    ("4000::/2", NetworkName::Reserved),
    ("8000::/1", NetworkName::Reserved),
    ("::/96", NetworkName::Compatible),
    ("::/128", NetworkName::Unspecified),
    ("::1/128", NetworkName::Loopback),
    ("::ffff:0:0/96", NetworkName::Mapped),
    ("::ffff:0:0:0/96", NetworkName::Translated),
    ("64:ff9b:1::/48", NetworkName::LocalNat64),
    ("100::/64", NetworkName::Discard),
    ("2001::/23", NetworkName::Protocol),
    ("2001::/32", NetworkName::Teredo),
    ("2001:2::/48", NetworkName::Benchmarking),
    ("2001:db8::/32", NetworkName::Documentation),
    ("2002::/16", NetworkName::SixToFour),
    ("3fff::/20", NetworkName::Documentation),
    ("5f00::/16", NetworkName::SegmentRouting),
    ("fc00::/7", NetworkName::UniqueLocal),
    ("fd00:42::42/128", NetworkName::Metadata),   // Scaleway
    ("fd00:ec2::23/128", NetworkName::Metadata),  // AWS EKS
    ("fd00:ec2::254/128", NetworkName::Metadata), // AWS
    ("fd20:ce::254/128", NetworkName::Metadata),  // Google
    ("fe80::/10", NetworkName::LinkLocal),
    ("fe80::a9fe:a9fe/128", NetworkName::Metadata), // OpenStack
    ("fec0::/10", NetworkName::SiteLocal),
    ("ff00::/8", NetworkName::Multicast),
];

/// The smallest first.
static BY_SIZE: LazyLock<Vec<(Network, NetworkName)>> = LazyLock::new(|| {
    let known = CLOSED.iter().filter_map(|(text, name)| Some((text.parse::<Network>().ok()?, *name)));
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix));
    known
});

/// What is open to a guest beside public addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open<'a> {
    /// For all tenants: these addresses, whatever network they are of.
    pub networks: &'a [Network],
    /// For the guest's tenant.
    pub names: NetworkSet,
}

/// An address is of a closed network. It is the one that was asked about, or the IPv4 address within that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub address: IpAddr,
    pub name: NetworkName,
}

impl Open<'_> {
    /// Whether a guest may reach an address. An IPv6 form of an IPv4 address must be open as such, and then that as well.
    pub fn check(self, address: IpAddr) -> Result<(), Closed> {
        let is_nat64 = |six: Ipv6Addr| matches!(six.segments(), [0x64, 0xff9b, 0, 0, 0, 0, _, _]);
        match address {
            // It is another way to what is within, whoever opens it.
            IpAddr::V6(six) if is_nat64(six) => {}
            _ => self.check_form(address)?,
        }
        within(address).map_or(Ok(()), |four| self.check_form(four.into()))
    }

    fn check_form(self, address: IpAddr) -> Result<(), Closed> {
        let closed = BY_SIZE.iter().find(|(network, _)| network.contains(address));
        match closed {
            Some((_, name)) if !self.names.has(*name) => {
                let is_open = self.networks.iter().any(|network| network.contains(address));
                if is_open { Ok(()) } else { Err(Closed { address, name: *name }) }
            }
            _ => Ok(()),
        }
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does.
fn within(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(six) = address else { return None };
    let four = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match six.segments() {
        // Unspecified and loopback.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Compatible, mapped, translated, NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => four(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        // Teredo's client, upside down.
        [0x2001, 0, .., high, low] => four(!high, !low),
        _ => None,
    }
}

impl Network {
    /// Whether an address is of this network. IPv4 addresses aren't the same as their IPv6 forms.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
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

    fn closed(address: &str, networks: &[&str], names: &str) -> Option<NetworkName> {
        let networks: Vec<Network> = networks.iter().map(|n| n.parse().unwrap()).collect();
        let open = Open { networks: &networks, names: names.parse().unwrap() };
        open.check(address.parse().unwrap()).err().map(|closed| closed.name)
    }

    const OF: &[(&str, NetworkName)] = &[
        ("0.0.0.0", NetworkName::Unspecified),
        ("0.1.2.3", NetworkName::Unspecified),
        ("10.1.2.3", NetworkName::Private),
        ("100.100.0.1", NetworkName::Cgnat),
        ("100.100.100.200", NetworkName::Metadata),
        ("127.255.0.1", NetworkName::Loopback),
        ("168.63.129.16", NetworkName::Metadata),
        ("169.254.1.1", NetworkName::LinkLocal),
        ("169.254.169.254", NetworkName::Metadata),
        ("169.254.170.2", NetworkName::Metadata),
        ("172.31.0.1", NetworkName::Private),
        ("192.0.0.8", NetworkName::Protocol),
        ("192.88.99.1", NetworkName::SixToFour),
        ("192.168.1.1", NetworkName::Private),
        ("198.19.255.255", NetworkName::Benchmarking),
        ("203.0.113.9", NetworkName::Documentation),
        ("224.0.0.1", NetworkName::Multicast),
        ("239.255.255.255", NetworkName::Multicast),
        ("240.0.0.1", NetworkName::Reserved),
        ("255.255.255.255", NetworkName::Broadcast),
        ("::", NetworkName::Unspecified),
        ("::1", NetworkName::Loopback),
        ("::2", NetworkName::Compatible),
        ("::7f00:1", NetworkName::Compatible),
        ("::ffff:127.0.0.1", NetworkName::Mapped),
        ("::ffff:1.1.1.1", NetworkName::Mapped),
        ("::ffff:0:1.1.1.1", NetworkName::Translated),
        ("64:ff9b::10.0.0.1", NetworkName::Private),
        ("64:ff9b::7f00:1", NetworkName::Loopback),
        ("64:ff9b::a9fe:a9fe", NetworkName::Metadata),
        ("64:ff9b:1::1.1.1.1", NetworkName::LocalNat64),
        ("64:ff9b:0:1::1.1.1.1", NetworkName::Reserved),
        ("100::1", NetworkName::Discard),
        ("200::1", NetworkName::Reserved),
        ("2001:0:1::1", NetworkName::Teredo),
        ("2001:2::1", NetworkName::Benchmarking),
        ("2001:20::1", NetworkName::Protocol),
        ("2001:db8::1", NetworkName::Documentation),
        ("2002:7f00:1::", NetworkName::SixToFour),
        ("2002:101:101::1", NetworkName::SixToFour),
        ("3fff:fff::1", NetworkName::Documentation),
        ("4000::1", NetworkName::Reserved),
        ("5f00::1", NetworkName::SegmentRouting),
        ("fc00::1", NetworkName::UniqueLocal),
        ("fd00:ec2::254", NetworkName::Metadata),
        ("fe80::1", NetworkName::LinkLocal),
        ("fec0::1", NetworkName::SiteLocal),
        ("ff02::1", NetworkName::Multicast),
    ];

    #[test]
    fn only_public_addresses_are_open() {
        assert_eq!(BY_SIZE.len(), CLOSED.len(), "each can be read");
        for public in
            ["1.1.1.1", "93.184.216.34", "169.253.1.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "3fff:1000::1"]
        {
            assert_eq!(closed(public, &[], "none"), None, "{public}");
        }
        for (address, name) in OF {
            assert_eq!(closed(address, &[], "none"), Some(*name), "{address}");
        }
    }

    /// Each name opens its own network, or the form, and each network is opened by no other.
    #[test]
    fn a_name_opens_its_network_alone() {
        for (address, name) in OF {
            for opened in NetworkName::ALL {
                let then = closed(address, &[], opened.as_str());
                assert!(opened == name || then == Some(*name), "{opened} and {address}: {then:?}");
                let form = within(address.parse().unwrap()).is_some();
                assert!(
                    opened != name || then.is_none() || form && then != Some(*name),
                    "{address}: {then:?}"
                );
            }
        }
    }

    #[test]
    fn a_form_is_open_when_it_and_what_is_within_are() {
        for (address, form, inner) in [
            ("::ffff:127.0.0.1", "mapped", NetworkName::Loopback),
            ("2002:7f00:1::", "6to4", NetworkName::Loopback),
            ("::ffff:0:10.0.0.1", "translated", NetworkName::Private),
            ("::169.254.169.254", "compatible", NetworkName::Metadata),
            ("2001:0:1::80ff:fffe", "teredo", NetworkName::Loopback),
        ] {
            assert_eq!(closed(address, &[], form), Some(inner), "{address}");
            assert_eq!(closed(address, &[], &format!("{form},{inner}")), None, "{address}");
            assert!(closed(address, &[], inner.as_str()).is_some(), "{address}");
        }
        assert_eq!(closed("::ffff:1.1.1.1", &[], "mapped"), None);
        assert_eq!(closed("64:ff9b::7f00:1", &[], "loopback"), None);
    }

    #[test]
    fn the_operator_opens_addresses() {
        assert_eq!(closed("127.0.0.1", &["127.0.0.0/8"], "none"), None);
        assert_eq!(closed("::ffff:127.0.0.1", &["127.0.0.0/8"], "none"), Some(NetworkName::Mapped));
        assert_eq!(closed("::ffff:127.0.0.1", &["::ffff:0:0/96"], "none"), Some(NetworkName::Loopback));
        assert_eq!(closed("::ffff:127.0.0.1", &["::ffff:0:0/96"], "loopback"), None);
        assert_eq!(closed("10.0.0.1", &["127.0.0.0/8"], "none"), Some(NetworkName::Private));
        assert_eq!(closed("::1", &["::1"], "none"), None);
        assert_eq!(closed("10.0.0.1", &["0.0.0.0/0"], "none"), None);
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
