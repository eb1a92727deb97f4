//! stub
pub struct Store;
