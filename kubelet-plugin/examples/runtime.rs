//! Answers on a CRI socket as a container runtime of a name and version, and does nothing else.
//!
//! `runtime SOCKET [NAME] [VERSION]`; without the last two as containerd 1.6.20, which ignores CDI names silently.

use std::path::PathBuf;

use vgpu_kubelet_plugin::fake::FakeRuntime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let Some(socket) = args.next().map(PathBuf::from) else {
        return Err(std::io::Error::other("which socket? runtime SOCKET [NAME] [VERSION]"));
    };
    let name = args.next().unwrap_or_else(|| "containerd".into());
    let version = args.next().unwrap_or_else(|| "1.6.20".into());
    FakeRuntime { name, version }.serve(&socket).await
}
