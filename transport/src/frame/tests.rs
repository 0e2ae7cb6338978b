//! Frames come back as they went, in whatever pieces; garbage is an error and never a panic.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    model::{Epoch, Lsn, Offset, Origin, Record, Running, StreamId, View},
};

use super::*;
use crate::peer::Streams;

fn stream_id() -> impl Strategy<Value = StreamId> {
    any::<([u8; 16], [u8; 16])>().prop_map(|(origin, epoch)| StreamId {
        origin: Origin::from_bytes(origin),
        epoch: Epoch::from_bytes(epoch),
    })
}

fn holding() -> impl Strategy<Value = Holding> {
    (stream_id(), any::<(u64, u64, u32, bool, u64, u64)>()).prop_map(|(stream, fields)| {
        let (first, last, running, in_copy, durable, applied) = fields;
        Holding {
            stream,
            view: View::FULL,
            first: Offset::new(first),
            last: Offset::new(last),
            running: Running::new(running),
            in_copy,
            durable: Offset::new(durable),
            applied: Offset::new(applied),
            room: in_copy ^ (last % 2 == 0),
        }
    })
}

fn control() -> impl Strategy<Value = Control> {
    let wants = prop_oneof![
        Just(Streams::Own),
        Just(Streams::All),
        vec(any::<[u8; 16]>().prop_map(Origin::from_bytes), 0..5).prop_map(Streams::Listed),
    ];
    let hello = (any::<(String, u64, bool, bool)>(), wants, vec(holding(), 0..5)).prop_map(
        |((name, instance, replaces, paused), wants, holds)| {
            Control::Hello(Hello { name, instance, replaces, paused, wants, holds })
        },
    );
    let ack = (any::<(u32, u64, u64)>(), option::of(any::<u32>())).prop_map(
        |((index, durable, applied), running)| Ack {
            index,
            durable: Offset::new(durable),
            applied: Offset::new(applied),
            running: running.map(Running::new),
        },
    );
    prop_oneof![
        hello,
        vec(holding(), 0..5).prop_map(Control::Holds),
        vec(ack, 0..9).prop_map(Control::Acks),
        (stream_id(), any::<(String, String)>())
            .prop_map(|(stream, (code, detail))| Control::Stop(Stop { stream, code, detail })),
        (stream_id(), any::<u64>(), option::of(any::<u32>())).prop_map(|(stream, at, running)| {
            let prefix = Prefix { stream, at: Offset::new(at) };
            match running {
                None => Control::Prove(prefix),
                some => Control::Proof(prefix, some.filter(|it| it % 2 == 0).map(Running::new)),
            }
        }),
        any::<bool>().prop_map(Control::Pause),
        (stream_id(), vec(any::<[u8; 16]>(), 0..4), vec(any::<[u8; 16]>(), 0..4)).prop_map(
            |(stream, audience, carriers)| {
                let origins =
                    |ids: Vec<[u8; 16]>| ids.into_iter().map(Origin::from_bytes).collect();
                Control::Copy(CopyRequest {
                    stream,
                    audience: origins(audience),
                    carriers: origins(carriers),
                })
            }
        ),
    ]
}

fn records() -> impl Strategy<Value = Records> {
    vec(any::<u64>(), 1..20).prop_map(|ends| {
        let mut buf = RecordsBuf::new();
        ends.into_iter().for_each(|end| buf.push(&Record::Commit { end: Lsn::new(end) }));
        buf.take()
    })
}

fn data() -> impl Strategy<Value = DataFrame> {
    let opening = (any::<u32>(), stream_id(), 1_u64.., option::of(any::<u32>())).prop_map(
        |(index, stream, next, running)| {
            DataFrame::Open(Opening {
                index,
                stream,
                view: View::FULL,
                next: Offset::new(next),
                running: running.map(Running::new),
            })
        },
    );
    let records = (any::<u32>(), 1_u64..1 << 40, records()).prop_map(|(index, first, records)| {
        DataFrame::Records { index, first: Offset::new(first), records }
    });
    prop_oneof![opening, records]
}

fn encode_data(frame: &DataFrame) -> Vec<u8> {
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

proptest! {
    #[test]
    fn control_frames_come_back_in_whatever_pieces(
        frames in vec(control(), 1..6),
        piece in 1_usize..200,
    ) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes).unwrap());
        let (mut decoder, mut got) = (ControlDecoder::default(), Vec::new());
        for chunk in bytes.chunks(piece) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame().unwrap() {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, frames);
    }

    #[test]
    fn data_frames_come_back_in_whatever_pieces(
        frames in vec(data(), 1..6),
        piece in 1_usize..200,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(encode_data).collect();
        let (mut decoder, mut got) = (DataDecoder::default(), Vec::new());
        for chunk in bytes.chunks(piece) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame().unwrap() {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, frames);
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..600)) {
        let mut control = ControlDecoder::default();
        control.push(&bytes);
        while let Ok(Some(_)) = control.next_frame() {}
        let mut data = DataDecoder::default();
        data.push(&bytes);
        while let Ok(Some(_)) = data.next_frame() {}
    }

    #[test]
    fn a_flipped_bit_never_panics(frame in control(), data in data(), at: usize, bit in 0..8) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        let place = at % bytes.len();
        bytes[place] ^= 1_u8 << bit;
        let mut decoder = ControlDecoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}

        let mut bytes = encode_data(&data);
        let place = at % bytes.len();
        bytes[place] ^= 1_u8 << bit;
        let mut decoder = DataDecoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }
}

