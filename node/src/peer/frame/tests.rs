use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const MAX: usize = 1 << 20;

fn encode(lane: LaneKind, payloads: &[Bytes]) -> Bytes {
    let mut batch = FrameBatch::new(lane, payloads.iter().cloned());
    batch.copy_to_bytes(batch.remaining())
}

/// Feeds `bytes` in pieces of the given sizes (the last one repeats).
fn decode_in_pieces(mut bytes: Bytes, sizes: &[usize], max: usize) -> Result<Vec<Bytes>, FrameError> {
    let mut decoder = Decoder::new(LaneKind::Message, max);
    let mut payloads = Vec::new();
    for size in sizes.iter().chain(std::iter::repeat(&sizes[sizes.len() - 1])) {
        if bytes.is_empty() {
            break;
        }
        let piece = bytes.split_to((*size).clamp(1, bytes.len()));
        decoder.feed(piece, &mut payloads)?;
        assert!(decoder.buffered_bytes() <= 2 * (max + HEADER_BYTES) + GROW_BYTES);
    }
    Ok(payloads)
}

#[test]
fn the_layout_is_pinned() {
    let bytes = encode(LaneKind::Message, &[Bytes::from_static(b"raft")]);
    assert_eq!(&bytes[..8], [4, 0, 0, 0, 1, 1, 0, 0]);
    let checksum = crc32c::crc32c(b"\x04\0\0\0\x01\x01\0\0raft");
    assert_eq!(&bytes[8..12], checksum.to_le_bytes());
    assert_eq!(&bytes[12..], b"raft");
    assert_eq!(encode(LaneKind::Bulk, &[Bytes::new()])[4], 2);
}

#[test]
fn large_payloads_are_not_copied() {
    let large = Bytes::from(vec![7; COPY_BYTES_MAX + 1]);
    let batch = FrameBatch::new(LaneKind::Bulk, [Bytes::from_static(b"small"), large.clone()]);
    assert_eq!(batch.segments.len(), 2, "two headers and the small payload; the large payload");
    assert_eq!(batch.segments[1].as_ptr(), large.as_ptr());
}

#[test]
fn a_length_above_the_limit_is_refused_before_memory_is_taken() {
    let mut bytes = encode(LaneKind::Message, &[Bytes::from_static(b"x")]).to_vec();
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    for cut in [HEADER_BYTES, 1] {
        let mut decoder = Decoder::new(LaneKind::Message, MAX);
        let mut payloads = Vec::new();
        let mut rest = Bytes::from(bytes.clone());
        let _ = decoder.feed(rest.split_to(cut), &mut payloads);
        let error = decoder.feed(rest, &mut payloads).unwrap_err();
        assert_eq!(error, FrameError::TooLarge { length: u32::MAX as usize, max: MAX });
        assert_eq!(decoder.buffered_bytes(), 0);
    }
}

#[test]
fn a_claimed_length_takes_memory_only_as_bytes_arrive() {
    let mut decoder = Decoder::new(LaneKind::Message, 64 << 20);
    let mut head = encode(LaneKind::Message, &[Bytes::new()]).to_vec();
    head[..4].copy_from_slice(&(60_u32 << 20).to_le_bytes());
    decoder.feed(Bytes::from(head), &mut Vec::new()).unwrap();
    assert!(decoder.buffered_bytes() <= 2 * GROW_BYTES, "{} bytes for 12", decoder.buffered_bytes());
}

#[test]
fn the_other_lane_and_reserved_bits_are_refused() {
    let good = encode(LaneKind::Message, &[Bytes::from_static(b"x")]);
    for (at, value) in [(4, 2), (4, 0), (4, 9), (5, 0), (5, 2), (6, 1), (7, 1)] {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        let error = decode_in_pieces(Bytes::from(bytes), &[99], MAX).unwrap_err();
        assert!(matches!(error, FrameError::Unknown { .. }), "{error} for byte {at} = {value}");
    }
}

