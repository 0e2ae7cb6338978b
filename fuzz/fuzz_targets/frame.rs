//! Any bytes are frames that encode to themselves again, in whatever pieces they come, or an error.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use thinwire_transport::frame::{
    Control, ControlDecoder, DataDecoder, DataFrame, FrameError, data_header, put_opening,
};

fuzz_target!(|input: &[u8]| {
    let Some((&[piece], bytes)) = input.split_first_chunk() else { return };
    let mut decoder = ControlDecoder::default();
    let whole = control(&mut decoder, bytes, bytes.len());
    assert_eq!(control(&mut ControlDecoder::default(), bytes, piece.into()), whole);
    for frame in &whole.0 {
        let mut again = Vec::new();
        // What came in a longer form than ours may be too long to be sent, by a few bytes.
        if frame.encode(&mut again).is_ok() {
            let read = control(&mut ControlDecoder::default(), &again, again.len());
            assert_eq!(read, (vec![frame.clone()], None));
        }
    }
    let whole = data(bytes, bytes.len());
    assert_eq!(data(bytes, piece.into()), whole);
    let again: Vec<u8> = whole.0.iter().flat_map(encoded).collect();
    assert_eq!(data(&again, again.len()), (whole.0, None));
});

type Read<T> = (Vec<T>, Option<FrameError>);

fn control(decoder: &mut ControlDecoder, bytes: &[u8], piece: usize) -> Read<Control> {
    read(bytes, piece, decoder, ControlDecoder::push, ControlDecoder::next_frame)
}

fn data(bytes: &[u8], piece: usize) -> Read<DataFrame> {
    let decoder = &mut DataDecoder::default();
    read(bytes, piece, decoder, DataDecoder::push, DataDecoder::next_frame)
}

/// The frames up to the first that is none, and why it is none.
fn read<D, T: Debug>(
    bytes: &[u8],
    piece: usize,
    decoder: &mut D,
    push: fn(&mut D, &[u8]),
    next: fn(&mut D) -> Result<Option<T>, FrameError>,
) -> Read<T> {
    let mut frames = Vec::new();
    for chunk in bytes.chunks(piece.max(1)) {
        push(decoder, chunk);
        loop {
            match next(decoder) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn encoded(frame: &DataFrame) -> Vec<u8> {
    let mut out = Vec::new();
    match frame {
        DataFrame::Open(opening) => put_opening(opening, &mut out),
        DataFrame::Records { index, first, records } => {
            data_header(*index, *first, records, &mut out);
            out.extend_from_slice(records.bytes());
        }
    }
    out
}
