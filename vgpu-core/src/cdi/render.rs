//! From edits to a CDI spec with one device.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use super::name::Kind;
use super::spec::{Device, Edits, HookSpec, MountSpec, Node, Spec};
use super::validate::validate;
use super::version::minimum;
use crate::edits::{
    ClaimFile, ContainerEdits, DeviceNode, Hook, HookAction, HookStage, Mount, MountMode, Symlink,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ClaimId;

/// Seconds after which the runtime ends a hook and fails the start.
///
/// Only a backstop against a hook that hangs: the hook gives up on the agent sooner and says why.
pub const HOOK_TIMEOUT_S: i64 = 60;

/// What the renderer needs to know besides the edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderOptions {
    /// The kind of our devices, `vgpu.dev/claim`.
    pub kind: Kind,
    /// The device's name: the claim.
    pub name: ClaimId,
    /// Path of `vgpu-hook` on the host; may be absent where no edit needs a hook. Where it is there,
    /// it also looks at each container that nothing confines (`vgpu-hook notice`).
    pub hook: Option<PathBuf>,
    /// The agent's socket on the host, for `vgpu-hook confine` and `vgpu-hook notice`.
    pub socket: PathBuf,
    /// The claim's own folder on the host, where [`files`] lie.
    pub claim_dir: PathBuf,
    /// Facts for whoever reads the spec; they ask for CDI 0.6.
    pub annotations: BTreeMap<String, String>,
}

/// Renders `edits` as the spec of one device; it declares the least version of CDI that it needs.
///
/// The same edits and options give the same spec. Mounts are put in order of depth, since a loader
/// that keeps the order would otherwise hide an inner mount under an outer one.
///
/// # Errors
/// `Invalid` for edits that change nothing (CDI refuses them), that no loader would take, that need
/// a hook where [`RenderOptions::hook`] is absent, or that put two things at one path or variable.
pub fn render(edits: &ContainerEdits, options: &RenderOptions) -> Result<Spec> {
    rendered(edits, options).map_err(|e| e.with("claim", &options.name).during("render CDI"))
}

