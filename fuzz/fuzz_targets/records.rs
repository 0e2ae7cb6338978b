//! Any bytes are a run of records that can be cut anywhere without loss, or an error.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    journal::Tail,
    model::{Offset, Running},
};

fuzz_target!(|input: &[u8]| {
    let Some((&[count, cut], bytes)) = input.split_first_chunk() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(records) = Records::parse(bytes.clone(), count.into()) else { return };
    assert_eq!((records.bytes(), records.count()), (&bytes, count.into()));
    assert_eq!(records.iter().count(), usize::from(count));

    let cut = u64::from(cut).min(records.span());
    let (before, behind) = (records.until(cut), records.after(cut));
    let straddled = records.span() - before.span() - behind.span();
    assert_eq!(before.span() + straddled, cut);
    if straddled == 0 {
        let mut both = RecordsBuf::new();
        both.append(&before);
        both.append(&behind);
        assert_eq!(both.take(), records);
    }
    let running = records.running(Running::START);
    assert_eq!(behind.running(before.running(Running::START)), running);

    let mut tail = Tail::default();
    let decoded: Result<Vec<_>, _> = records.decode(Offset::FIRST).collect();
    if tail.observe(&records).is_ok() {
        assert_eq!((tail.next, tail.running), (Offset::FIRST.forward(records.span()), running));
        assert!(tail.complete < tail.next);
    } else {
        assert!(decoded.is_err(), "what decodes is refused by the stream");
    }
});
