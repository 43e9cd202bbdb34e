//! `link`: symbolic links inside the container's root.

use crate::Outcome;
use crate::root::Root;
use crate::state::State;

#[derive(Debug, PartialEq, Eq)]
struct Link {
    /// What the link says: a name beside it, or an absolute path in the container.
    target: String,
    /// Where it is, absolute in the container.
    path: String,
}

pub(crate) fn run(args: &[String]) -> Outcome<()> {
    if args.is_empty() {
        return Err("which links? vgpu-hook link TARGET::LINK...".to_owned());
    }
    let links = args.iter().map(|arg| Link::parse(arg)).collect::<Outcome<Vec<_>>>()?;
    let root = Root::open(State::from_stdin()?.root()?)?;
    links.iter().try_for_each(|link| root.link(&link.target, &link.path))
}

impl Link {
    fn parse(text: &str) -> Outcome<Self> {
        let (target, path) =
            text.split_once("::").ok_or_else(|| format!("{text:?} is not TARGET::LINK"))?;
        if target.is_empty() || target.contains('\0') {
            return Err(format!("{text:?} names no target before ::"));
        }
        let is_plain = path.split('/').all(|name| name != "..") && !path.ends_with('/');
        if !path.starts_with('/') || !is_plain || path.contains('\0') {
            return Err(format!(
                "the link {path:?} of {text:?} is not an absolute path without \"..\" that ends in a name"
            ));
        }
        Ok(Self { target: target.to_owned(), path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read() {
        let link = Link::parse("libcuda.so.1::/usr/lib/libcuda.so");
        let expected =
            Link { target: "libcuda.so.1".to_owned(), path: "/usr/lib/libcuda.so".to_owned() };
        assert_eq!(link, Ok(expected));
    }

    #[test]
    fn what_is_no_link_is_refused() {
        for text in ["", "a", "a:b", "::/x", "a::", "a::b", "a::/", "a::/x/../y", "a::/x/"] {
            assert!(Link::parse(text).is_err(), "{text}");
        }
    }
}
