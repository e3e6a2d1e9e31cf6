//! The format, byte for byte. If this fails, logs that exist can no longer be read: raise the version instead.

mod support;

use balsa_log::{Log, LogConfig, LogStart, LogWrite, SimDisk};
use balsa_raft::{Entry, EntryKind, HardState, Index, NodeId, Term};
use bytes::Bytes;
use std::fmt::Write;
use support::{IDENTITY, folder, path};

/// Offset, bytes in hex, 32 a line; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, bytes) in bytes.chunks(32).enumerate() {
        if bytes.iter().any(|&byte| byte != 0) {
            write!(out, "{:05x}", line * 32).unwrap();
            for word in bytes.chunks(8) {
                out.push(' ');
                word.iter().for_each(|byte| write!(out, "{byte:02x}").unwrap());
            }
            out.push('\n');
        }
    }
    out
}

#[test]
fn a_small_log() {
    let disk = SimDisk::new();
    let config = LogConfig { segment_bytes: 16384, max_record_bytes: 1024, recycle_segments: 1, salt: 42 };
    let start = LogStart { index: Index(0), term: Term(0), membership: Bytes::from_static(b"none") };
    let hard_state = HardState { term: Term(1), vote: Some(NodeId(0xa1)) };
    let entry = |index, term, kind, data: &'static str| Entry {
        index: Index(index),
        term: Term(term),
        kind,
        data: Bytes::from_static(data.as_bytes()),
    };
    let first = entry(1, 1, EntryKind::Membership, "members");
    let mut log = Log::create(folder(&disk), config, IDENTITY, start, hard_state, &[first]).unwrap();
    let entries = [entry(2, 1, EntryKind::Noop, ""), entry(3, 1, EntryKind::Command, "put")];
    log.append(&LogWrite { entries: &entries, ..LogWrite::default() }).unwrap();
    log.sync().unwrap();
    let hard_state = Some(HardState { term: Term(2), vote: None });
    let entries = [entry(3, 2, EntryKind::Noop, "")];
    log.append(&LogWrite { hard_state, entries: &entries, ..LogWrite::default() }).unwrap();
    log.sync().unwrap();
    let to = |index, term| LogStart {
        index: Index(index),
        term: Term(term),
        membership: Bytes::from_static(b"m"),
    };
    log.release(&to(2, 1)).unwrap();
    log.append(&LogWrite { reset: Some(&to(9, 2)), ..LogWrite::default() }).unwrap();
    log.mark().unwrap();

    let bytes = disk.contents(&path("0000000000000001.log")).unwrap();
    assert_eq!(bytes.len(), 16384);
    let dump = dump(&bytes);
    assert_eq!(dump, GOLDEN, "found:\n{dump}");
    assert_eq!(disk.contents(&path("0000000000000000.spare")), Some(vec![0; 16384]));
}

const GOLDEN: &str = "\
00000 42414c53414c4f47 0100000000000000 c100000000000000 a100000000000000
00020 0100000000000000 0040000000000000 eab5e30d2f3712dd 119d091f00000000
01000 42615463d20ee904 eab5e30d2f3712dd 0100000000000000 4e00000000000000
01020 0010000000000000 0100000000000000 0010000000000000 0000000061c2e614
01040 0701000000000000 00a1000000000000 0000000000000000 0000000000000000
01060 00040000006e6f6e 6500000000000000 0002010000000000 0000010000000000
01080 000002070000006d 656d626572730000 0000000000000000 0000000000000000
01200 42615463b9b4dc74 eab5e30d2f3712dd 0200000000000000 0100000000000000
01220 0012000000000000 0100000000000000 0012000000000000 000000007d8be1cb
01240 0600000000000000 0000000000000000 0000000000000000 0000000000000000
01400 426154630eef4583 eab5e30d2f3712dd 0300000000000000 2f00000000000000
01420 0014000000000000 0100000000000000 0014000000000000 00000000fc3dea39
01440 0202000000000000 0001000000000000 0000000000000203 0000000000000001
01460 0000000000000001 0300000070757400 0000000000000000 0000000000000000
01600 426154631521bbc6 eab5e30d2f3712dd 0400000000000000 3000000000000000
01620 0016000000000000 0100000000000000 0016000000000000 00000000cc9331ed
01640 0102000000000000 0000000000000000 0003020000000000 0000020300000000
01660 0000000200000000 0000000000000000 0000000000000000 0000000000000000
01800 426154631227e7d7 eab5e30d2f3712dd 0500000000000000 1600000000000000
01820 0018000000000000 0100000000000000 0018000000000000 00000000de44d8a9
01840 0502000000000000 0001000000000000 00010000006d0000 0000000000000000
01a00 4261546356e8c9a5 eab5e30d2f3712dd 0600000000000000 1600000000000000
01a20 001a000000000000 0100000000000000 001a000000000000 000000008e1e1a2a
01a40 0409000000000000 0002000000000000 00010000006d0000 0000000000000000
01c00 42615463b9b4dc74 eab5e30d2f3712dd 0700000000000000 0100000000000000
01c20 001c000000000000 0100000000000000 001c000000000000 00000000c5e671c5
01c40 0600000000000000 0000000000000000 0000000000000000 0000000000000000
";
