//! Names to addresses: asked anew every time, for ever, and never by blocking a thread.
//!
//! Names of nodes change their addresses whenever a node moves, so nothing is remembered here; whoever dials remembers
//! the address that last answered (hazard 47). The system's files (`/etc/hosts`, `/etc/resolv.conf`) are read at each
//! lookup, as they may change, too. A lookup is a future that can be dropped, where `getaddrinfo` would hold a thread
//! for as long as a name server is silent; and it works in a static binary, whatever its C library is.
//!
//! What a C library can be taught besides files and DNS (mDNS, LDAP) is not asked, except where there is no
//! `/etc/resolv.conf` with a name server: then the C library is.

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::{Resolver, TokioResolver};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long one name server is waited for, before the next or the same is asked.
const SERVER_TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses of `host:port` now.
pub(crate) async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let Some((host, port)) = split(address) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not HOST:PORT")));
    };
    let Some(resolver) = system() else {
        return Ok(tokio::net::lookup_host((host, port)).await?.collect());
    };
    let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
    Ok(found.iter().map(|ip: IpAddr| SocketAddr::new(ip, port)).collect())
}

/// By what the system's files say now; `None` where they name no server.
fn system() -> Option<TokioResolver> {
    let mut builder = Resolver::builder_tokio().ok()?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = SERVER_TIMEOUT;
    options.cache_size = 0;
    builder.build().ok()
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_no_server_is_answered_without_one() {
        for (address, right) in [
            ("127.0.0.1:3300", "127.0.0.1:3300"),
            ("[::1]:3300", "[::1]:3300"),
            ("localhost:3300", "127.0.0.1:3300"),
        ] {
            let found = resolve(address).await.unwrap();
            assert!(found.contains(&right.parse().unwrap()), "{address}: {found:?}");
        }
        for wrong in ["localhost", "localhost:", ":3300", "localhost:70000"] {
            let error = resolve(wrong).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong}");
        }
    }
}
