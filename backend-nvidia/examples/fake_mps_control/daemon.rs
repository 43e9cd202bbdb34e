//! The daemon: started in the background, one folder each, its state gone with it.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::scenario::{Control, Scenario};
use crate::talk::{self, Answer};
use crate::world::World;
use crate::{legacy, named};

/// Starts a daemon in a process group of its own, and returns when it answers.
pub(crate) fn start(scenario: &Scenario, args: &[String]) -> Answer {
    if let Some(why) = &scenario.start_fails {
        return Answer::refused(why);
    }
    if UnixStream::connect(talk::pipe().join("control")).is_ok() {
        return Answer::refused("An instance of this daemon is already running");
    }
    let own = env::current_exe().expect("a program knows its own path");
    let started = Command::new(own)
        .arg("--serve")
        .args(args)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(e) = started {
        return Answer::refused(e.to_string());
    }
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if UnixStream::connect(talk::pipe().join("control")).is_ok() {
            return Answer::fine("");
        }
        thread::sleep(Duration::from_millis(1));
    }
    Answer::refused("the daemon did not start")
}

/// Serves until it is told to quit.
pub(crate) fn serve(scenario: &Scenario, args: &[String]) -> ExitCode {
    let has = |word: &str| args.iter().any(|a| a == word);
    let third = args.windows(2).any(|w| w[0] == "-p" && w[1] == "3");
    let is_static = has("-S") || has("--static-partitioning");
    if third && !scenario.namespaces || is_static && !scenario.static_partitions {
        return Answer::refused("unknown option").print();
    }
    let pipe = talk::pipe();
    let socket = pipe.join("control");
    let logs = env::var_os("CUDA_MPS_LOG_DIRECTORY");
    if let Some(logs) = &logs {
        let _unlogged =
            fs::write(fs::canonicalize(logs).unwrap_or_default().join("control.log"), "Starting\n");
    }
    // A socket that a dead daemon left is in the way.
    let _none = fs::remove_file(&socket);
    let listener = match UnixListener::bind(&socket) {
        Ok(listener) => listener,
        Err(e) => return Answer::refused(format!("{}: {e}", socket.display())).print(),
    };
    let pid_file = pipe.join("nvidia-cuda-mps-control.pid");
    if let Err(e) = fs::write(&pid_file, format!("{}\n", std::process::id())) {
        return Answer::refused(format!("{}: {e}", pid_file.display())).print();
    }
    let world = Arc::new(Mutex::new(World::new(scenario, pipe, is_static)));
    for stream in listener.incoming().map_while(Result::ok) {
        let (world, control) = (Arc::clone(&world), scenario.control.clone());
        thread::spawn(move || {
            let control = move || Control::read(control.as_deref());
            // Whoever asked may have gone.
            let _gone = answer(stream, &world, &control, third);
        });
    }
    ExitCode::SUCCESS
}

fn answer(
    mut stream: UnixStream,
    world: &Mutex<World>,
    control: &dyn Fn() -> Control,
    third: bool,
) -> std::io::Result<()> {
    let mut command = String::new();
    stream.read_to_string(&mut command)?;
    let command = command.trim();
    if command.is_empty() {
        return Ok(());
    }
    slow(command, control);
    let now = control();
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = now
        .fail
        .iter()
        .find(|rule| command.starts_with(&rule.command) && world.is_card(rule.card.as_deref()));
    let answer = match refused {
        Some(rule) => Answer::exits(rule.exit, &rule.text),
        None if command == "quit" => Answer::fine(""),
        None if third => named::run(&mut world, &now, command),
        None => legacy::run(&mut world, &now, command),
    };
    if refused.is_none() && command == "quit" {
        world.end();
        write!(stream, "{}", serde_json::to_string(&answer)?)?;
        drop(stream);
        std::process::exit(0);
    }
    write!(stream, "{}", serde_json::to_string(&answer)?)
}

/// Waits as long as the control file says, which is read again and again.
fn slow(command: &str, control: &dyn Fn() -> Control) {
    let began = Instant::now();
    loop {
        let now = control();
        let wait = now.latency_ms.iter().find(|(words, _)| command.starts_with(&***words));
        let Some((_, ms)) = wait else { return };
        if began.elapsed() >= Duration::from_millis(*ms) {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
