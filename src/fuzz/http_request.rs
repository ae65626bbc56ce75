//! Any bytes as the request that a guest describes, as entries of `allowed_hosts`, and as a redirect.

use ureq::http::StatusCode;

use crate::guest::http::{Policy, Request, parse_request};

/// `pattern \n location \n request`: a request that passes the policy goes to a host that the pattern matches, and
/// what it is redirected to is checked again.
pub fn http_request(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (pattern, location, json) = (part(), part(), part());
    let Ok(policy) = Policy::new(Some(&[String::from_utf8_lossy(pattern).into_owned()]), None) else {
        return;
    };
    let Ok(request) = parse_request(json, Some(b"body".to_vec())) else {
        return;
    };
    check_headers(&request);
    let allowed = policy.check(request.url()).is_ok();
    if allowed {
        assert!(!pattern.is_empty());
        assert!(matches!(request.url().scheme(), "http" | "https"));
    }
    for status in [301, 303, 307, 308] {
        let origin = request.url().origin();
        let Ok(next) = request.clone().redirected(StatusCode::from_u16(status).unwrap(), location) else {
            continue;
        };
        check_headers(&next);
        if next.url().origin() != origin {
            let private = ["authorization", "cookie", "x-custom"];
            assert!(private.iter().all(|name| !next.headers().contains_key(*name)));
        }
        let _ = policy.check(next.url());
    }
}

/// Nothing of a plug-in's frames the request, or names another host.
fn check_headers(request: &Request) {
    for name in ["host", "content-length", "transfer-encoding", "connection", "upgrade", "proxy-authorization"] {
        assert!(!request.headers().contains_key(name), "{name}");
    }
    assert!(request.headers().values().all(|value| value.as_bytes().iter().all(|byte| !matches!(byte, 0 | 10 | 13))));
}
