//! How many connections each address has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections by address.
#[derive(Clone)]
pub(crate) struct Addresses {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

/// A connection's place, given up when dropped.
pub(crate) struct Place {
    /// `None` for one that is not counted.
    counted: Option<(Addresses, IpAddr)>,
}

impl Addresses {
    /// Lets so many connections in from each address.
    pub(crate) fn with_max(max: usize) -> Addresses {
        let counts = Arc::default();
        Addresses { counts, max }
    }

    /// A place for a connection from this address; `None` if there is none left. Loopback always
    /// has one.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Some(Place { counted: None });
        }
        let network = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(&network).copied().unwrap_or(0) >= self.max {
            return None;
        }
        *counts.entry(network).or_default() += 1;
        let counted = Some((self.clone(), network));
        Some(Place { counted })
    }
}

/// Who has one IPv6 address mostly has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((addresses, network)) = &self.counted else {
            return;
        };
        let counts = addresses.counts.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(network)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::Addresses;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let addresses = Addresses::with_max(2);
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        ] {
            let (first, second) = (enter(one), enter(same));
            assert!(first.is_some() && second.is_some());
            assert!(enter(one).is_none() && enter(same).is_none());
            assert!(enter(other).is_some());
            drop(first);
            assert!(enter(one).is_some());
        }
        assert!(
            addresses.counts.lock().unwrap().is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn loopback_always_has_a_place() {
        let addresses = Addresses::with_max(0);
        for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(addresses.enter(text.parse().unwrap()).is_some());
        }
        assert!(addresses.enter("192.0.2.1".parse().unwrap()).is_none());
        assert!(
            addresses.counts.lock().unwrap().is_empty(),
            "nobody is remembered who is not let in"
        );
    }
}
