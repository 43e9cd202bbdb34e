//! A stand-in for `nvidia-cuda-mps-control`: the daemon, its command line and its control protocol, over a scenario.

mod chunks;
mod daemon;
mod legacy;
mod named;
mod scenario;
mod talk;
mod world;

use std::env;
use std::io::{self, BufRead};
use std::process::ExitCode;

use crate::scenario::Scenario;
use crate::talk::Answer;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let scenario = match Scenario::named() {
        Ok(scenario) => scenario,
        Err(why) => return Answer::refused(format!("FAKE_MPS: {why}")).print(),
    };
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let has = |short: &str, long: &str| words.iter().any(|w| *w == short || *w == long);
    match words.first() {
        Some(&"--serve") => daemon::serve(&scenario, &args),
        Some(&"--server") => wait_for_end(),
        None => commands(),
        Some(_) if has("-h", "--help") => help(&scenario, &words).print(),
        Some(_) if has("-v", "--version") => version(&scenario).print(),
        Some(_) if has("-q", "--quit") => talk::ask("quit").print(),
        Some(_) if has("-d", "--daemon") => daemon::start(&scenario, &args).print(),
        Some(_) if has("-f", "--foreground") => daemon::serve(&scenario, &args),
        Some(_) => talk::ask(&words.join(" ")).print(),
    }
}

/// The interactive shell: a command a line from standard input.
fn commands() -> ExitCode {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line.trim().is_empty() {
            continue;
        }
        let answer = talk::ask(line.trim());
        if !answer.is_fine() {
            return answer.print();
        }
        answer.print();
    }
    ExitCode::SUCCESS
}

/// A server process: there as long as its daemon is.
fn wait_for_end() -> ExitCode {
    // The daemon holds the other end and never writes.
    let _nothing = io::stdin().lock().lines().next();
    ExitCode::SUCCESS
}

fn version(scenario: &Scenario) -> Answer {
    match scenario.version {
        Some(version) => Answer::fine(format!("CUDA MPS binary version: {version}")),
        None => Answer::refused(USAGE),
    }
}

fn help(scenario: &Scenario, words: &[&str]) -> Answer {
    let third = words.windows(2).any(|w| w[0] == "-p" && w[1] == "3");
    if third && scenario.namespaces {
        return Answer::fine(
            "usage: nvidia-cuda-mps-control <module> <verb> [arguments]\nmodules:\n  server\n  namespace\n  client\n  device\n  sm-partition\n",
        );
    }
    Answer::refused(USAGE)
}

const USAGE: &str = "usage: nvidia-cuda-mps-control [-d | -f]";
