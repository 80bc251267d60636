//! Networks of addresses, for the proxies that an operator trusts.

use std::net::IpAddr;

/// An address with the number of its leading bits that count. An IPv4 address that is mapped into IPv6 is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// At most 32 for IPv4, 128 for IPv6.
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`. Bits of the address behind those that count are let go.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let address = written.to_canonical();
        let (written_width, width) = (width(written), width(address));
        let bits = match bits {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<u8>().ok()?,
            Some(_) => return None,
            None => written_width,
        };
        // `::ffff:10.0.0.0/104` counts 96 bits that say no more than that it is IPv4.
        let bits = if bits <= written_width { bits.checked_sub(written_width - width)? } else { return None };
        Some(Self { address, bits })
    }

    /// Whether an address belongs to it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = (own.to_bits() ^ other.to_bits()).leading_zeros();
                differing >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = (own.to_bits() ^ other.to_bits()).leading_zeros();
                differing >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "10.200.0.1", true),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("192.0.2.128/25", "192.0.2.200", true),
        ];
        for (network, address, inside) in cases {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "x", "10.0.0.0/8/8"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
