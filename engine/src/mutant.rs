//! Mistakes on purpose: each turns a promise of the journal off, so that the tests can show that they would see it.
//!
//! Only with the feature `mutants`, which no program that is shipped has; without it `on` is `false` when it
//! is compiled.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` is for tests alone");

#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicU8, Ordering};

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant {
            $($(#[doc = $doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

mutants! {
    /// Records are acknowledged without a sync.
    AckWithoutSync,
    /// A sync that failed is tried again.
    FailedSyncRetried,
    /// A stream goes on after a failed write or sync.
    FailureForgiven,
    /// What did not fit on the disk is forgotten.
    StagedForgotten,
    /// What was written in part is not cut off when the disk is full.
    PartLeftOnFullDisk,
    /// Records that were appended during a write are acknowledged with it.
    AckOfLaterRecords,
    /// A mark is acknowledged and not written.
    MarkForgotten,
    /// A batch does not say how much had been durable before it.
    NoWordOfDurability,
    /// A segment is trimmed of which only the first record may go.
    TrimTooFar,
    /// Segments are trimmed without a sync of their folder.
    TrimUnsynced,
    /// A segment that could not be removed counts as removed.
    TrimFailureForgiven,
    /// A stream goes on after a sync of its folder failed.
    FailedNamesForgiven,
    /// A segment is mended with records that are not compared with what follows them.
    MendedUnproven,
    /// A mended segment is put in place before it is durable.
    MendedUnsynced,
    /// A mended segment counts as in its place before its name is durable.
    MendedNameUnsynced,
    /// A mark that was lost with damage is not missed.
    LostReleaseUnnoticed,
    /// After opening, the last offset is given out again.
    OffsetReused,
    /// A new segment is used before its name is durable.
    NameUnsynced,
    /// A new segment is used if a second sync of its name succeeds.
    FailedNameRetried,
    /// A new segment is used before its head is durable.
    HeadUnsynced,
    /// A segment that could not be begun is left in the way.
    FailedSegmentLeft,
    /// A batch's checksum does not cover its lengths, nor its payload.
    LengthUncovered,
    /// A batch's checksum does not cover how much had been durable before it.
    DurabilityUncovered,
    /// A batch's checksum does not cover the stream, the segment and the position.
    PlaceUncovered,
    /// A batch need not follow the one before it.
    ChainUnchecked,
    /// A reader does not compare the checksum of all records.
    RunningUnchecked,
    /// A state at the head of a segment is not checked.
    HeadUnchecked,
    /// Corruption is cut off as if it was torn.
    CorruptionCut,
    /// A torn end halts the stream.
    TornHalts,
    /// Recovery believes the cache.
    CacheBelieved,
    /// What was recovered is acknowledged without a sync.
    RecoveredUnsynced,
    /// What was recovered is acknowledged without a sync of its names.
    RecoveredNamesUnsynced,
    /// A name of which a sync had failed is believed once another one succeeds.
    NamesNotRenewed,
    /// What was recovered is synced, and not written anew.
    TailNotRewritten,
    /// A seal says nothing of marks.
    SealIgnored,
    /// A torn end is left in the file.
    TornKept,
    /// A segment that was being created is left in the way.
    UnbornKept,
    /// A segment whose head is damaged counts as unborn although it was in use.
    UsedTakenForUnborn,
    /// That a segment was being created is no proof of what is before it.
    UnbornNoWitness,
}

#[cfg(feature = "mutants")]
static ACTIVE: AtomicU8 = AtomicU8::new(u8::MAX);

/// Makes one mistake from now on, in the whole process, or none.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    ACTIVE.store(mutant.map_or(u8::MAX, |mutant| mutant as u8), Ordering::Relaxed);
}

/// Whether to make a mistake.
#[cfg(feature = "mutants")]
pub(crate) fn on(mutant: Mutant) -> bool {
    ACTIVE.load(Ordering::Relaxed) == mutant as u8
}

/// Whether to make a mistake: never.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn on(_: Mutant) -> bool {
    false
}
