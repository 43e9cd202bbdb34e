//! Where cargo puts what this package's examples become.

use std::path::PathBuf;

/// An example of this package, which `cargo test` builds beside the tests.
pub(crate) fn built(name: &str) -> PathBuf {
    vgpu_conformance::built_example(env!("CARGO_PKG_NAME"), name)
}
