//! Addresses that only an entry which names them opens: link-local ones, and those at which clouds hand
//! credentials to whoever asks from inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services that are not at a link-local address.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(168, 63, 129, 16),   // Azure's wire server
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), // Google Cloud
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),  // Scaleway
];

/// The network of Amazon's services inside of an instance: metadata, credentials of pods, time, names.
fn is_of_ec2(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0xfd00, 0xec2, ..])
}

/// Whether an address, or an IPv4 address that it stands for, is link-local or a metadata service.
pub(super) fn is_guarded(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_guarded_v4(address),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || METADATA_V6.contains(&address)
                || is_of_ec2(address)
                || embedded(address).into_iter().flatten().any(is_guarded_v4)
        }
    }
}

/// Whether two addresses lead to the same place: equal, or one written as the IPv6 form of the other.
pub(super) fn is_same(one: IpAddr, other: IpAddr) -> bool {
    one == other || forms(one).any(|form| forms(other).any(|of_other| form == of_other))
}

/// The IPv4 addresses that an address is or stands for.
fn forms(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let forms = match address {
        IpAddr::V4(address) => [Some(address), None, None, None],
        IpAddr::V6(address) => embedded(address),
    };
    forms.into_iter().flatten()
}

fn is_guarded_v4(address: Ipv4Addr) -> bool {
    address.is_link_local() || METADATA_V4.contains(&address)
}

/// The IPv4 addresses that packets to an IPv6 address may end at.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    const NONE: Option<Ipv4Addr> = None;
    let v4 = |a, b, c, d| Some(Ipv4Addr::new(a, b, c, d));
    let [_, _, b2, b3, b4, b5, b6, b7, _, b9, b10, b11, b12, b13, b14, b15] = address.octets();
    let last = v4(b12, b13, b14, b15);
    match address.segments() {
        // Mapped (::ffff:a.b.c.d), translated (::ffff:0:a.b.c.d), compatible (::a.b.c.d).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => [last, NONE, NONE, NONE],
        // NAT64 by its well-known prefix, and by the prefix for local use, whose networks put the address at
        // the end (/96) or around the reserved byte 8 (/48, /56, /64).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [last, NONE, NONE, NONE],
        [0x64, 0xff9b, 1, ..] => [last, v4(b6, b7, b9, b10), v4(b7, b9, b10, b11), v4(b9, b10, b11, b12)],
        // 6to4 (2002:a.b.c.d::/48).
        [0x2002, ..] => [v4(b2, b3, b4, b5), NONE, NONE, NONE],
        // Teredo: its server, and the client's address with its bits turned around.
        [0x2001, 0, ..] => [v4(!b12, !b13, !b14, !b15), v4(b4, b5, b6, b7), NONE, NONE],
        // ISATAP: the last part of whatever network.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => [last, NONE, NONE, NONE],
        _ => [NONE; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(text: &str) -> bool {
        is_guarded(text.parse().unwrap())
    }

    #[test]
    fn link_local_and_metadata_in_every_form() {
        for text in [
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "febf:ffff::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:ec2::253",
            "fd20:ce::254",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:12a9:fe:a9fe::",
            "64:ff9b:1:1234:a9:fea9:fe00:0",
            "2001:db8::5efe:169.254.169.254",
            "2001:db8::200:5efe:169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
            "::ffff:100.100.100.200",
            "2002:6464:64c8::",
        ] {
            assert!(guarded(text), "{text}");
        }
    }

    #[test]
    fn everything_else_follows_the_list_of_hosts() {
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "169.253.255.255",
            "169.255.0.0",
            "100.100.100.201",
            "8.8.8.8",
            "0.0.0.0",
            "::",
            "::1",
            "fec0::1",
            "fd00::1",
            "fd00:ec3::254",
            "fd00:42::43",
            "2001:db8::5efe:127.0.0.1",
            "2606:4700::1111",
            "::ffff:127.0.0.1",
            "64:ff9b::8.8.8.8",
            "2002:0808:0808::1",
        ] {
            assert!(!guarded(text), "{text}");
        }
    }

    #[test]
    fn the_same_place_in_two_forms() {
        let same = |one: &str, other: &str| is_same(one.parse().unwrap(), other.parse().unwrap());
        assert!(same("169.254.169.254", "::ffff:169.254.169.254"));
        assert!(same("fe80::1", "fe80::1"));
        assert!(same("64:ff9b::a9fe:a9fe", "169.254.169.254"));
        assert!(!same("fe80::1", "fe80::2"));
        assert!(!same("169.254.169.254", "169.254.169.253"));
    }
}
