//! Where a plug-in may go, and how much it may bring back.

use std::net::IpAddr;

use glob::{MatchOptions, Pattern};
use url::{Host, Url};

use super::address;
use super::resolver::{self, Names};
use super::worker::Leftovers;
use crate::error::{Error, Result};

/// What a response may have at most, unless `memory.max_http_response_bytes` says otherwise.
const MAX_RESPONSE_BYTES: u64 = 50 << 20;

/// No name of a host is as long as this: a longer pattern is a mistake, and takes long to compare.
const MAX_PATTERN: usize = 1024;

/// `*` crosses dots, as in 1.41.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: false, require_literal_separator: false, require_literal_leading_dot: false };

/// Which hosts may be asked, and the bound on what they answer. Made once for a compiled plug-in.
#[derive(Debug)]
pub(crate) struct Policy {
    hosts: Hosts,
    max_response_bytes: u64,
    pub(super) names: Names,
    /// Requests of these plug-ins that were given up on and have not ended.
    pub(super) leftovers: Leftovers,
}

/// Which hosts may be asked.
#[derive(Debug)]
enum Hosts {
    /// Any, and any address: what the host program itself asks for.
    Any,
    /// Those that one of the entries matches.
    Listed(Vec<Entry>),
}

/// One entry of `allowed_hosts`.
#[derive(Debug)]
enum Entry {
    /// A name or an address, compared after normalising: it also opens guarded addresses.
    Exact(Host),
    Glob(Pattern),
}

/// A host that may not be asked, and why: the end of a sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Policy {
    /// From the manifest: globs over host names, none of which means that no host may be asked; and the bound on
    /// a response. A pattern that can't be read is an error that names it.
    pub fn new(allowed_hosts: Option<&[String]>, max_response_bytes: Option<u64>) -> Result<Self> {
        let entries = allowed_hosts.unwrap_or_default().iter().map(|text| Entry::parse(text));
        let hosts = Hosts::Listed(entries.collect::<Result<_>>()?);
        let max_response_bytes = max_response_bytes.unwrap_or(MAX_RESPONSE_BYTES);
        Ok(Self { hosts, max_response_bytes, names: resolver::SYSTEM, leftovers: Leftovers::default() })
    }

    /// For what the host program itself asks for.
    pub(super) fn unrestricted(max_response_bytes: u64) -> Self {
        Self { hosts: Hosts::Any, max_response_bytes, names: resolver::SYSTEM, leftovers: Leftovers::default() }
    }

    /// The bound on the decoded body of a response.
    pub(super) fn max_response_bytes(&self) -> u64 {
        self.max_response_bytes
    }

    /// Whether a URL may be asked for. A host that is a name is checked again when its addresses are known.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused(format!("`{}` is not http or https", url.scheme())));
        }
        let Some(host) = url.host() else {
            return Err(Refused("it has no host".to_owned()));
        };
        let Hosts::Listed(entries) = &self.hosts else {
            return Ok(());
        };
        let host = normal(host.to_owned());
        if !entries.iter().any(|entry| entry.matches(&host)) {
            return Err(Refused(format!("host `{host}` is not in allowed_hosts")));
        }
        match host {
            Host::Ipv4(address) => self.check_address(&host, address.into()),
            Host::Ipv6(address) => self.check_address(&host, address.into()),
            Host::Domain(_) => Ok(()),
        }
    }

    /// Whether this address may be connected to for the sake of this host.
    pub(super) fn check_address(&self, host: &Host, address: IpAddr) -> Result<(), Refused> {
        let Hosts::Listed(entries) = &self.hosts else {
            return Ok(());
        };
        if !address::is_guarded(address) || entries.iter().any(|entry| entry.names(host, address)) {
            return Ok(());
        }
        Err(Refused(format!(
            "{address} is a link-local or cloud metadata address, which takes an entry of allowed_hosts \
             that names it or its host without wildcards"
        )))
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_PATTERN {
            let length = text.len();
            return Err(Error::new(format!(
                "allowed_hosts: an entry has {length} bytes; the name of a host has at most 253"
            )));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Exact(Host::Ipv6(address)));
        }
        if !text.contains(['*', '?', '['])
            && let Ok(host) = Host::parse(text)
        {
            return Ok(Self::Exact(normal(host)));
        }
        let pattern = Pattern::new(text)
            .map_err(|error| Error::new(format!("allowed_hosts: `{text}` is not a pattern: {error}")))?;
        Ok(Self::Glob(pattern))
    }

    fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(entry) => entry == host,
            Self::Glob(pattern) => match host {
                Host::Domain(name) => pattern.matches_with(name, MATCHING),
                Host::Ipv4(address) => pattern.matches_with(&address.to_string(), MATCHING),
                Host::Ipv6(address) => [address.to_string(), format!("[{address}]")]
                    .iter()
                    .any(|form| pattern.matches_with(form, MATCHING)),
            },
        }
    }

    /// Whether the entry names this host, or this address of it, without wildcards.
    fn names(&self, host: &Host, address: IpAddr) -> bool {
        match self {
            Self::Exact(entry) if entry == host => true,
            Self::Exact(Host::Ipv4(entry)) => address::is_same(IpAddr::V4(*entry), address),
            Self::Exact(Host::Ipv6(entry)) => address::is_same(IpAddr::V6(*entry), address),
            Self::Exact(Host::Domain(_)) | Self::Glob(_) => false,
        }
    }
}

