//! Why a command ends without its answer.

use std::fmt;

use vgpu_core::Error;

/// One line: what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    what: String,
    place: Option<String>,
    remedy: Option<String>,
}

impl Failure {
    /// A mistake in the call or in what it was given.
    pub(crate) fn input(what: impl Into<String>) -> Self {
        Self { code: 2, what: what.into(), place: None, remedy: None }
    }

    /// Something that is broken, or that the machine refuses.
    pub(crate) fn broken(what: impl Into<String>) -> Self {
        Self { code: 1, ..Self::input(what) }
    }

    /// Where.
    #[must_use]
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// What to do.
    #[must_use]
    pub(crate) fn so(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::broken(told(&error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.what.clone();
        if let Some(place) = &self.place {
            line.push_str(&format!(" ({place})"));
        }
        if let Some(remedy) = &self.remedy {
            line.push_str(&format!("; {remedy}"));
        }
        // A driver's text may have anything in it; the line stays one line.
        let words: Vec<&str> = line.split_whitespace().collect();
        f.write_str(&words.join(" "))
    }
}

/// An error with everything that led to it, in one line.
pub(crate) fn told(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source.as_deref();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source.as_deref();
    }
    line
}

#[cfg(test)]
mod tests {
    use vgpu_core::ErrorKind;

    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_a_driver_says() {
        let deep = Error::new(ErrorKind::Vendor, "odd\nanswer");
        let error = Error::new(ErrorKind::Lost, "gone").with("card", "GPU-1").caused_by(deep);
        let failure = Failure::from(error).so("reset it");
        assert_eq!(failure.to_string(), "gone (card=GPU-1): odd answer; reset it");
        assert_eq!(failure.code, 1);
        assert_eq!(Failure::input("x").at("a.json").to_string(), "x (a.json)");
    }
}
