//! A number that rises with every start on one disk, also where the wall clock was set back between two starts.
//!
//! Peers tell a node's newer streams and requests from older ones by it, so that an answer that is late is not taken for
//! one to the question that a later process asks under the same number. It begins with the wall clock, so that it rises
//! over a lost file as well; the last one is kept on the disk.

use crate::durable_file;
use balsa_log::Folder;
use std::io;

const FILE: &str = "incarnation";
/// Numbers of requests are made of it and 12 bits more, which must fit into 64.
const MAX: u64 = (1 << 52) - 1;

/// The number of the start at `now_us`, microseconds since 1970; recorded when this returns.
///
/// A full disk must not keep a node from starting: there, the next start knows only of the ones before, and rises over
/// this one as far as the clock does.
pub fn next(folder: &Folder, now_us: u64) -> io::Result<u64> {
    let last = match durable_file::read(folder, FILE)? {
        None => 0,
        Some(bytes) => parse(&bytes).ok_or_else(|| {
            io::Error::other(format!(
                "{FILE} in the data folder is damaged; delete it, once the clock is right"
            ))
        })?,
    };
    let next = (now_us & MAX).max(last + 1);
    match durable_file::write(folder, FILE, format!("{next}\n").as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(next, "the disk is too full to record this start");
        }
        written => written?,
    }
    Ok(next)
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.parse().ok()?;
    (number < MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_log::SimDisk;
    use std::sync::Arc;

    #[test]
    fn it_rises_though_the_clock_is_set_back() {
        let folder = Folder { disk: Arc::new(SimDisk::default()), path: "data".into() };
        assert_eq!(next(&folder, 1_000).unwrap(), 1_000);
        assert_eq!(next(&folder, 10).unwrap(), 1_001);
        assert_eq!(next(&folder, 1_001).unwrap(), 1_002);
        assert_eq!(next(&folder, 5_000).unwrap(), 5_000);
    }

    #[test]
    fn a_damaged_record_is_not_guessed_at() {
        assert_eq!(parse(b"12\n"), Some(12));
        for damaged in [b"".as_slice(), b"12", b"1x2\n", b"\0\0\n", b"9999999999999999999\n"] {
            assert_eq!(parse(damaged), None);
        }
    }
}
