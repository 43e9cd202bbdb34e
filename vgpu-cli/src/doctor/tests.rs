//! Prepared hosts: each finding appears where it should, and not on a clean one.

mod bytes;
mod cards;
mod catalogue;
mod claims;
mod facts;
mod host;
mod plugins;
mod runtimes;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use vgpu_kubelet_plugin::KubeletPaths;

use crate::backends::Name;
use crate::doctor::cards::Vendor;
use crate::doctor::examine;
use crate::doctor::finding::Finding;
use crate::doctor::places::Places;
use crate::doctor::report::Report;
use crate::doctor::tree::Tree;

/// A host in a folder. A clean one has nothing for anybody to do.
struct Prepared {
    root: tempfile::TempDir,
    places: Places,
    vendors: Vec<Vendor>,
    /// Sockets somebody listens at.
    alive: Vec<UnixListener>,
}

impl Prepared {
    fn clean() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let places = Places {
            tree: Tree::new(root.path()),
            on_host: false,
            kubelet: KubeletPaths::under("/k"),
            kubelet_dir: "/k".into(),
            cdi_dir: "/var/run/cdi".into(),
            state_dir: "/s".into(),
            hook_dir: Some("/opt/vgpu".into()),
            runtime_endpoint: None,
            mps_dir: "/s/mps".into(),
            vendors: Name::REAL.to_vec(),
        };
        let mut host = Self { root, places, vendors: Vec::new(), alive: Vec::new() };
        host.listen("/k/device-plugins/kubelet.sock");
        host.listen("/k/pod-resources/kubelet.sock");
        host.write("/etc/containerd/config.toml", "version = 3\n");
        host.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory misc dmem\n");
        host.write("/proc/mounts", "proc /proc proc rw,relatime 0 0\n");
        host.write("/proc/sys/kernel/random/boot_id", "11b5c6e4-0000-4000-8000-000000000000\n");
        host.write("/s/lock", "");
        fs::create_dir_all(host.at("/run/cdi")).expect("made");
        fs::create_dir_all(host.at("/var")).expect("made");
        std::os::unix::fs::symlink("/run", host.at("/var/run")).expect("linked");
        host.program("/opt/vgpu/vgpu-hook", 0o755);
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// A socket with somebody behind it.
    fn listen(&mut self, path: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        self.alive.push(UnixListener::bind(path).expect("bound"));
    }

    /// A socket that its plugin left.
    fn leave(&mut self, path: &str) {
        self.listen(path);
        drop(self.alive.pop());
    }

    /// A static program of this machine: headers alone.
    fn program(&self, path: &str, mode: u32) {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        self.write(path, bytes);
        self.mode(path, mode);
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).expect("set");
    }

    /// A process, by its words and, where it may be seen, its environment.
    fn process(&self, pid: u32, words: &[&str], env: Option<&[&str]>) {
        self.write(&format!("/proc/{pid}/cmdline"), words.join("\0"));
        if let Some(env) = env {
            self.write(&format!("/proc/{pid}/environ"), env.join("\0"));
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let vendors = self.vendors.clone();
        let found = examine(&self.places, || Ok(vendors)).expect("nothing stops it");
        Report::of(found).findings
    }

    /// The names of all findings that count.
    fn ids(&self) -> Vec<&'static str> {
        told(&self.findings())
    }

    fn finding(&self, id: &str) -> Finding {
        let findings = self.findings();
        let found = findings.iter().find(|finding| finding.id == id);
        found.unwrap_or_else(|| panic!("no {id}: {findings:#?}")).clone()
    }
}

/// The names of findings, but for those of which a test's own user or disk is the reason, and of what is fine.
fn told(findings: &[Finding]) -> Vec<&'static str> {
    let ids = findings.iter().map(|finding| finding.id);
    ids.filter(|id| !id.ends_with("-0") && !["DOC-HOST-12", "DOC-HOST-19"].contains(id)).collect()
}

/// What a clean host says when no agent runs.
const CLEAN: &[&str] = &["DOC-AGENT-1"];

#[test]
fn a_clean_host_is_fine_in_every_topic() {
    let host = Prepared::clean();
    assert_eq!(host.ids(), CLEAN, "{:#?}", host.findings());
    let fine: Vec<&str> =
        host.findings().iter().map(|f| f.id).filter(|id| id.ends_with("-0")).collect();
    assert_eq!(
        fine,
        ["DOC-PLUG-0", "DOC-RUN-0", "DOC-CDI-0", "DOC-CARD-0", "DOC-HAMI-0", "DOC-HOST-0"]
    );
}

#[test]
fn hami_is_found_by_what_it_leaves() {
    let host = Prepared::clean();
    host.write("/etc/ld.so.preload", "# /usr/local/other/libvgpu.so\n");
    assert_eq!(host.ids(), CLEAN, "a comment preloads nothing");
    host.write("/etc/ld.so.preload", "/usr/local/vgpu/libvgpu.so\n");
    host.write("/usr/local/vgpu/libvgpu.so", "");
    host.write("/usr/local/vgpu/containers/uid_main/x", "");
    fs::create_dir_all(host.at("/tmp/vgpulock")).expect("made");
    let ids = ["DOC-HAMI-1", "DOC-HAMI-2", "DOC-HAMI-3", "DOC-HAMI-4", "DOC-AGENT-1"];
    assert_eq!(host.ids(), ids);
    assert_eq!(host.finding("DOC-HAMI-3").place.as_deref(), Some("/usr/local/vgpu/containers"));
}
