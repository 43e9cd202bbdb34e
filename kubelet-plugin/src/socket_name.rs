use crate::resource::Resource;

/// Names of this process's sockets: `<prefix>.<resource>.<nonce>.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocketNames {
    prefix: String,
    /// Another for each process, so that the kubelet can tell an old instance from a new one.
    nonce: String,
}

impl SocketNames {
    /// `None` for a prefix that is empty, long, or holds what does not belong into a file name.
    pub(crate) fn new(prefix: &str, nonce: u64) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let fits = (1..=32).contains(&prefix.len()) && prefix.chars().all(plain);
        fits.then(|| Self { prefix: prefix.to_owned(), nonce: format!("{:08x}", nonce as u32) })
    }

    pub(crate) fn endpoint(&self, resource: &Resource) -> String {
        format!("{}.{}.{}.sock", self.prefix, short(resource), self.nonce)
    }

    /// Whether a name is of our making, but by another process.
    pub(crate) fn is_of_another(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(&format!("{}.", self.prefix)) else { return false };
        let Some(rest) = rest.strip_suffix(".sock") else { return false };
        match rest.rsplit_once('.') {
            Some((_, nonce)) => {
                let hex = nonce.len() == 8 && nonce.bytes().all(|b| b.is_ascii_hexdigit());
                hex && nonce != self.nonce
            }
            None => false,
        }
    }
}

/// The resource's last part, readable, and a hash of the whole, because two domains may use one last part.
fn short(resource: &Resource) -> String {
    let hash = resource
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let name: String = resource.name().chars().take(16).collect();
    format!("{name}-{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_resources_and_processes_apart() {
        let (old, new) =
            (SocketNames::new("vgpu", 1).unwrap(), SocketNames::new("vgpu", 2).unwrap());
        let resource = |name| Resource::parse(name).unwrap();
        let names: std::collections::BTreeSet<_> = [&old, &new]
            .iter()
            .flat_map(|names| {
                [
                    "a.dev/slot",
                    "b.dev/slot",
                    "a.dev/slot-with-a-name-that-is-long",
                    "a.dev/slot-with-a-name-that-is-lonG",
                ]
                .map(|name| names.endpoint(&resource(name)))
            })
            .collect();
        assert_eq!(names.len(), 8);
        let name = old.endpoint(&resource("a.dev/x"));
        assert!(new.is_of_another(&name));
        assert!(!old.is_of_another(&name));
        assert!(name.len() <= 75, "the kubelet's usual folder takes 32 of 107 bytes");
    }

    #[test]
    fn strangers_are_not_ours() {
        let names = SocketNames::new("vgpu", 1).unwrap();
        for name in
            ["kubelet.sock", "vgpu.sock", "vgpu.x.sock", "vgpux.a.0badf00d.sock", "vgpu.a.0badf00d"]
        {
            assert!(!names.is_of_another(name), "{name}");
        }
    }

    #[test]
    fn bad_prefixes() {
        for prefix in ["", "a/b", "a.b", " ", &"x".repeat(33)] {
            assert_eq!(SocketNames::new(prefix, 1), None);
        }
    }
}
