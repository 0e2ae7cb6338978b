//! The applied offset of an origin's stream, kept in the same transaction as the rows: table `thinwire.applied`.
//!
//! One row an origin. It is moved only from where we believe it is, so that of two who apply the same stream, however
//! that came about, one does not commit. A new epoch takes the row over with its first commit and the old one is
//! noted as superseded: it can never take it back. What it says is believed only with the node's [`Seal`](crate::Seal) on it.

use thinwire_engine::model::{Epoch, Halt, Lsn, Offset, StreamId, Timestamp};

use crate::{Progress, SinkError};

/// What the row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Whose positions it holds, as text; empty if there is no row.
    pub(crate) epoch: String,
    /// The offset.
    pub(crate) progress: Progress,
    /// Epochs that were replaced.
    pub(crate) superseded: Vec<String>,
    /// The seal on it, as it was read.
    pub(crate) seal: Option<String>,
}

impl Stored {
    /// There is no row: no epoch has that name.
    pub(crate) fn nothing() -> Self {
        Self {
            epoch: String::new(),
            progress: Progress::default(),
            superseded: Vec::new(),
            seal: None,
        }
    }

    /// What the row means for a stream.
    pub(crate) fn progress_of(&self, stream: StreamId) -> Result<Progress, SinkError> {
        let epoch = stream.epoch.to_string();
        if self.superseded.contains(&epoch) {
            let detail = format!(
                "the database follows a newer stream of this origin, epoch {}; this one is over",
                self.epoch
            );
            return Err(SinkError::Refused(Box::new(Halt::new("other", detail))));
        }
        match self.epoch == epoch {
            true => Ok(self.progress),
            false => Ok(Progress::default()),
        }
    }

    /// What the row says once a stream's progress is committed.
    pub(crate) fn moved(&mut self, epoch: Epoch, progress: Progress) {
        let epoch = epoch.to_string();
        if self.epoch != epoch {
            let before = std::mem::replace(&mut self.epoch, epoch);
            self.superseded.extend(Some(before).filter(|before| !before.is_empty()));
        }
        self.progress = progress;
    }
}

/// Reads the columns of a row, which are all text: offset, LSN, microseconds since 1970.
pub(crate) fn parse(
    offset: &str,
    lsn: Option<&str>,
    time: Option<&str>,
) -> Result<Progress, SinkError> {
    let senseless = || SinkError::refused("other", "thinwire.applied holds an offset that is none");
    let offset = offset.parse().map(Offset::new).map_err(|_| senseless())?;
    let lsn = lsn.map(str::parse::<Lsn>).transpose().map_err(|_| senseless())?;
    let time = time.and_then(|micros| micros.parse::<i64>().ok());
    let time = time.map(|micros| Timestamp::from_micros(micros - EPOCH_2000));
    Ok(Progress { offset, lsn, time })
}

/// A refusal that is about the table.
pub(crate) fn refused(code: &str, detail: impl Into<String>) -> SinkError {
    let table = Some("thinwire.applied".to_owned());
    SinkError::Refused(Box::new(Halt { table, ..Halt::new(code, detail) }))
}

/// Microseconds from 1970 to 2000, the beginning of PostgreSQL's time.
const EPOCH_2000: i64 = 946_684_800_000_000;

#[cfg(test)]
mod tests {
    use thinwire_engine::model::Origin;

    use super::*;

    fn stream(epoch: u8) -> StreamId {
        let origin = Origin::from_bytes([1; 16]);
        StreamId { origin, epoch: Epoch::from_bytes([epoch; 16]) }
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_an_old_one_is_refused() {
        let mut stored = Stored::nothing();
        assert_eq!(stored.progress_of(stream(1)), Ok(Progress::default()));
        let progress = Progress { offset: Offset::new(9), ..Progress::default() };
        stored.moved(stream(1).epoch, progress);
        assert_eq!(stored.progress_of(stream(1)), Ok(progress));
        assert_eq!(stored.progress_of(stream(2)), Ok(Progress::default()));
        stored.moved(stream(2).epoch, progress);
        assert!(stored.progress_of(stream(1)).is_err());
        assert_eq!(stored.progress_of(stream(2)), Ok(progress));
        assert!(stored.progress_of(stream(3)).is_ok());
        // As the database has it, which never heard of an epoch before the first.
        assert_eq!(stored.superseded, [stream(1).epoch.to_string()]);
    }

    #[test]
    fn positions_and_times_are_read_back() {
        let read = parse("7", Some("1/F"), Some("946684800000001")).unwrap();
        assert_eq!(read.offset, Offset::new(7));
        assert_eq!(read.lsn, Some(Lsn::new(0x1_0000_000F)));
        assert_eq!(read.time, Some(Timestamp::from_micros(1)));
        assert!(parse("x", None, None).is_err());
    }
}