/// A host without the dot that says that a name is complete: it leads to the same place. Letters are small
/// already, and numbers are in their usual form: parsing saw to that.
pub(super) fn normal<S: AsRef<str>>(host: Host<S>) -> Host {
    match host {
        Host::Domain(name) => {
            let name = name.as_ref();
            // The root itself stays what it is: a name that is empty would be what an empty entry allows.
            Host::Domain(name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(name).to_owned())
        }
        Host::Ipv4(address) => Host::Ipv4(address),
        Host::Ipv6(address) => Host::Ipv6(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> Policy {
        let entries: Vec<_> = entries.iter().map(|text| (*text).to_owned()).collect();
        Policy::new(Some(&entries), None).unwrap()
    }

    fn allows(entries: &[&str], url: &str) -> bool {
        policy(entries).check(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn no_list_and_an_empty_list_allow_nothing() {
        let url = Url::parse("http://example.com/").unwrap();
        for policy in [Policy::new(None, None).unwrap(), policy(&[])] {
            let refused = policy.check(&url).unwrap_err();
            assert_eq!(refused, Refused("host `example.com` is not in allowed_hosts".to_owned()));
        }
    }

    #[test]
    fn an_empty_entry_allows_nothing() {
        for url in ["http://./", "http:.//a.example.com/", "http://example.com/"] {
            assert!(!allows(&[""], url), "{url}");
        }
    }

    #[test]
    fn patterns() {
        for (entry, host, expected) in [
            ("*", "a.b.example.com", true),
            ("**", "a.b", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "example.com.evil.net", false),
            ("EXAMPLE.com", "example.COM", true),
            ("*.EXAMPLE.com", "a.Example.com", true),
            ("example.com", "example.com.", true),
            ("example.com.", "example.com", true),
            ("example.com", "example.org", false),
            ("127.0.0.?", "127.0.0.1", true),
            ("127.0.0.[0-9]", "127.0.0.1", true),
            ("127.0.0.1", "2130706433", true),
            ("127.0.0.1", "0177.0.0.1", true),
            ("127.0.0.1", "127.1", true),
            ("127.0.0.1", "0x7f000001", true),
            ("127.0.0.1", "127.0.0.1.evil.net", false),
            ("bücher.example", "BÜCHER.example", true),
            ("xn--bcher-kva.example", "bücher.example", true),
            ("127.0.0.1:8080", "127.0.0.1:8080", false),
            ("http://127.0.0.1", "127.0.0.1", false),
            ("::1", "[::1]", true),
            ("[::1]", "[::1]", true),
            ("[::1]", "[0:0:0:0:0:0:0:1]", true),
            ("*", "[::1]", true),
            ("2001:db8:*", "[2001:db8::1]", true),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!(allows(&[entry], &format!("http://{host}/")), expected, "{entry} {host}");
        }
    }

    #[test]
    fn the_host_is_what_the_parser_says() {
        for (url, host) in [
            ("http://good.example@evil.example/", "evil.example"),
            ("http://evil.example\\@good.example/", "evil.example"),
            ("http:\\\\evil.example\\x", "evil.example"),
            ("http://good.example:80@evil.example:81/", "evil.example"),
            ("http://evil.example#@good.example/", "evil.example"),
            ("http://evil.example?@good.example/", "evil.example"),
            ("http://ev\nil.example/", "evil.example"),
            ("http:evil.example", "evil.example"),
        ] {
            assert!(allows(&[host], url), "{url}");
            assert!(!allows(&["good.example"], url), "{url}");
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        for url in ["ftp://a/", "file:///etc/passwd", "data:text/plain,x", "unix:/run/x", "ws://a/"] {
            assert!(!allows(&["*"], url), "{url}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_named() {
        for entry in ["[", "a**b", "***.example.com"] {
            let error = Policy::new(Some(&[entry.to_owned()]), None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("allowed_hosts: `{entry}` is not a pattern")), "{error}");
        }
    }

    #[test]
    fn patterns_take_no_long_time() {
        let began = std::time::Instant::now();
        let stars = "*a".repeat(512);
        let names = ["a".repeat(100_000), format!("{}b", "a".repeat(100_000)), format!("{}.example", "a.".repeat(500))];
        for (entry, name) in [stars.as_str(), &stars.replace('a', "?"), "*a*b*c*d*e*f*g*h*x"]
            .into_iter()
            .flat_map(|entry| names.iter().map(move |name| (entry, name)))
        {
            allows(&[entry], &format!("http://{name}/"));
        }
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
        let long = Policy::new(Some(&["*?".repeat(100_000)]), None).unwrap_err().to_string();
        assert!(long.starts_with("allowed_hosts: an entry has 200000 bytes"), "{long}");
    }

    #[test]
    fn guarded_addresses_take_an_entry_that_names_them() {
        let metadata = "http://169.254.169.254/latest";
        assert!(!allows(&["*"], metadata));
        assert!(!allows(&["169.254.*"], metadata));
        assert!(!allows(&["169.254.169.25?"], metadata));
        assert!(allows(&["169.254.169.254"], metadata));
        assert!(allows(&["169.254.169.254"], "http://2852039166/"));
        assert!(!allows(&["*"], "http://2852039166/"));
        assert!(!allows(&["*"], "http://[::ffff:169.254.169.254]/"));
        assert!(allows(&["*", "169.254.169.254"], "http://[::ffff:169.254.169.254]/"));
        assert!(!allows(&["*"], "http://[fe80::1]/"));
        assert!(allows(&["fe80::1"], "http://[fe80::1]/"));
        let refused = policy(&["*"]).check(&Url::parse(metadata).unwrap()).unwrap_err().0;
        assert!(refused.starts_with("169.254.169.254 is a link-local or cloud metadata address"), "{refused}");
    }

    #[test]
    fn a_name_that_leads_to_a_guarded_address() {
        let address = "169.254.169.254".parse().unwrap();
        let check = |entries: &[&str], name: &str| {
            policy(entries).check_address(&Host::Domain(name.to_owned()), address).is_ok()
        };
        assert!(!check(&["*"], "metadata.example"));
        assert!(!check(&["*.example"], "metadata.example"));
        assert!(check(&["metadata.example"], "metadata.example"));
        assert!(check(&["*", "169.254.169.254"], "metadata.example"));
        assert!(!check(&["*", "other.example"], "metadata.example"));
    }

    #[test]
    fn the_host_program_may_go_anywhere() {
        let policy = Policy::unrestricted(1);
        assert!(policy.check(&Url::parse("http://169.254.169.254/").unwrap()).is_ok());
        assert!(policy.check(&Url::parse("file:///etc/passwd").unwrap()).is_err());
    }
}
