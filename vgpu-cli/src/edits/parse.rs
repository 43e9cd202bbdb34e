//! Words of the command line that the core has no parser for.

use std::num::NonZeroU32;

use vgpu_core::{ComputeShare, Scheme, Vendor};

/// `25%` or `30/120`; a bare number is refused, since nobody knows of what.
pub(crate) fn share(text: &str) -> Result<ComputeShare, String> {
    let bad = |why: &str| format!("{why}; write 25% or 30/120");
    let (units, of) = match (text.strip_suffix('%'), text.split_once('/')) {
        (Some(percent), _) => (percent, "100"),
        (None, Some(pieces)) => pieces,
        (None, None) => return Err(bad("it does not say of what")),
    };
    let digits = |piece: &str| {
        // `+5` would parse too.
        let plain = piece.bytes().all(|b| b.is_ascii_digit());
        piece.parse::<u32>().ok().filter(|_| plain)
    };
    let units = digits(units).ok_or_else(|| bad("it is no whole number"))?;
    let of = digits(of).and_then(NonZeroU32::new).ok_or_else(|| bad("it is a share of nothing"))?;
    if units == 0 || units > of.get() {
        return Err(bad("a share is more than nothing and at most the card"));
    }
    Ok(ComputeShare { units, of })
}

/// A scheme's name; which schemes a card has is the card's to say.
pub(super) fn scheme(text: &str) -> Result<Scheme, String> {
    named(text, "scheme").map(Scheme::new)
}

/// A vendor's name.
pub(super) fn vendor(text: &str) -> Result<Vendor, String> {
    named(text, "vendor").map(Vendor::new)
}

fn named(text: &str, what: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() || !text.bytes().all(fine) {
        return Err(format!("a {what} has small letters, digits and -; see `vgpu devices`"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_say_of_what() {
        let of = |n| NonZeroU32::new(n).expect("not 0");
        assert_eq!(share("25%"), Ok(ComputeShare { units: 25, of: of(100) }));
        assert_eq!(share("30/120"), Ok(ComputeShare { units: 30, of: of(120) }));
        for bad in ["25", "", "%", "0%", "101%", "1/0", "3/2", "-1%", "+1%", "1.5%", "a/b"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
