//! No web page may command a node on someone's machine or network: requests that a browser marks as coming from
//! another origin are refused. Programs send neither header and pass.

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OriginError {
    /// `Origin` is not this server.
    #[error("the request's Origin `{origin}` is not this server; other web pages may not use this API")]
    Foreign {
        /// As it was sent.
        origin: String,
    },
    /// The browser says so.
    #[error(
        "the browser says that the request comes from another site; other web pages may not use this API"
    )]
    CrossSite,
}

/// Refuses a foreign `Origin` and `Sec-Fetch-Site: cross-site`.
pub fn check(headers: &HeaderMap) -> Result<(), OriginError> {
    if headers.get_all(SEC_FETCH_SITE).iter().any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"))
    {
        return Err(OriginError::CrossSite);
    }
    for origin in headers.get_all(ORIGIN) {
        let own = headers.get(HOST).map_or(&b""[..], |host| host.as_bytes());
        if !is_own(origin.as_bytes(), own) {
            let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
            return Err(OriginError::Foreign { origin });
        }
    }
    Ok(())
}

/// Whether `origin` names the server that `host` names. The scheme may differ from ours: a proxy may have ended TLS.
fn is_own(origin: &[u8], host: &[u8]) -> bool {
    let lower = origin.to_ascii_lowercase();
    let (authority, default_port) = if let Some(authority) = lower.strip_prefix(b"http://") {
        (authority, &b":80"[..])
    } else if let Some(authority) = lower.strip_prefix(b"https://") {
        (authority, &b":443"[..])
    } else {
        return false; // `null`, files, extensions
    };
    let host = host.to_ascii_lowercase();
    let bare = |authority: &[u8]| authority.strip_suffix(default_port).unwrap_or(authority).to_vec();
    !authority.is_empty() && bare(authority) == bare(&host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn own_pages_and_programs_pass() {
        for pairs in [
            &[("host", "localhost:3000")][..],
            &[("host", "localhost:3000"), ("origin", "http://localhost:3000")],
            &[("host", "Balsa.example"), ("origin", "https://balsa.EXAMPLE")],
            &[("host", "balsa.example:443"), ("origin", "https://balsa.example")],
            &[("host", "balsa.example"), ("origin", "http://balsa.example:80")],
            &[("host", "[::1]:3000"), ("origin", "http://[::1]:3000")],
            &[("host", "h"), ("sec-fetch-site", "same-origin")],
            &[("host", "h"), ("sec-fetch-site", "none")],
            &[],
        ] {
            assert_eq!(check(&headers(pairs)), Ok(()), "{pairs:?}");
        }
    }

    #[test]
    fn other_pages_do_not() {
        for pairs in [
            &[("host", "localhost:3000"), ("origin", "http://evil.example")][..],
            &[("host", "localhost:3000"), ("origin", "http://localhost:8080")],
            &[("host", "localhost:3000"), ("origin", "http://localhost")],
            &[("host", "localhost:3000"), ("origin", "null")],
            &[("host", "localhost:3000"), ("origin", "")],
            &[("host", ""), ("origin", "http://")],
            &[("host", "h:443"), ("origin", "http://h")],
            &[("origin", "http://localhost:3000")],
            &[("host", "h"), ("origin", "http://h"), ("origin", "http://evil")],
            &[("host", "h"), ("sec-fetch-site", "Cross-Site")],
            &[("host", "h"), ("origin", "http://h"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(check(&headers(pairs)).is_err(), "{pairs:?}");
        }
    }
}
