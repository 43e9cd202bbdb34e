//! Whose cards a name is about: sockets, resources, drivers and device nodes of others.

use crate::backends::Name;

/// Whose cards somebody else's name is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// AMD's, whose driver serves Hygon's cards too.
    Amd,
    /// Not cards of ours.
    Other,
    /// A vendor's that vgpu serves.
    Vendor(Name),
}

/// Of a device plugin's socket, by the names that plugins give them (`nvidia-gpu.sock`, `amd.com_gpu`).
pub(crate) fn of_socket(name: &str) -> Owner {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match () {
        () if has(&["nvidia"]) => Owner::Vendor(Name::Nvidia),
        () if has(&["cambricon", "mlu"]) => Owner::Vendor(Name::Cambricon),
        () if has(&["hygon", "dcu", "hcu"]) => Owner::Vendor(Name::Hygon),
        () if has(&["amd.com", "amdgpu"]) => Owner::Amd,
        () => Owner::Other,
    }
}

/// Of a resource, a DRA driver or a CDI kind, by its domain; HAMi's names are in the vendors' domains.
pub(crate) fn of_domain(name: &str) -> Owner {
    let domain = name.split('/').next().unwrap_or_default();
    let within = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    match () {
        () if within("nvidia.com") => Owner::Vendor(Name::Nvidia),
        () if within("cambricon.com") => Owner::Vendor(Name::Cambricon),
        () if within("hygon.com") => Owner::Vendor(Name::Hygon),
        () if within("amd.com") => Owner::Amd,
        () => Owner::Other,
    }
}

/// Of a device node, where it is one of a card or of a part of one.
pub(crate) fn of_node(path: &str) -> Option<Name> {
    let name = path.strip_prefix("/dev/")?;
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    match () {
        () if numbered("nvidia") || name.starts_with("nvidia-caps/") => Some(Name::Nvidia),
        () if numbered("cambricon_dev") || name.starts_with("cambricon-caps/") => {
            Some(Name::Cambricon)
        }
        () if name == "kfd" || name == "mkfd" => Some(Name::Hygon),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others() {
        let vendor = Owner::Vendor;
        for (name, owner) in [
            ("nvidia-gpu.sock", vendor(Name::Nvidia)),
            ("nvidia-mig-1g.10gb.sock", vendor(Name::Nvidia)),
            ("cambricon.sock", vendor(Name::Cambricon)),
            ("hygon.com_dcunum", vendor(Name::Hygon)),
            ("amd.com_gpu", Owner::Amd),
            ("rdma-shared.sock", Owner::Other),
        ] {
            assert_eq!(of_socket(name), owner, "{name}");
        }
        for (name, owner) in [
            ("nvidia.com/gpumem-percentage", vendor(Name::Nvidia)),
            ("gpu.nvidia.com", vendor(Name::Nvidia)),
            ("notnvidia.com/gpu", Owner::Other),
            ("cambricon.com/mlu.smlu.vcore", vendor(Name::Cambricon)),
            ("hygon.com/dcunum", vendor(Name::Hygon)),
            ("amd.com/gpu", Owner::Amd),
            ("vgpu.dev/gpu", Owner::Other),
            ("cpu", Owner::Other),
        ] {
            assert_eq!(of_domain(name), owner, "{name}");
        }
    }

    #[test]
    fn nodes_of_cards_and_of_parts() {
        for (path, vendor) in [
            ("/dev/nvidia0", Some(Name::Nvidia)),
            ("/dev/nvidia-caps/nvidia-cap12", Some(Name::Nvidia)),
            ("/dev/nvidiactl", None),
            ("/dev/nvidia", None),
            ("/dev/cambricon_dev3", Some(Name::Cambricon)),
            ("/dev/cambricon_ctl", None),
            ("/dev/kfd", Some(Name::Hygon)),
            ("/dev/fuse", None),
        ] {
            assert_eq!(of_node(path), vendor, "{path}");
        }
    }
}
