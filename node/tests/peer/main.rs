//! The peer transport over real loopback sockets: what arrives, who is refused, what breaks and heals.
//!
//! Tests wait for conditions; the only durations are limits that no healthy run meets.

mod delivery;
mod handshake;
mod healing;
mod limits;
mod speed;
mod support;
