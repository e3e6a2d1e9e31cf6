//! What an address looks like. Whether anyone is there, only a dial tells.

/// `host:port` with a port that can be dialled; an IPv6 host in brackets.
pub(crate) fn is_address(text: &str) -> bool {
    const BYTES_MAX: usize = 253 + 6; // a DNS name and a port
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let (bare, colons) = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bare) => (bare, true),
        None => (host, false),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_') || (colons && b == b':');
    text.len() <= BYTES_MAX
        && !bare.is_empty()
        && bare.bytes().all(fits)
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// `http://host:port`, with nothing after it but a slash.
pub(crate) fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    is_address(authority) || is_address(&format!("{authority}:80"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:3300", "balsa-0.balsa:3300", "[::1]:3300", "h:1", "h:65535"] {
            assert!(is_address(text), "{text}");
        }
        for text in ["", "h", "h:", ":1", "h:0", "h:65536", "h:+1", "http://h:1", "h h:1", "[]:1", "::1:1"] {
            assert!(!is_address(text), "{text}");
        }
    }
}
