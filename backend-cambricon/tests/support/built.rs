//! Where cargo puts what this package's examples become.

use std::path::{Path, PathBuf};

/// An example of this package, which `cargo test` builds beside the tests.
pub(crate) fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let path = profile.join("examples").join(name);
    let release = if profile.ends_with("release") { " --release" } else { "" };
    assert!(
        path.exists(),
        "{} is not built; run: cargo build --examples -p vgpu-backend-cambricon{release}",
        path.display()
    );
    path
}
