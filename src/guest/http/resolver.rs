//! Names to addresses, checked before anything connects to them.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use url::Host;

use super::policy::{Policy, Refused, normal};

/// How many addresses of one name are tried.
const MAX_ADDRESSES: usize = 16;

/// Takes a name and a port to addresses.
pub(super) type Names = fn(&str, u16) -> std::io::Result<Vec<SocketAddr>>;

/// As the system does it.
pub(super) const SYSTEM: Names = |name, port| Ok((name, port).to_socket_addrs()?.collect());

/// Resolves names, and drops the addresses that the policy refuses. The client connects to exactly what comes
/// out of here, so a name server that changes its mind between check and connect gains nothing.
///
/// Behind a proxy it is the proxy that resolves: then only addresses that stand in the URL can be checked.
#[derive(Debug)]
pub(super) struct Checked(pub Arc<Policy>);

impl Resolver for Checked {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let asked = Instant::now();
        let name = uri.host().unwrap_or_default();
        let host = Host::parse(name).map_err(|_| ureq::Error::HostNotFound)?;
        let proxy = config.proxy().filter(|proxy| proxy.host() == name);
        let port = match uri.port_u16() {
            Some(port) => port,
            None if uri.scheme_str() == Some("http") => 80,
            None if uri.scheme_str() == Some("https") => 443,
            None => proxy.map_or(0, |proxy| proxy.port()),
        };
        // What else listens at the proxy's host is no proxy.
        let proxy = proxy.filter(|proxy| proxy.port() == port);
        let found = look_up(self.0.names, &host, port)?;
        if asked.elapsed() >= *timeout.after {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        let admitted = match proxy {
            Some(_) => found,
            None => admitted(&self.0, &normal(host), found).map_err(|refused| ureq::Error::Other(refused.into()))?,
        };
        let mut addresses = self.empty();
        admitted.into_iter().take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn look_up(names: Names, host: &Host, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    Ok(match host {
        Host::Ipv4(address) => vec![SocketAddr::new(IpAddr::V4(*address), port)],
        Host::Ipv6(address) => vec![SocketAddr::new(IpAddr::V6(*address), port)],
        Host::Domain(name) => names(name, port)?,
    })
}

/// The addresses that may be connected to; an error if there are some and none may.
fn admitted(policy: &Policy, host: &Host, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let mut refused = None;
    let mut admitted = found;
    admitted.retain(|address| match policy.check_address(host, address.ip()) {
        Ok(()) => true,
        Err(why) => {
            refused = Some(why);
            false
        }
    });
    match refused {
        Some(why) if admitted.is_empty() => Err(why),
        _ => Ok(admitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> Policy {
        let entries: Vec<_> = entries.iter().map(|text| (*text).to_owned()).collect();
        Policy::new(Some(&entries), None).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 80)).collect()
    }

    #[test]
    fn refused_addresses_are_dropped() {
        let host = Host::Domain("rebind.example".to_owned());
        let mixed = addresses(&["169.254.169.254", "192.0.2.1", "fe80::1", "64:ff9b::a9fe:a9fe"]);
        assert_eq!(admitted(&policy(&["*"]), &host, mixed.clone()), Ok(addresses(&["192.0.2.1"])));
        assert_eq!(admitted(&policy(&["rebind.example"]), &host, mixed.clone()), Ok(mixed.clone()));
        let some = addresses(&["169.254.169.254", "192.0.2.1", "64:ff9b::a9fe:a9fe"]);
        assert_eq!(admitted(&policy(&["*", "169.254.169.254"]), &host, mixed), Ok(some));
    }

    #[test]
    fn none_left_is_a_refusal() {
        let host = Host::Domain("rebind.example".to_owned());
        let refused = admitted(&policy(&["*"]), &host, addresses(&["169.254.169.254", "fe80::1"])).unwrap_err();
        assert!(refused.0.starts_with("fe80::1 is a link-local"), "{refused}");
        assert_eq!(admitted(&policy(&["*"]), &host, Vec::new()), Ok(Vec::new()));
    }

    #[test]
    fn addresses_are_not_looked_up() {
        let host = Host::parse("[::1]").unwrap();
        assert_eq!(look_up(SYSTEM, &host, 81).unwrap(), ["[::1]:81".parse().unwrap()]);
    }
}
