use std::fmt;
use std::str::FromStr;

/// The name of an extended resource that a device plugin may serve, such as `vgpu.dev/slot`.
///
/// The rules are the kubelet's: a domain, one slash and a name; not under `kubernetes.io`, and not one of the
/// `requests.` names that quotas use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(String);

impl Resource {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`ResourceError`] says which rule the name breaks.
    pub fn parse(text: &str) -> Result<Self, ResourceError> {
        let refuse = |rule| Err(ResourceError { name: text.to_owned(), rule });
        let Some((domain, name)) = text.split_once('/') else {
            return refuse("it needs a domain before a slash");
        };
        if text.starts_with("requests.") {
            return refuse("names that begin with requests. belong to quotas");
        }
        if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
            return refuse("the domain kubernetes.io belongs to Kubernetes");
        }
        // Quotas put "requests." before the domain, and the result must be a domain still.
        if "requests.".len() + domain.len() > 253 || !is_domain(domain) {
            return refuse(
                "the part before the slash must be a DNS name in lower case of at most 244 bytes",
            );
        }
        if !is_label(name) {
            return refuse(
                "the part after the slash must be 1 to 63 of A-Z a-z 0-9 - _ . with a letter or digit at both ends",
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Resource {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A name that the kubelet would refuse as an extended resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not the name of an extended resource: {rule} (an example: vgpu.dev/slot)")]
pub struct ResourceError {
    name: String,
    rule: &'static str,
}

fn is_domain(text: &str) -> bool {
    text.split('.').all(|label| {
        let bytes = label.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        !bytes.is_empty()
            && bytes.len() <= 63
            && bytes.iter().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kubelet_takes() {
        for name in ["vgpu.dev/slot", "nvidia.com/gpu", "a/b", "x-y.example.com/mig-1g.20gb_x"] {
            assert_eq!(Resource::parse(name).unwrap().as_str(), name);
        }
        assert_eq!(Resource::parse("vgpu.dev/slot").unwrap().name(), "slot");
    }

    #[test]
    fn names_the_kubelet_refuses() {
        let long = format!("{}/x", vec!["a".repeat(60); 5].join("."));
        for name in [
            "",
            "cpu",
            "kubernetes.io/x",
            "node.kubernetes.io/x",
            "requests.vgpu.dev/slot",
            "Vgpu.dev/slot",
            "vgpu.dev/",
            "vgpu.dev/-x",
            "vgpu.dev/a/b",
            "vgpu..dev/a",
            "vgpu.dev/sl ot",
            &long,
        ] {
            let error = Resource::parse(name).unwrap_err();
            assert!(error.to_string().contains("vgpu.dev/slot"), "{error}");
        }
    }
}
