//! How a valid input is bent.

use crate::random::Random;

/// Lengths and counts that are likely to hurt.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    (1 << 53) + 1,
    i64::MAX as u64,
    u64::MAX,
];

/// One of `seeds`, changed in up to eight places; sometimes noise.
pub fn bytes(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    if seeds.is_empty() || random.chance(20) {
        return (0..random.below(64)).map(|_| random.draw() as u8).collect();
    }
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..random.below(8) {
        change(random, &mut bytes, seeds);
    }
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = random.below(bytes.len() as u64 + 1) as usize;
    match random.below(9) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.draw() as u8;
            }
        }
        3 => bytes.truncate(at),
        4 => overwrite(bytes, at, &number(random)),
        5 => insert(bytes, at, &number(random)),
        6 => {
            let to = (at + random.below(16) as usize).min(bytes.len());
            bytes.drain(at..to);
        }
        7 => {
            let to = (at + random.below(64) as usize).min(bytes.len());
            let again = bytes[at..to].to_vec();
            insert(bytes, at, &again);
        }
        _ => {
            let other = random.pick(seeds);
            let from = random.below(other.len() as u64 + 1) as usize;
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

/// A number as formats write it: little endian of some width, or a varint, whole or without end.
fn number(random: &mut Random) -> Vec<u8> {
    let mut number = *random.pick(&NUMBERS);
    match random.below(4) {
        0 => (number as u32).to_le_bytes().to_vec(),
        1 => number.to_le_bytes().to_vec(),
        2 => vec![0xff; random.between(1, 12) as usize],
        _ => {
            let mut varint = Vec::new();
            while number > 0x7f {
                varint.push(number as u8 | 0x80);
                number >>= 7;
            }
            varint.push(number as u8);
            varint
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(with) {
        *byte = *new;
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_case_is_the_same_input_and_most_differ_from_their_seed() {
        let seeds = vec![b"some valid input".to_vec(), vec![7; 100]];
        let all: Vec<_> = (0..200).map(|case| bytes(&mut Random::new(case), &seeds)).collect();
        assert_eq!(all[7], bytes(&mut Random::new(7), &seeds));
        assert!(all.iter().filter(|bytes| !seeds.contains(bytes)).count() > 150);
        assert!(all.iter().any(|bytes| seeds.contains(bytes)), "what is valid is fed, too");
    }
}
