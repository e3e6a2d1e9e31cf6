//! What the disk alone costs: fdatasync of small appends to a file that has its length already, as the log's segments
//! have.

use crate::failure::{Context, Outcome};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one append.
const APPEND_BYTES: usize = 4096;
/// Bytes of the file; the appends begin anew at its end.
const FILE_BYTES: usize = 16 << 20;
/// A file to append to.
#[derive(Debug)]
pub struct Probe {
    file: File,
    at: usize,
    took: Vec<Duration>,
}

impl Probe {
    /// A file in `folder`, filled with zeros and synced.
    pub fn new(folder: &Path) -> Outcome<Probe> {
        let file = tempfile::tempfile_in(folder).context("make a file to sync")?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at as u64).context("fill a file")?;
        }
        file.sync_all().context("sync a file")?;
        Ok(Probe { file, at: 0, took: Vec::new() })
    }

    /// Appends and syncs for `duration`; gives the median of these.
    pub fn measure(&mut self, duration: Duration) -> Outcome<Duration> {
        let began = Instant::now();
        let first = self.took.len();
        let mut bytes = [0; APPEND_BYTES];
        while began.elapsed() < duration {
            bytes.fill(self.took.len() as u8); // never what is there already
            let started = Instant::now();
            self.file.write_all_at(&bytes, self.at as u64).context("append to a file")?;
            self.file.sync_data().context("sync a file")?;
            self.took.push(started.elapsed());
            self.at = (self.at + APPEND_BYTES) % FILE_BYTES;
        }
        Ok(median(&self.took[first..]))
    }

    /// The median of all.
    pub fn median(&self) -> Duration {
        median(&self.took)
    }
}

fn median(took: &[Duration]) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_measured() {
        let folder = crate::binary::scratch().unwrap();
        let mut probe = Probe::new(&folder).unwrap();
        let median = probe.measure(Duration::from_millis(20)).unwrap();
        assert!(median > Duration::ZERO && median == probe.median(), "{median:?}");
    }
}
