//! Opening a library by handle and finding its functions: the only unsafe code of this crate.
//!
//! A library that was opened and is the one that was wanted stays mapped for the life of the process:
//! it starts threads and keeps state, and no pointer into it may outlive it. So everything found in it
//! is `'static`, and nothing is ever unloaded. It is opened `RTLD_NOW | RTLD_LOCAL`: what it lacks shows
//! now and not in the middle of a change, and its names serve nobody else (libhydmi_mig exports NVML's).

#![expect(unsafe_code, reason = "functions of a C library found at run time")]

use std::error::Error;
use std::ffi::OsStr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::failure::LoadFailure;
use crate::symbols::{Call, Lacks, Optional, Required};

/// Opens `file` (a path, or a name for the loader to search) as the library that is called `wanted`,
/// has `find` look its functions up, and pins it.
///
/// Pinned only when all that is required was found: what turned out to be another library is closed
/// again, however often it is tried. Opening runs the library's constructors. Whoever names a library
/// by flag, variable, folder or the loader's path is trusted with this process, as with `LD_PRELOAD`.
///
/// # Errors
/// [`LoadFailure::Open`]; [`LoadFailure::Other`] where `find` did not find what is required.
pub fn load<T, F>(
    file: &OsStr,
    wanted: &'static str,
    find: impl FnOnce(&mut Finder<'_>) -> Result<T, Lacks>,
) -> Result<T, LoadFailure<F>> {
    let library = || file.to_string_lossy().into_owned();
    // SAFETY: this runs the library's constructors, which are trusted as said above.
    let opened = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|e| LoadFailure::Open { library: library(), why: words(&e) })?;
    let mut finder = Finder { opened: &opened, library: wanted, missing: Vec::new() };
    let found = find(&mut finder).map_err(|lacks| LoadFailure::Other {
        library: library(),
        wanted,
        lacks: lacks.function,
    })?;
    std::mem::forget(opened);
    Ok(found)
}

/// Looks functions up in a library and notes what is not there.
#[derive(Debug)]
pub struct Finder<'a> {
    opened: &'a Library,
    library: &'static str,
    missing: Vec<&'static str>,
}

impl Finder<'_> {
    /// A function that every version has; without it the library is another one.
    ///
    /// # Errors
    /// It is not there.
    pub fn required<P: Pointer>(&self, name: &'static str) -> Result<Required<P>, Lacks> {
        self.find(name).map(Required::of).ok_or(Lacks { function: name })
    }

    /// A function that some versions have; one that is not there is noted.
    pub fn optional<P: Pointer>(&mut self, name: &'static str) -> Optional<P> {
        let found = self.superseded(name);
        if !found.is_there() {
            self.missing.push(name);
        }
        found
    }

    /// A function that a newer one took the place of, so that nobody misses it.
    pub fn superseded<P: Pointer>(&self, name: &'static str) -> Optional<P> {
        Optional::of(self.library, name, self.find(name))
    }

    /// The first of several versions that take the same arguments, newest first; the newest is noted
    /// where it is not there.
    pub fn newest<P: Pointer>(&mut self, [newest, older]: [&'static str; 2]) -> Optional<P> {
        let newer = self.optional(newest);
        match newer.is_there() {
            true => newer,
            false => Optional::of(self.library, newest, self.find(older)),
        }
    }

    /// The optional functions that are not there, sorted; what is looked up later is not among them.
    pub fn missing(&mut self) -> Vec<&'static str> {
        let mut missing = std::mem::take(&mut self.missing);
        missing.sort_unstable();
        missing
    }

    fn find<P: Pointer>(&self, name: &'static str) -> Option<Call<P>> {
        // SAFETY: any address and null are a `P`. That the function has the signature of its name in the backend's
        // header is the library's ABI, and for each call to vouch for.
        let symbol = unsafe { self.opened.get::<P>(name) }.ok()?;
        let function = symbol.function()?;
        Some(Call { library: self.library, name, function })
    }
}

/// A C function pointer as bindgen writes it: an `Option` of an unsafe `extern "C"` function.
///
/// # Safety
/// Any address and null are values of it, and nothing can be done with one outside an unsafe block.
pub unsafe trait Pointer: Copy + 'static {
    /// The function itself.
    type Function: Copy;

    /// The function, unless the pointer is null.
    fn function(self) -> Option<Self::Function>;
}

macro_rules! pointers {
    ($(($($argument:ident)*))*) => {$(
        // SAFETY: null is `None`, and a function is called in unsafe blocks only.
        unsafe impl<R: 'static, $($argument: 'static),*> Pointer
            for Option<unsafe extern "C" fn($($argument),*) -> R>
        {
            type Function = unsafe extern "C" fn($($argument),*) -> R;

            fn function(self) -> Self {
                self
            }
        }
    )*};
}

pointers! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E G)
    (A B C D E G H)
    (A B C D E G H I)
}

/// An error with what it keeps back: the loader's own words are its source.
fn words(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::ffi::{c_double, c_int};

    use super::*;

    type Cosine = Option<unsafe extern "C" fn(c_double) -> c_double>;
    type Other = Option<unsafe extern "C" fn(c_int) -> c_int>;
    type Failure = LoadFailure<Infallible>;

    const LIBM: &str = "libm.so.6";

    #[test]
    fn functions_are_found_or_noted() {
        let (cosine, gone, older, newest, missing) =
            load::<_, Infallible>(OsStr::new(LIBM), "libm", |finder| {
                Ok((
                    finder.required::<Cosine>("cos")?,
                    finder.optional::<Other>("vgpu_no_such"),
                    finder.superseded::<Other>("vgpu_older"),
                    finder.newest::<Cosine>(["cos_v2", "cos"]),
                    finder.missing(),
                ))
            })
            .expect("every Linux has it");
        assert_eq!(missing, ["cos_v2", "vgpu_no_such"]);
        assert!(!gone.is_there() && !older.is_there());
        let failure = gone.call().map(|call| call.name).expect_err("it is not there");
        assert_eq!((failure.library, failure.call), ("libm", "vgpu_no_such"));
        for call in [cosine.call(), newest.call().expect("the older one stands in")] {
            assert_eq!(call.name, "cos");
            // SAFETY: `cos` takes a double and gives one.
            let one = unsafe { (call.function)(0.0) };
            assert!((one - 1.0).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn another_library_and_none_are_told_apart() {
        let lacking: Result<Required<Cosine>, Failure> =
            load(OsStr::new(LIBM), "NVML", |finder| finder.required("nvmlInit_v2"));
        let why = lacking.map(|_| ()).expect_err("it is another one").to_string();
        assert_eq!(why, "libm.so.6 is loaded but is not NVML: lacks nvmlInit_v2");
        let absent: Result<(), Failure> = load(OsStr::new("/nonexistent/x.so"), "x", |_| Ok(()));
        let why = absent.expect_err("there is none").to_string();
        assert!(why.starts_with("/nonexistent/x.so cannot be loaded: "), "{why}");
    }
}
