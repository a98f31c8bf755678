//! How many connections there may be, in all and from one address.

use innkeeper_domain::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections that are open. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_origin: HashMap<Origin, usize>,
}

/// Whose the connection is, as far as its address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    V4([u8; 4]),
    /// The network: whoever has one address of it has them all.
    V6([u8; 8]),
}

impl Origin {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    origin: Origin,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("there are {CONNECTIONS_MAX} already")]
    All,
    #[error("there are {CONNECTIONS_PER_ADDRESS_MAX} from its address already")]
    Address,
}

impl Places {
    /// Takes a place for a connection from this address, if there is one.
    pub fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let origin = Origin::of(address);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= CONNECTIONS_MAX {
            return Err(Full::All);
        }
        let own = taken.by_origin.entry(origin).or_default();
        if *own >= CONNECTIONS_PER_ADDRESS_MAX {
            return Err(Full::Address);
        }
        *own += 1;
        taken.all += 1;
        Ok(Place { places: self.clone(), origin })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_origin.get_mut(&self.origin) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_origin.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn one_address_can_take_its_share_and_no_more() {
        let places = Places::default();
        let greedy = IpAddr::from([192, 0, 2, 1]);
        let mut taken: Vec<_> =
            (0..CONNECTIONS_PER_ADDRESS_MAX).map(|_| places.take(greedy).expect("a place")).collect();
        assert_eq!(places.take(greedy).err(), Some(Full::Address));
        // The same address, written otherwise.
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        assert_eq!(places.take(mapped.into()).err(), Some(Full::Address));
        let other = places.take([192, 0, 2, 2].into()).expect("others have theirs");
        taken.pop();
        taken.push(places.take(greedy).expect("the one given back"));
        drop((taken, other));
        assert!(places.0.lock().expect("whole").by_origin.is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin() {
        let places = Places::default();
        let address =
            |network: u16, host: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
        let taken: Vec<_> =
            (0..CONNECTIONS_PER_ADDRESS_MAX as u16).map(|host| places.take(address(1, host))).collect();
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(places.take(address(1, 999)).err(), Some(Full::Address));
        assert!(places.take(address(2, 1)).is_ok());
    }

    #[test]
    fn all_together_are_bounded() {
        let places = Places::default();
        let address = |n: usize| IpAddr::from([10, 0, 0, u8::try_from(n / 100).expect("few")]);
        let taken: Vec<_> = (0..CONNECTIONS_MAX).map(|n| places.take(address(n)).expect("a place")).collect();
        assert_eq!(places.take([192, 0, 2, 9].into()).err(), Some(Full::All));
        drop(taken);
        assert!(places.take([192, 0, 2, 9].into()).is_ok());
    }
}
