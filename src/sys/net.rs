//! Client addresses: networks that an operator names, and which addresses count as one. Pure.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR form; a single address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address; bits past `prefix` are 0.
    address: IpAddr,
    /// 0 to 32 for IPv4, 0 to 128 for IPv6.
    prefix: u8,
}

impl Network {
    /// Whether `address` lies in the network; an IPv4-mapped IPv6 address is taken for the IPv4 address in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// Why a text is not a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The part before the slash is not an IP address.
    #[error("not an IP address, or a network such as 10.0.0.0/8 or fd00::/8")]
    Address,
    /// The part after the slash is not a number, or too large.
    #[error("the prefix length has to be a number from 0 to {max}")]
    Prefix {
        /// The largest prefix length of this family.
        max: u8,
    },
    /// There are bits past the prefix: most likely a mistake.
    #[error("the address has bits past the prefix; the network is {network}")]
    HostBits {
        /// The network that contains the address.
        network: Network,
    },
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let max = bits(address);
        let prefix = match prefix {
            None => max,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|&prefix| prefix <= max).ok_or(NetworkError::Prefix { max })?
            }
            Some(_) => return Err(NetworkError::Prefix { max }),
        };
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits { network }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The network of one IPv6 client, which has all of its addresses to choose from.
const CLIENT_BITS: u8 = 64;

/// The address that limits for each address count: an IPv6 /64 counts as one (wire contract, limits), and an
/// IPv4-mapped IPv6 address as the IPv4 address in it.
#[must_use]
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => masked(IpAddr::V6(address), CLIENT_BITS),
        address => address,
    }
}

/// Whether an address is one of the internet's, and not of a machine, a network at home or a company's.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            let is_inner = v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared;
            !(is_inner || first == 0 || first >= 224)
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

/// A network that limits count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    network: IpAddr,
    prefix: u8,
}

/// The networks that something from `address` counts for, and how many times as much as the first each of them may do: an
/// IPv4 address; of IPv6 the /64 that counts as one address, and the /56 and /48 that a home or a company has all of.
pub fn groups_of(address: IpAddr) -> impl Iterator<Item = (Group, u64)> {
    let address = address.to_canonical();
    let all: &[(u8, u64)] = if address.is_ipv4() { &[(32, 1)] } else { &[(CLIENT_BITS, 1), (56, 4), (48, 16)] };
    all.iter().map(move |&(prefix, share)| (Group { network: masked(address, prefix), prefix }, share))
}

/// Makes room in a table of networks that has reached `max`: forgets what no longer has a weight, and where there is none of
/// that, the quarter with the least. So a full table keeps nobody out.
pub fn forget_least<V, W: Ord + Copy>(all: &mut HashMap<Group, V>, max: usize, weight: impl Fn(&V) -> Option<W>) {
    all.retain(|_, value| weight(value).is_some());
    if all.len() < max {
        return;
    }
    let mut weights: Vec<W> = all.values().filter_map(&weight).collect();
    let mut room = max / 4;
    let (_, &mut last, _) = weights.select_nth_unstable(room);
    all.retain(|_, value| {
        let goes = weight(value) <= Some(last) && room > 0;
        room -= usize::from(goes);
        !goes
    });
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::1", "::1", "::2"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(ip(inside)), "{inside} in {network}");
            assert!(!parsed.contains(ip(outside)), "{outside} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_says_why() {
        for (text, why) in [
            ("", NetworkError::Address),
            ("localhost", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Prefix { max: 32 }),
            ("10.0.0.0/+8", NetworkError::Prefix { max: 32 }),
            ("10.0.0.0/", NetworkError::Prefix { max: 32 }),
            ("::/129", NetworkError::Prefix { max: 128 }),
            ("10.1.0.0/8", NetworkError::HostBits { network: "10.0.0.0/8".parse().unwrap() }),
        ] {
            assert_eq!(text.parse::<Network>(), Err(why), "{text}");
        }
    }

    #[test]
    fn an_address_of_the_internet_is_public() {
        for public in ["8.8.8.8", "203.0.113.9", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(is_public(ip(public)), "{public}");
        }
        for inner in
            ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1"]
        {
            assert!(!is_public(ip(inner)), "{inner}");
        }
        for inner in ["::", "::1", "fe80::1", "fd00::1", "::ffff:192.168.1.1", "ff02::1"] {
            assert!(!is_public(ip(inner)), "{inner}");
        }
    }

    #[test]
    fn something_counts_for_an_ipv4_address_or_three_networks_of_ipv6() {
        let groups = |text: &str| groups_of(ip(text)).map(|(group, _)| group).collect::<Vec<_>>();
        assert_eq!(groups("192.0.2.1"), groups("::ffff:192.0.2.1"));
        assert_ne!(groups("192.0.2.1"), groups("192.0.2.2"));
        let shared = |one: &str, other: &str| groups(one).iter().filter(|group| groups(other).contains(group)).count();
        assert_eq!(shared("2001:db8:1:1::1", "2001:db8:1:1:ffff::2"), 3);
        assert_eq!(shared("2001:db8:1:1::1", "2001:db8:1:2::1"), 2);
        assert_eq!(shared("2001:db8:1:1::1", "2001:db8:1:100::1"), 1);
        assert_eq!(shared("2001:db8:1::1", "2001:db8:2::1"), 0);
    }

    #[test]
    fn an_ipv6_64_counts_as_one() {
        assert_eq!(counted_as(ip("2001:db8:1:2:3::4")), counted_as(ip("2001:db8:1:2:ffff::")));
        assert_ne!(counted_as(ip("2001:db8:1:2::1")), counted_as(ip("2001:db8:1:3::1")));
        assert_ne!(counted_as(ip("1.2.3.4")), counted_as(ip("1.2.3.5")));
        assert_eq!(counted_as(ip("::ffff:1.2.3.4")), ip("1.2.3.4"));
    }
}
