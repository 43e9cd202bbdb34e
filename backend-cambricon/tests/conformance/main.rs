//! The contract on the fake library.
fn main() {}
