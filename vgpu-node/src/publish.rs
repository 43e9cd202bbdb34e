//! CDI specs and claim files on disk.
