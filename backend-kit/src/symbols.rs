//! Functions of a library as types: one that every version has is not one that some have.

use std::fmt::{self, Debug};

use crate::sys::Pointer;

/// A function that every version of the library has; without it the library is not loaded.
#[derive(Debug)]
pub struct Required<P: Pointer>(Call<P>);

/// A function that some versions of the library have.
#[derive(Debug)]
pub struct Optional<P: Pointer> {
    /// The library's name in errors.
    pub library: &'static str,
    /// The C function.
    pub name: &'static str,
    call: Option<Call<P>>,
}

/// A function that is there, with its name for errors.
///
/// A backend gives it `check` and the like by a trait of its own, since what a code means is the
/// vendor's.
pub struct Call<P: Pointer> {
    /// The library's name in errors.
    pub library: &'static str,
    /// The C function.
    pub name: &'static str,
    /// Itself; calling it is the caller's to vouch for.
    pub function: P::Function,
}

/// The library has no such function: it is older than it. A backend makes it a failure of its own with
/// `From`, and takes what needs the function for a capability that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The library's name in errors.
    pub library: &'static str,
    /// The C function.
    pub call: &'static str,
}

/// The function that every such library has and this one has not, so that it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacks {
    /// The C function.
    pub function: &'static str,
}

impl<P: Pointer> Required<P> {
    pub(crate) fn of(call: Call<P>) -> Self {
        Self(call)
    }

    /// The function.
    pub fn call(&self) -> Call<P> {
        self.0
    }
}

impl<P: Pointer> Optional<P> {
    pub(crate) fn of(library: &'static str, name: &'static str, call: Option<Call<P>>) -> Self {
        Self { library, name, call }
    }

    /// The function, if the library has it.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn call(&self) -> Result<Call<P>, Missing> {
        self.call.ok_or(Missing { library: self.library, call: self.name })
    }

    /// Tells whether the library has it.
    pub fn is_there(&self) -> bool {
        self.call.is_some()
    }
}

impl<P: Pointer> Clone for Call<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Pointer> Copy for Call<P> {}

impl<P: Pointer> Debug for Call<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("library", &self.library)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
