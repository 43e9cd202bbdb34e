//! The contract of the core traits as executable cases.
