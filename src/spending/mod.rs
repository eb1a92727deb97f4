//! What the cloud costs, and how much of it a day allows.
//!
//! `Prices` says what a token costs, `Most` what a request can cost at the most, and the
//! `Ledger` keeps a daily limit: whatever is sent was booked before with the most that it
//! can cost, and is settled with what it did cost. What nobody settles stays counted. Where
//! the ledger is kept and when a day begins is not known here.

mod ledger;
mod price;

pub use self::{
    ledger::{Booking, Day, Denied, Ledger},
    price::{Price, Prices},
};

/// The tokens of an answer where its caller gave no limit and there is a daily one: as many as
/// every model that is sold can give.
pub const USUAL_ANSWER: u64 = 4096;
