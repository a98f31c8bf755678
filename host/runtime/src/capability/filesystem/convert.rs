//! Between the scratch's words and WASI's.

use crate::scratch::{Kind, ScratchError, Stat};
use std::time::Duration;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::*;

pub(super) fn code(error: ScratchError) -> ErrorCode {
    match error {
        ScratchError::NoEntry => ErrorCode::NoEntry,
        ScratchError::Exists => ErrorCode::Exist,
        ScratchError::NotDirectory => ErrorCode::NotDirectory,
        ScratchError::IsDirectory => ErrorCode::IsDirectory,
        ScratchError::NotEmpty => ErrorCode::NotEmpty,
        ScratchError::NotPermitted => ErrorCode::NotPermitted,
        ScratchError::Invalid => ErrorCode::Invalid,
        ScratchError::Busy => ErrorCode::Busy,
        ScratchError::NameTooLong => ErrorCode::NameTooLong,
        // Languages know it as a disk that is full, whatever it is full of.
        ScratchError::Full(_) => ErrorCode::InsufficientSpace,
    }
}

pub(super) fn from_kind(kind: Kind) -> DescriptorType {
    match kind {
        Kind::File => DescriptorType::RegularFile,
        Kind::Directory => DescriptorType::Directory,
    }
}

pub(super) fn from_stat(stat: Stat) -> DescriptorStat {
    let time =
        |since: Duration| Some(Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() });
    DescriptorStat {
        type_: from_kind(stat.kind),
        link_count: stat.linked.into(),
        size: stat.size,
        data_access_timestamp: time(stat.accessed),
        data_modification_timestamp: time(stat.modified),
        status_change_timestamp: time(stat.changed),
    }
}

/// The time that is to be set, if one is.
pub(super) fn new_time(time: NewTimestamp, now: Duration) -> Result<Option<Duration>, ErrorCode> {
    match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(now)),
        NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) => {
            let nanoseconds = Duration::from_nanos(nanoseconds.into());
            let time = Duration::from_secs(seconds).checked_add(nanoseconds);
            time.map(Some).ok_or(ErrorCode::Overflow)
        }
    }
}
