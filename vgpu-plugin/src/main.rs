//! `vgpu-plugin`: the node agent with the backends of this repository. An out-of-tree vendor writes
//! such a `main` with its own factories.

use std::process::ExitCode;

use vgpu_plugin::backends::BackendArgs;

fn main() -> ExitCode {
    vgpu_plugin::start(BackendArgs::choices)
}