#[test]
fn after_an_error_nothing_more_is_given() {
    let mut decoder = Decoder::new(LaneKind::Message, MAX);
    let good = encode(LaneKind::Message, &[Bytes::from_static(b"x")]);
    let mut bad = good.to_vec();
    bad[12] ^= 1;
    let mut payloads = Vec::new();
    assert_eq!(decoder.feed(Bytes::from(bad), &mut payloads), Err(FrameError::Checksum));
    assert_eq!(decoder.feed(good, &mut payloads), Err(FrameError::Checksum));
    assert!(payloads.is_empty());
}

#[test]
fn keepalives_are_swallowed_wherever_they_are() {
    let mut keepalive = FrameBatch::keepalive();
    let keepalive = keepalive.copy_to_bytes(keepalive.remaining());
    let frame = encode(LaneKind::Message, &[Bytes::from_static(b"x")]);
    let bytes = [keepalive.clone(), frame.clone(), keepalive.clone(), frame, keepalive].concat();
    for size in [1, 5, 13, 999] {
        let payloads = decode_in_pieces(Bytes::from(bytes.clone()), &[size], MAX).unwrap();
        assert_eq!(payloads, ["x", "x"], "in pieces of {size}");
    }
}

fn payloads() -> impl Strategy<Value = Vec<Bytes>> {
    let size = prop_oneof![0_usize..40, 4_000_usize..4_200, 65_000_usize..70_000];
    vec((size, any::<u8>()).prop_map(|(size, byte)| Bytes::from(vec![byte; size])), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_encoded_is_decoded_whatever_the_pieces(
        payloads in payloads(),
        sizes in vec(prop_oneof![1_usize..30, 1_000_usize..100_000], 1..20),
    ) {
        let bytes = encode(LaneKind::Message, &payloads);
        prop_assert_eq!(decode_in_pieces(bytes, &sizes, MAX), Ok(payloads));
    }

    #[test]
    fn a_batch_is_the_same_bytes_however_it_is_taken(
        payloads in payloads(),
        steps in vec(1_usize..90_000, 1..20),
    ) {
        let whole = encode(LaneKind::Bulk, &payloads);
        let mut batch = FrameBatch::new(LaneKind::Bulk, payloads);
        let mut taken = Vec::new();
        for step in steps.iter().cycle() {
            if !batch.has_remaining() {
                break;
            }
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = batch.chunks_vectored(&mut slices);
            let vectored: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            let step = (*step).min(vectored.len());
            taken.extend_from_slice(&vectored[..step]);
            batch.advance(step);
        }
        prop_assert_eq!(taken, whole);
    }

    #[test]
    fn garbage_is_refused_or_waited_for_but_never_delivered(
        bytes in vec(any::<u8>(), 0..5_000),
        sizes in vec(1_usize..300, 1..8),
    ) {
        if let Ok(payloads) = decode_in_pieces(Bytes::from(bytes), &sizes, 4_096) {
            prop_assert!(payloads.is_empty());
        }
    }

    #[test]
    fn garbage_behind_a_plausible_header_is_found(
        length in 0_u32..6_000,
        rest in vec(any::<u8>(), 4..7_000),
        sizes in vec(1_usize..3_000, 1..8),
    ) {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[1, FRAME_VERSION, 0, 0]);
        bytes.extend_from_slice(&rest);
        if let Ok(payloads) = decode_in_pieces(Bytes::from(bytes), &sizes, 4_096) {
            prop_assert!(payloads.is_empty());
        }
    }

    #[test]
    fn every_flipped_bit_is_found(
        payload in vec(any::<u8>(), 0..200),
        bit in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(LaneKind::Message, &[Bytes::from(payload)]).to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A length grown by the flip waits for bytes that never come; anything else is an error.
        let decoded = decode_in_pieces(Bytes::from(bytes), &[7], MAX);
        prop_assert!(decoded.is_err() || decoded == Ok(vec![]));
    }
}
