//! Any bytes decompress to bounded pieces, the same in whatever pieces they come, or to an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_transport::wire::Decompressor;

fuzz_target!(|input: &[u8]| {
    let Some((&[piece], bytes)) = input.split_first_chunk() else { return };
    let whole = decompress(bytes, bytes.len());
    let pieces = decompress(bytes, piece.into());
    let shared = whole.0.len().min(pieces.0.len());
    assert_eq!(whole.0[..shared], pieces.0[..shared]);
    if !(whole.1 || pieces.1) {
        assert_eq!(whole, pieces);
    }
});

/// What comes out, up to a bound, and whether it was an error that ended it.
fn decompress(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let mut decompressor = Decompressor::new().expect("there is memory for one");
    let mut out = Vec::new();
    for mut chunk in bytes.chunks(piece.max(1)) {
        loop {
            let before = chunk.len();
            let Ok(made) = decompressor.pull(&mut chunk) else { return (out, true) };
            assert!(made.len() <= PIECE_MAX);
            out.extend_from_slice(made);
            if out.len() > OUT_MAX {
                return (out, true);
            }
            if made.is_empty() && chunk.is_empty() {
                break;
            }
            assert!(!made.is_empty() || chunk.len() < before, "neither takes nor gives");
        }
    }
    (out, false)
}

/// What comes out at a time at most.
const PIECE_MAX: usize = 32 << 10;

/// When enough came out of an input of a few bytes.
const OUT_MAX: usize = 256 << 10;
