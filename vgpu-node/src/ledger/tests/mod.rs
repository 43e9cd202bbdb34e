mod faults;
mod folder;
mod memory;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    n: u32,
    text: String,
}

fn record(n: u32) -> Record {
    Record { n, text: "x".repeat(n as usize % 40) }
}

fn options(dir: impl Into<PathBuf>) -> LedgerOptions {
    LedgerOptions { format: 2, min_reader: 2, compact_at: 300, ..LedgerOptions::new(dir) }
}
