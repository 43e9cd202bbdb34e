//! Opening a library by handle and finding its functions; what the three libraries' `sys.rs` share.
//!
//! A library that was opened stays mapped for the life of the process, so that everything found in it
//! is `'static`. It is opened `RTLD_NOW | RTLD_LOCAL`: libhydmi_mig exports NVML's names, and nobody
//! else may ever find them.

#![expect(unsafe_code, reason = "functions of a C library found at run time")]

use std::ffi::{OsStr, c_char};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::api::{CallFailure, FailureCause, LoadFailure};

/// A C function pointer as bindgen writes it: an `Option` of the function.
pub(crate) trait Pointer: Copy + 'static {
    /// The function itself.
    type Function: Copy;

    /// The function, unless the pointer is null.
    fn function(self) -> Option<Self::Function>;
}

impl<F: Copy + 'static> Pointer for Option<F> {
    type Function = F;

    fn function(self) -> Self {
        self
    }
}

/// A function that is there or not, with its name for errors.
pub(crate) struct Symbol<P: Pointer> {
    pub(crate) library: &'static str,
    pub(crate) name: &'static str,
    function: Option<P::Function>,
}

impl<P: Pointer> Symbol<P> {
    /// # Errors
    /// The library has no such function.
    pub(crate) fn get(&self) -> Result<P::Function, CallFailure> {
        self.function.ok_or_else(|| self.failure(FailureCause::SymbolMissing))
    }

    /// # Errors
    /// Every code but 0.
    pub(crate) fn check(&self, code: impl Into<i64>) -> Result<(), CallFailure> {
        match code.into() {
            0 => Ok(()),
            code => Err(self.failure(FailureCause::Code(code))),
        }
    }

    pub(crate) fn malformed(&self, what: String) -> CallFailure {
        self.failure(FailureCause::Malformed(what))
    }

    fn failure(&self, cause: FailureCause) -> CallFailure {
        CallFailure { library: self.library, call: self.name, cause }
    }
}

/// Looks functions up in a library and notes what is not there.
pub(crate) struct Finder {
    opened: Library,
    library: &'static str,
    file: String,
    missing: Vec<&'static str>,
}

impl Finder {
    /// Opens `file`, a path, as what is called `library`.
    ///
    /// # Errors
    /// [`LoadFailure::Open`].
    pub(crate) fn open(file: &OsStr, library: &'static str) -> Result<Self, LoadFailure> {
        let shown = file.to_string_lossy().into_owned();
        // SAFETY: this runs the library's constructors. Whoever names a library by flag, variable or the driver's own
        // folder is trusted with this process, as with LD_PRELOAD.
        let opened = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| LoadFailure::Open { library: shown.clone(), why: words(&e) })?;
        Ok(Self { opened, library, file: shown, missing: Vec::new() })
    }

    /// A function that every version has; without it the library is another one.
    ///
    /// # Errors
    /// [`LoadFailure::Other`].
    pub(crate) fn required<P: Pointer>(
        &mut self,
        name: &'static str,
    ) -> Result<Symbol<P>, LoadFailure> {
        let symbol = self.find(name);
        match symbol.function {
            Some(_) => Ok(symbol),
            None => Err(LoadFailure::Other {
                library: self.file.clone(),
                wanted: self.library,
                lacks: name,
            }),
        }
    }

    /// A function that some versions have.
    pub(crate) fn optional<P: Pointer>(&mut self, name: &'static str) -> Symbol<P> {
        let symbol = self.find(name);
        if symbol.function.is_none() {
            self.missing.push(name);
        }
        symbol
    }

    /// Keeps the library for good; answers with the optional functions that are not there, sorted.
    pub(crate) fn pin(mut self) -> Vec<&'static str> {
        self.missing.sort_unstable();
        std::mem::forget(self.opened);
        self.missing
    }

    fn find<P: Pointer>(&self, name: &'static str) -> Symbol<P> {
        // SAFETY: `P` is an optional function pointer, which any address or null is; that the function has the
        // signature of its name in our header is the library's ABI. Only a table of a pinned library calls it.
        let found = unsafe { self.opened.get::<P>(name) };
        let function = found.ok().and_then(|pointer| pointer.function());
        Symbol { library: self.library, name, function }
    }
}

/// The text in a buffer that a library filled; nothing is read beyond it.
pub(crate) fn text<P: Pointer>(
    symbol: &Symbol<P>,
    buffer: &[c_char],
) -> Result<String, CallFailure> {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.to_ne_bytes()[0]).collect();
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => Ok(String::from_utf8_lossy(&bytes[..end]).into_owned()),
        None => {
            Err(symbol.malformed(format!("a string without an end within {} bytes", bytes.len())))
        }
    }
}

/// An error with what it keeps back: the loader's own words are its source.
fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
