//! Numbers as bytes, seven bits at a time: nearly all that we keep are small.

use crate::generate::Histogram;

/// What was read is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged statistics")]
pub struct Damaged;

/// Appends a number.
pub(super) fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Appends a histogram: its bins by their distances.
pub(super) fn put_histogram<const FINE: u32>(to: &mut Vec<u8>, histogram: &Histogram<FINE>) {
    let (bins, sum) = histogram.parts();
    put(to, sum);
    put(to, bins.len() as u64);
    let mut last = 0;
    for (bin, count) in bins {
        put(to, u64::from(bin - last));
        put(to, u64::from(*count));
        last = *bin;
    }
}

/// Takes numbers from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Damaged)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Damaged);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }

    pub(super) fn histogram<const FINE: u32>(&mut self) -> Result<Histogram<FINE>, Damaged> {
        let sum = self.number()?;
        let (mut bins, mut last) = (Vec::new(), 0_u64);
        for _ in 0..self.number()? {
            last = last.checked_add(self.number()?).ok_or(Damaged)?;
            let bin = u16::try_from(last).map_err(|_| Damaged)?;
            bins.push((bin, u32::try_from(self.number()?).map_err(|_| Damaged)?));
        }
        Histogram::from_parts(bins, sum).ok_or(Damaged)
    }

    pub(super) fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_comes_back(number: u64, small in 0_u64..300) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            put(&mut bytes, small);
            let mut reader = Reader(&bytes);
            prop_assert_eq!((reader.number(), reader.number()), (Ok(number), Ok(small)));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