#[test]
fn a_full_hello_fits_into_its_frame() {
    let longest = Holding {
        stream: StreamId {
            origin: Origin::from_bytes([0xFF; 16]),
            epoch: Epoch::from_bytes([0xFF; 16]),
        },
        view: View::FULL,
        first: Offset::new(u64::MAX),
        last: Offset::new(u64::MAX),
        running: Running::new(u32::MAX),
        in_copy: true,
        durable: Offset::new(u64::MAX),
        applied: Offset::new(u64::MAX),
        room: true,
    };
    let frame = Control::Holds(vec![longest; STREAMS_PER_FRAME_MAX]);
    let mut bytes = Vec::new();
    frame.encode(&mut bytes).unwrap();
    assert!(bytes.len() < STREAMS_PER_FRAME_MAX * 100);

    let frame = Control::Holds(vec![longest; 1_000]);
    assert!(matches!(frame.encode(&mut Vec::new()), Err(FrameError::TooLong { .. })));
    let frame = Control::Acks(vec![
        Ack {
            index: 0,
            durable: Offset::ZERO,
            applied: Offset::ZERO,
            running: None
        };
        STREAMS_PER_FRAME_MAX + 1
    ]);
    let mut bytes = Vec::new();
    frame.encode(&mut bytes).unwrap();
    let mut decoder = ControlDecoder::default();
    decoder.push(&bytes);
    assert!(matches!(decoder.next_frame(), Err(FrameError::Malformed(_))));
}

#[test]
fn another_version_is_named_whatever_follows() {
    let mut decoder = ControlDecoder::default();
    decoder.push(&[6, 0, 1, 9, 0, 0xC1, 0xC1, 0xC1]);
    let error = decoder.next_frame().unwrap_err();
    assert_eq!(error, FrameError::Version { theirs: 9, ours: PROTOCOL_VERSION });
}

#[test]
fn deep_nesting_is_refused() {
    let mut bytes = vec![0, 0, 4];
    bytes.extend_from_slice(&[0x91; 10_000]);
    let length = u16::try_from(bytes.len() - 2).unwrap();
    bytes[..2].copy_from_slice(&length.to_le_bytes());
    let mut decoder = ControlDecoder::default();
    decoder.push(&bytes);
    assert!(matches!(decoder.next_frame(), Err(FrameError::Malformed(_))));
}

#[test]
fn a_length_is_refused_before_anything_is_allocated_for_it() {
    let mut decoder = DataDecoder::default();
    decoder.push(&[2, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { .. })));
    let mut decoder = DataDecoder::default();
    decoder.push(&[1, 0xFF, 0x01]);
    assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { max: 128, .. })));
    let mut decoder = DataDecoder::default();
    decoder.push(&[2, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert!(matches!(decoder.next_frame(), Err(FrameError::Malformed(_))));
}

#[test]
fn records_that_lie_about_their_number_are_refused() {
    let records = Records::one(&Record::Abort);
    let mut bytes = Vec::new();
    data_header(0, Offset::new(1), &records, &mut bytes);
    bytes.extend_from_slice(records.bytes());
    *bytes.get_mut(4).unwrap() = 2;
    let mut decoder = DataDecoder::default();
    decoder.push(&Bytes::from(bytes));
    assert!(matches!(decoder.next_frame(), Err(FrameError::Records(_))));
}

#[test]
fn a_long_frame_whose_stream_cannot_be_known_is_refused_before_it_is_gathered() {
    let long = [2, 0x80, 0x80, 0x80, 0x01];
    let mut decoder = DataDecoder::default();
    decoder.push(&long);
    decoder.push(&[0x80; 4]);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert_eq!(decoder.announced(), None);
    decoder.push(&[0x80]);
    assert!(decoder.next_frame().is_err());
}

#[test]
fn a_number_of_too_many_digits_is_the_same_mistake_however_much_of_the_frame_is_there() {
    let frame = [&[2, 12][..], &[0x84; 12]].concat();
    let read = |piece: usize| {
        let mut decoder = DataDecoder::default();
        let pushed = frame.chunks(piece).find_map(|chunk| {
            decoder.push(chunk);
            decoder.next_frame().err()
        });
        pushed.unwrap()
    };
    assert_eq!(read(1), read(frame.len()));
}
