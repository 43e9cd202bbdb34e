//! `vgpu-plugin`: the node agent with the backends of this repository. An out-of-tree vendor writes
//! such a `main` with its own factories.

use std::process::ExitCode;

use clap::Parser as _;
use vgpu_plugin::args::{Cli, Command};
use vgpu_plugin::{check_config, run};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::CheckConfig(args) => check_config(|| args.choices(), &args),
        Command::Run(mut args) => {
            // What daemons need lies with the rest of the agent's state.
            let folder = args.state_dir.join("mps");
            args.backends.look.mps_dir.get_or_insert(folder);
            args.choices().and_then(|choices| run(choices, *args))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            vgpu_plugin::complain(&error);
            ExitCode::FAILURE
        }
    }
}
