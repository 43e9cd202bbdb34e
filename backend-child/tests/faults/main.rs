//! Children that end, hang, lie and chatter. This program starts itself as each of them.

mod children;
mod lives;
mod starts;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    if let Ok(mode) = std::env::var(children::MODE) {
        return children::run(&mode);
    }
    let arguments = Arguments::from_args();
    let all = starts::ALL.iter().chain(lives::ALL);
    let trials = all.map(|(name, test)| {
        Trial::test(*name, move || {
            test();
            Ok::<(), Failed>(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
