//! Rows of version 2: a row of version 1, and behind it how busy the machine was meanwhile.
//! Nothing here changes any more; another layout is another file.

use serde::{Deserialize, Serialize};

use super::{Damaged, row_1};
use crate::generate::{Load, MEASURES, Outcome, Reading};

type Parts = [Option<u64>; MEASURES];

#[derive(Serialize, Deserialize)]
struct Busy {
    start: Parts,
    peak: Parts,
}

/// The row of an outcome, behind the number of its version.
pub(super) fn write(version: u8, it: &Outcome, load: Load) -> Vec<u8> {
    let busy = Busy { start: load.start.parts(), peak: load.peak.parts() };
    // Numbers only: there is nothing to fail on.
    postcard::to_extend(&busy, row_1::write(version, it)).unwrap_or_default()
}

/// The outcome of a row.
pub(super) fn read(row: &[u8]) -> Result<Outcome, Damaged> {
    let (outcome, rest) = row_1::take(row)?;
    let (busy, rest) = postcard::take_from_bytes::<Busy>(rest).map_err(|_| Damaged)?;
    if !rest.is_empty() {
        return Err(Damaged);
    }
    let load = Load { start: Reading::from_parts(busy.start), peak: Reading::from_parts(busy.peak) };
    Ok(Outcome { load: Some(load), ..outcome })
}
