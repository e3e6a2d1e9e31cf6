//! One file's bytes: what a reader sees, and what each unsynced sector could be after a power loss.
//!
//! Pages are shared between forks, and absent while they are all zero, so that an allocated but unwritten segment
//! costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
/// How many earlier contents of an unsynced sector are kept, the durable one first.
const VERSIONS_MAX: usize = 4;

type Page = [u8; PAGE_BYTES];

/// None: all zero.
type Sector = Option<Box<[u8; SECTOR_BYTES]>>;

#[derive(Clone, Default)]
pub(super) struct Image {
    /// What a reader sees. None: all zero.
    pages: Vec<Option<Arc<Page>>>,
    len_bytes: u64,
    durable_len_bytes: u64,
    charged_bytes: u64,
    /// By sector: its durable content, then those that followed. What a reader sees is the last, and not in here.
    unsynced: BTreeMap<u64, Vec<Sector>>,
    /// The same for sectors whose sync failed: no later sync makes them durable, only writing them again.
    lost: BTreeMap<u64, Vec<Sector>>,
}

impl Image {
    pub(super) fn durable(bytes: &[u8]) -> Image {
        let mut image = Image::default();
        image.write(bytes, 0);
        image.sync();
        image
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// What it counts for against the disk's capacity.
    pub(super) fn charged_bytes(&self) -> u64 {
        self.charged_bytes
    }

    /// Within the length.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let at = offset as usize + done;
            let within = at % PAGE_BYTES;
            let bytes = (PAGE_BYTES - within).min(buf.len() - done);
            let out = &mut buf[done..done + bytes];
            match self.pages.get(at / PAGE_BYTES) {
                Some(Some(page)) => out.copy_from_slice(&page[within..within + bytes]),
                _ => out.fill(0),
            }
            done += bytes;
        }
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: u64) {
        if buf.is_empty() {
            return;
        }
        let end = offset + buf.len() as u64;
        self.remember(offset, end);
        self.grow(end);
        self.put(buf, offset);
    }

    pub(super) fn set_len(&mut self, len_bytes: u64) {
        if len_bytes < self.len_bytes {
            self.remember(len_bytes, self.len_bytes);
            self.zero(len_bytes, self.len_bytes);
            self.charged_bytes = self.charged_bytes.min(len_bytes);
        }
        self.len_bytes = len_bytes;
        self.pages.resize((len_bytes as usize).div_ceil(PAGE_BYTES), None);
    }

    pub(super) fn allocate_zeroed(&mut self, len_bytes: u64) {
        let written = self.len_bytes.min(len_bytes);
        self.remember(0, written);
        self.zero(0, written);
        self.grow(len_bytes);
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.durable_len_bytes = self.len_bytes;
    }

    pub(super) fn fail_sync(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            self.lost.entry(sector).or_insert(versions);
        }
    }

    pub(super) fn power_loss(&mut self, random: &mut impl FnMut() -> u64) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let pick = random() as usize % (versions.len() + 1);
            if let Some(content) = versions.into_iter().nth(pick) {
                self.put_sector(sector, content);
            }
        }
        for (sector, versions) in std::mem::take(&mut self.lost) {
            if let Some(content) = versions.into_iter().next() {
                self.put_sector(sector, content);
            }
        }
        if self.len_bytes != self.durable_len_bytes && random().is_multiple_of(2) {
            let (from, to) = (self.durable_len_bytes, self.len_bytes);
            if from < to {
                self.zero(from, to);
            }
            self.len_bytes = from;
            self.pages.resize((from as usize).div_ceil(PAGE_BYTES), None);
        }
        self.durable_len_bytes = self.len_bytes;
        self.charged_bytes = self.charged_bytes.min(self.len_bytes);
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        if offset >= self.len_bytes {
            return;
        }
        let mask = 1 << (bit % 8);
        let within = offset as usize % SECTOR_BYTES;
        for map in [&mut self.unsynced, &mut self.lost] {
            for version in map.entry(offset / SECTOR_BYTES as u64).or_default() {
                version.get_or_insert_with(|| Box::new([0; SECTOR_BYTES]))[within] ^= mask;
            }
            map.retain(|_, versions| !versions.is_empty());
        }
        self.page_mut(offset as usize / PAGE_BYTES)[offset as usize % PAGE_BYTES] ^= mask;
    }

    fn grow(&mut self, end: u64) {
        self.len_bytes = self.len_bytes.max(end);
        self.charged_bytes = self.charged_bytes.max(end);
        let pages = (self.len_bytes as usize).div_ceil(PAGE_BYTES);
        if self.pages.len() < pages {
            self.pages.resize(pages, None);
        }
    }

    /// Keeps what the sectors of a range hold now, before it changes.
    fn remember(&mut self, begin: u64, end: u64) {
        for sector in begin / SECTOR_BYTES as u64..end.div_ceil(SECTOR_BYTES as u64) {
            let now = self.sector(sector);
            if let Some(versions) = self.unsynced.get_mut(&sector) {
                if versions.len() < VERSIONS_MAX {
                    versions.push(now);
                }
            } else {
                let mut versions = self.lost.remove(&sector).unwrap_or_default();
                versions.truncate(VERSIONS_MAX - 1);
                versions.push(now);
                self.unsynced.insert(sector, versions);
            }
        }
    }

    fn sector(&self, sector: u64) -> Sector {
        let at = sector as usize * SECTOR_BYTES;
        let page = self.pages.get(at / PAGE_BYTES)?.as_ref()?;
        let within = at % PAGE_BYTES;
        let mut content = Box::new([0; SECTOR_BYTES]);
        content.copy_from_slice(&page[within..within + SECTOR_BYTES]);
        Some(content)
    }

    fn put_sector(&mut self, sector: u64, content: Sector) {
        let at = sector * SECTOR_BYTES as u64;
        match content {
            Some(content) => {
                let pages = (at as usize + SECTOR_BYTES).div_ceil(PAGE_BYTES);
                if self.pages.len() < pages {
                    self.pages.resize(pages, None);
                }
                self.put(&content[..], at);
            }
            None => self.zero(at, at + SECTOR_BYTES as u64),
        }
    }

    fn put(&mut self, buf: &[u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let at = offset as usize + done;
            let within = at % PAGE_BYTES;
            let bytes = (PAGE_BYTES - within).min(buf.len() - done);
            self.page_mut(at / PAGE_BYTES)[within..within + bytes].copy_from_slice(&buf[done..done + bytes]);
            done += bytes;
        }
    }

    fn zero(&mut self, begin: u64, end: u64) {
        let (mut at, end) = (begin as usize, (end as usize).min(self.pages.len() * PAGE_BYTES));
        while at < end {
            let within = at % PAGE_BYTES;
            let bytes = (PAGE_BYTES - within).min(end - at);
            let page = &mut self.pages[at / PAGE_BYTES];
            if bytes == PAGE_BYTES {
                *page = None;
            } else if let Some(page) = page {
                Arc::make_mut(page)[within..within + bytes].fill(0);
            }
            at += bytes;
        }
    }

    fn page_mut(&mut self, page: usize) -> &mut Page {
        Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(image: &Image) -> Vec<u8> {
        let mut bytes = vec![0; image.len_bytes() as usize];
        image.read(&mut bytes, 0);
        bytes
    }

    #[test]
    fn a_power_loss_keeps_or_loses_each_unsynced_sector() {
        let mut image = Image::durable(&[1; 2048]);
        image.write(&[2; 1024], 512);
        let mut turn = 0;
        image.power_loss(&mut || {
            turn += 1;
            turn % 2
        });
        assert_eq!(bytes(&image), [[1u8; 512], [2; 512], [1; 512], [1; 512]].concat());
    }

    #[test]
    fn what_was_synced_stays_and_any_version_may_survive() {
        let mut image = Image::durable(&[1; 512]);
        for version in 2..=4 {
            image.write(&[version; 512], 0);
        }
        let mut seen = Vec::new();
        for pick in 0..4 {
            let mut copy = image.clone();
            copy.power_loss(&mut || pick);
            seen.push(bytes(&copy)[0]);
        }
        assert_eq!(seen, [1, 2, 3, 4]);
        image.sync();
        image.power_loss(&mut || 0);
        assert_eq!(bytes(&image), [4; 512]);
    }

    #[test]
    fn a_failed_sync_loses_what_it_covered_whatever_later_syncs_say() {
        let mut image = Image::durable(&[1; 1024]);
        image.write(&[2; 1024], 0);
        image.fail_sync();
        image.write(&[3; 512], 512);
        image.sync();
        assert_eq!(bytes(&image)[..512], [2; 512]);
        image.power_loss(&mut || 1);
        assert_eq!(bytes(&image), [[1u8; 512], [3; 512]].concat());
    }

    #[test]
    fn an_unsynced_length_may_be_lost() {
        let mut image = Image::default();
        image.allocate_zeroed(10_000);
        let mut copy = image.clone();
        copy.power_loss(&mut || 0);
        assert_eq!(copy.len_bytes(), 0);
        image.power_loss(&mut || 1);
        assert_eq!(bytes(&image), vec![0; 10_000]);
    }

    #[test]
    fn shrinking_and_growing_reads_zeros() {
        let mut image = Image::durable(&[7; 5000]);
        image.set_len(100);
        image.set_len(6000);
        assert_eq!(bytes(&image)[..100], [7; 100]);
        assert!(bytes(&image)[100..].iter().all(|&b| b == 0));
        image.flip_bit(5999, 0);
        assert_eq!(bytes(&image)[5999], 1);
    }
}
