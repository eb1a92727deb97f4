//! One crate for all tests that need more than one file of the library, so that
//! it links once.

mod dialect;
