//! Which library is tried first, and what was loaded already.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::failure::LoadFailure;

/// Where a library may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file that is there; one that cannot be loaded is a reason to say so.
    File(PathBuf),
    /// Wherever the loader finds one of this name; that it finds none is no reason for anything.
    Loader(&'static str),
}

impl Place {
    /// What the loader is given.
    pub fn library(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Loader(name) => Path::new(name),
        }
    }
}

/// Tries one place after the other; answers with what was loaded first and from where, or with `None`
/// where there is no such library.
///
/// # Errors
/// Nothing was loaded: the first one's reason; the others are mostly links to it or copies of it.
pub fn first_of<T, F>(
    places: impl IntoIterator<Item = Place>,
    mut load: impl FnMut(&Path) -> Result<T, LoadFailure<F>>,
) -> Result<Option<(PathBuf, T)>, LoadFailure<F>> {
    let mut refused = None;
    for place in places {
        match (load(place.library()), &place) {
            (Ok(loaded), _) => return Ok(Some((place.library().to_owned(), loaded))),
            (Err(LoadFailure::Open { .. }), Place::Loader(_)) => {}
            (Err(failure), _) => {
                refused.get_or_insert(failure);
            }
        }
    }
    refused.map_or(Ok(None), Err)
}

/// What was loaded, by what was asked for: a library is loaded once and never unloaded, and what is
/// remembered with it outlives every backend over it.
///
/// No lock is held while one is loaded: it may take as long as it likes to start.
#[derive(Debug)]
pub struct Loaded<T> {
    by: Mutex<HashMap<OsString, T>>,
}

impl<T: Clone> Loaded<T> {
    /// What was loaded of this name.
    pub fn of(&self, library: impl AsRef<OsStr>) -> Option<T> {
        self.by().get(library.as_ref()).cloned()
    }

    /// What was loaded of this name, else what is loaded now. Of two who load at once, both get what the
    /// first one loaded.
    ///
    /// # Errors
    /// `load`'s.
    pub fn or_load<E>(
        &self,
        library: impl AsRef<OsStr>,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(before) = self.of(&library) {
            return Ok(before);
        }
        let loaded = load()?;
        Ok(self.by().entry(library.as_ref().to_owned()).or_insert(loaded).clone())
    }

    /// Puts what was loaded anew in the place of what was there.
    pub fn replace(&self, library: impl AsRef<OsStr>, loaded: T) {
        self.by().insert(library.as_ref().to_owned(), loaded);
    }

    fn by(&self) -> MutexGuard<'_, HashMap<OsString, T>> {
        // A map of pointers is whole after every statement, so a panic elsewhere does not spoil it.
        self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Loaded<T> {
    fn default() -> Self {
        Self { by: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Failure = LoadFailure<String>;

    fn open(library: &Path) -> Failure {
        LoadFailure::Open { library: library.display().to_string(), why: "none".to_owned() }
    }

    #[test]
    fn the_first_that_loads_is_taken_and_the_first_reason_is_told() {
        let file = |name: &str| Place::File(PathBuf::from(name));
        let load = |library: &Path| match library.to_str() {
            Some("/good" | "good") => Ok(1),
            _ => Err(open(library)),
        };
        let first = |places: Vec<Place>| first_of(places, load);
        assert_eq!(first(vec![]), Ok(None));
        assert_eq!(first(vec![Place::Loader("bad")]), Ok(None));
        assert_eq!(
            first(vec![file("/a"), Place::Loader("good"), file("/good")]),
            Ok(Some((PathBuf::from("good"), 1)))
        );
        let refused = Err(open(Path::new("/a")));
        assert_eq!(first(vec![Place::Loader("bad"), file("/a"), file("/b")]), refused);
        // One that the loader found and that does not start is a reason.
        let lame = |library: &Path| -> Result<(), Failure> {
            let library = library.display().to_string();
            Err(LoadFailure::Start { library, wanted: "x", failure: "no".to_owned() })
        };
        assert!(first_of([Place::Loader("lame")], lame).is_err());
    }

    #[test]
    fn what_was_loaded_is_loaded_once_unless_it_is_replaced() {
        let loaded = Loaded::default();
        assert_eq!(loaded.of("a"), None);
        assert_eq!(loaded.or_load("a", || Err::<i32, _>("no")), Err("no"));
        assert_eq!(loaded.or_load("a", || Ok::<_, &str>(1)), Ok(1));
        assert_eq!(loaded.or_load("a", || Ok::<_, &str>(2)), Ok(1));
        loaded.replace("a", 3);
        assert_eq!(loaded.of("a"), Some(3));
    }
}
