//! The program itself: what its words mean.

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::backends::{BackendArgs, Choice, Settings};
use crate::{check_config, children, complain, run};

/// All of a `main`: reads the command line and does what it says, with the vendors that `choices`
/// makes of it.
///
/// The same program is also its vendors' child, where the configuration wants one; so nothing may be
/// written to standard output before.
pub fn start(choices: impl Fn(&BackendArgs, &Settings) -> anyhow::Result<Vec<Choice>>) -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Backend(args) => args
            .settings()
            .and_then(|settings| choices(&args.backends, &settings))
            .and_then(|choices| children::be_backend(choices, &args.vendor)),
        Command::CheckConfig(args) => {
            let known = || choices(&args.backends, &Settings::read(&args.file)?);
            check_config(known, &args).map(|()| ExitCode::SUCCESS)
        }
        Command::Run(mut args) => {
            // What daemons need lies with the rest of the agent's state.
            let folder = args.state_dir.join("mps");
            args.backends.look.mps_dir.get_or_insert(folder);
            Settings::read(&args.config)
                .and_then(|settings| choices(&args.backends, &settings))
                .and_then(|choices| run(choices, *args))
                .map(|()| ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}
