//! What the C library is told about this process: the only unsafe code of this crate.

#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the allocator's settings are functions of the C library")
)]

/// Few heaps for all threads. glibc makes up to eight for each core, one for each thread that allocates, and a driver's call
/// has a thread of its own: what fifty pods at once left behind was spread over all of them, and twice as much.
///
/// Nothing is done where `MALLOC_ARENA_MAX` says how many, or with another C library.
pub(crate) fn few_heaps() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: it takes two numbers, and stores them under the allocator's own lock.
        let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
        if taken == 0 {
            tracing::debug!("the allocator does not take its number of heaps");
        }
    }
}

/// One for each of the runtime's own threads.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;
