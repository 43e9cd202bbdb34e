//! The caller's process is killed in the middle of its calls, as a power cut or an impatient administrator would.

use std::cell::Cell;

use serde::Deserialize;

use crate::world::World;

/// One death.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Death {
    /// Each comes once, in whichever process it meets.
    pub(crate) id: String,
    /// On whose calls.
    card: u32,
    /// Absent: on any call of the card.
    #[serde(default)]
    function: Option<String>,
    /// The how manyeth such call since the control file says so, in one process.
    #[serde(default = "first")]
    nth: u64,
    /// Whether the driver has done what the call asks for.
    #[serde(default)]
    when: When,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum When {
    /// When it is done, and before the caller learns of it.
    After,
    /// Nothing was done.
    #[default]
    Before,
}

thread_local! {
    /// The call that this thread is in is its process's last.
    static DOOMED: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" {
    fn getpid() -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
}

const SIGKILL: i32 = 9;

/// Looks whether a call that is let through is the caller's last.
pub(crate) fn judge(world: &mut World, function: &str, card: u32) {
    let its = |death: &&Death| {
        death.card == card && death.function.as_deref().is_none_or(|named| named == function)
    };
    let deaths: Vec<Death> = world.deaths().iter().filter(its).cloned().collect();
    for death in deaths {
        let met = world.met.entry(death.id.clone()).or_default();
        *met += 1;
        if *met != death.nth {
            continue;
        }
        let id = death.id;
        match (world.mig(|state| state.done.insert(id)), death.when) {
            (Ok(true), When::After) => DOOMED.set(true),
            (Ok(true), When::Before) => end(),
            (Ok(false) | Err(_), _) => {}
        }
    }
}

/// At the end of each call.
pub(crate) fn if_doomed() {
    if DOOMED.get() {
        end();
    }
}

fn end() -> ! {
    // SAFETY: takes nothing and cannot fail.
    let own = unsafe { getpid() };
    // SAFETY: sends a signal to this very process.
    unsafe { kill(own, SIGKILL) };
    // Only the first process of a namespace is still here.
    std::process::abort()
}

fn first() -> u64 {
    1
}
