//! Free ports on loopback.
//!
//! They lie below the range from which the system takes the ports of outgoing connections (from 32768): otherwise some
//! client's connection could sit on the port of a node that is down, and the node could not come back.

use crate::failure::{Failure, Outcome};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// A port that was free just now, and that this process has not given out before.
///
/// Processes start at different places, so that runs side by side seldom meet; whoever finds its port taken after all
/// asks again.
pub fn free() -> Outcome<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(7_919) % COUNT;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let Ok(port) = u16::try_from(port) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure(format!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)))
}