/// The files that must lie on the host before the spec is published: path and text of each.
///
/// Write them as root with mode 0444 into a folder that nobody else can write.
pub fn files<'e>(edits: &'e ContainerEdits, claim_dir: &Path) -> Vec<(PathBuf, &'e str)> {
    let place = |(n, file): (usize, &'e ClaimFile)| (host_file(claim_dir, n, file), &*file.text);
    edits.files.iter().enumerate().map(place).collect()
}

fn rendered(edits: &ContainerEdits, options: &RenderOptions) -> Result<Spec> {
    if edits.is_empty() {
        return Err(invalid("the edits change nothing, and CDI takes no device without a change"));
    }
    refuse_clashes(edits)?;
    let mut spec = Spec {
        kind: options.kind.to_string(),
        devices: vec![Device {
            name: options.name.to_string(),
            annotations: options.annotations.clone(),
            container_edits: Edits {
                env: collect(&edits.env, variable)?,
                device_nodes: collect(&edits.nodes, node)?,
                hooks: hooks(edits, options)?,
                mounts: mounts(edits, &options.claim_dir)?,
                ..Edits::default()
            },
        }],
        ..Spec::default()
    };
    spec.cdi_version = minimum(&spec).to_string();
    validate(&spec)?;
    Ok(spec)
}

/// A loader takes the last of two at one place, without a word.
fn refuse_clashes(edits: &ContainerEdits) -> Result<()> {
    let nodes = edits.nodes.iter().map(|n| &n.path);
    let mounts = edits.mounts.iter().map(|m| &m.container);
    let files = edits.files.iter().map(|f| &f.container);
    let mut paths = HashSet::new();
    if let Some(twice) = nodes.chain(mounts).chain(files).find(|p| !paths.insert(p.as_path())) {
        return Err(invalid(format!("two edits want the container path {}", twice.display())));
    }
    let mut keys = HashSet::new();
    if let Some((twice, _)) = edits.env.iter().find(|(key, _)| !keys.insert(key)) {
        return Err(invalid(format!("two edits want the variable {twice}")));
    }
    Ok(())
}

fn variable((key, value): &(String, String)) -> Result<String> {
    if key.is_empty() || key.contains('=') {
        return Err(invalid(format!("{key:?} is no name of a variable")));
    }
    without_nul(format!("{key}={value}"))
}

fn node(node: &DeviceNode) -> Result<Node> {
    // Runtimes take 0 for "not given" and then look for the node on the host.
    if node.number.is_some_and(|(major, _)| major == 0) {
        return Err(invalid(format!(
            "{} has major number 0, which no device has; give its number from /proc/devices or none",
            node.path.display()
        )));
    }
    let host = node.host_path.as_deref().filter(|host| *host != node.path);
    Ok(Node {
        path: path_text(&node.path)?,
        host_path: host.map(path_text).transpose()?,
        node_type: node.number.map(|_| "c".to_owned()),
        major: node.number.map(|(major, _)| major.into()),
        minor: node.number.map(|(_, minor)| minor.into()),
        permissions: Some(node.access.as_str().to_owned()),
        ..Node::default()
    })
}

fn mounts(edits: &ContainerEdits, claim_dir: &Path) -> Result<Vec<MountSpec>> {
    let place = |(n, file): (usize, &ClaimFile)| Mount {
        host: host_file(claim_dir, n, file),
        container: file.container.clone(),
        mode: MountMode::ReadOnly,
    };
    let files = edits.files.iter().enumerate().map(place);
    let mut all: Vec<Mount> = edits.mounts.iter().cloned().chain(files).collect();
    all.sort_by_key(|m| m.container.components().count());
    collect(&all, mount)
}

fn mount(mount: &Mount) -> Result<MountSpec> {
    if mount.container.file_name().is_none() {
        return Err(invalid(format!(
            "{} is no place for a mount; name a file or folder below /",
            mount.container.display()
        )));
    }
    let options: &[&str] = match mount.mode {
        MountMode::ReadOnly => &["ro", "nosuid", "nodev", "rbind", "rprivate"],
        MountMode::Writable => &["rw", "nosuid", "nodev", "noexec", "rbind", "rprivate"],
    };
    Ok(MountSpec {
        host_path: path_text(&mount.host)?,
        container_path: path_text(&mount.container)?,
        mount_type: None,
        options: options.iter().map(|&o| o.to_owned()).collect(),
    })
}

/// Where a claim's file lies on the host; the number keeps two of one name apart.
fn host_file(claim_dir: &Path, n: usize, file: &ClaimFile) -> PathBuf {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name = file.container.file_name().unwrap_or_default().to_string_lossy();
    claim_dir.join(format!("{n}-{}", name.chars().take(100).map(safe).collect::<String>()))
}

/// Those of the edits. Every container is looked at for what its runtime allows beyond the claim:
/// by the hook that confines it, or by one that does nothing else.
fn hooks(edits: &ContainerEdits, options: &RenderOptions) -> Result<Vec<HookSpec>> {
    let mut all = collect(&edits.hooks, |h| hook(h, options))?;
    let confines = edits.hooks.iter().any(|h| matches!(h.action, HookAction::Confine(_)));
    if let (Some(program), false) = (&options.hook, confines) {
        let args = to_agent("notice", options)?;
        all.push(call(program, HookStage::CreateRuntime, args)?);
    }
    Ok(all)
}

fn hook(hook: &Hook, options: &RenderOptions) -> Result<HookSpec> {
    let program = options.hook.as_deref().ok_or_else(|| {
        invalid("the edits need a hook, but no path of vgpu-hook on the host is configured; set it")
    })?;
    call(program, hook.stage, action(&hook.action, options)?)
}

fn call(program: &Path, at: HookStage, args: Vec<String>) -> Result<HookSpec> {
    Ok(HookSpec {
        hook_name: stage(at).to_owned(),
        path: path_text(program)?,
        args: std::iter::once("vgpu-hook".to_owned()).chain(args).collect(),
        env: Vec::new(),
        timeout: Some(HOOK_TIMEOUT_S),
    })
}

fn action(action: &HookAction, options: &RenderOptions) -> Result<Vec<String>> {
    match action {
        HookAction::Confine(claim) if *claim != options.name => {
            Err(invalid(format!("the hook would confine {claim}, which is another claim")))
        }
        HookAction::Confine(_) => to_agent("confine", options),
        HookAction::Link(links) => with_verb("link", collect(links, link)?),
        HookAction::LoaderCache(folders) => {
            with_verb("loader-cache", collect(folders, |f| absolute_text(f))?)
        }
    }
}

/// A command that speaks with the agent about the claim.
fn to_agent(verb: &str, options: &RenderOptions) -> Result<Vec<String>> {
    let (claim, socket) = (options.name.to_string(), absolute_text(&options.socket)?);
    Ok(vec![verb.to_owned(), claim, "--socket".to_owned(), socket])
}

fn with_verb(verb: &str, mut args: Vec<String>) -> Result<Vec<String>> {
    if args.is_empty() {
        return Err(invalid(format!("the hook {verb} has nothing to do; leave it out")));
    }
    args.insert(0, verb.to_owned());
    Ok(args)
}

/// `TARGET::LINK`; the target may be relative to the link, as `libx.so.1` is.
fn link(symlink: &Symlink) -> Result<String> {
    let link = absolute_text(&symlink.link)?;
    let target = symlink.target.to_str().filter(|t| !t.is_empty() && !t.starts_with('-'));
    let target = target.ok_or_else(|| {
        invalid(format!(
            "{:?} can be no link's target; it is empty, an option or not UTF-8",
            symlink.target
        ))
    })?;
    if target.contains("::") || link.contains("::") {
        return Err(invalid(format!(
            "the link {target} at {link} has :: in it, which parts the two for the hook"
        )));
    }
    without_nul(format!("{target}::{link}"))
}

fn stage(stage: HookStage) -> &'static str {
    match stage {
        HookStage::CreateContainer => "createContainer",
        HookStage::CreateRuntime => "createRuntime",
    }
}

/// A path of an argument, which no loader looks at, so that it is checked here.
fn absolute_text(path: &Path) -> Result<String> {
    if !path.is_absolute() {
        return Err(invalid(format!("{path:?} is not absolute; write the full path")));
    }
    path_text(path)
}

fn path_text(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| invalid(format!("{path:?} is not UTF-8, so that no spec can name it")))?;
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(invalid(format!("{path:?} has .. in it; write the path that is meant")));
    }
    without_nul(text.to_owned())
}

fn without_nul(text: String) -> Result<String> {
    if text.contains('\0') {
        return Err(invalid(format!(
            "{text:?} has a NUL in it, which ends every text in the kernel"
        )));
    }
    Ok(text)
}

fn collect<T, U>(items: &[T], each: impl Fn(&T) -> Result<U>) -> Result<Vec<U>> {
    items.iter().map(each).collect()
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
