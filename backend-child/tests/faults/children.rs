//! What the children do.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use vgpu_backend_child::{FRAME_LIMIT, serve, serve_on};
use vgpu_backend_mock::{Machine, MockFactory, Preset};
use vgpu_core::{BackendFactory, Host, Probe, Vendor};

use crate::world;

/// Says which child this is.
pub(crate) const MODE: &str = "VGPU_TEST_MODE";

/// Names the machine's file.
pub(crate) const MACHINE: &str = "VGPU_TEST_MACHINE";

pub(crate) fn run(mode: &str) -> ExitCode {
    match mode {
        "good" => return serve(machine(), "1.2.3"),
        "agent" => world::be_an_agent(),
        "early garbage" => say(b"libacme 4.2 is loading, please wait\n"),
        "late garbage" => {
            let output = Spoilt { after: 3 };
            let served = serve_on(Arc::new(machine()), "1", io::stdin().lock(), output);
            served.expect("it serves");
        }
        "other version" => {
            say(&frame(r#"{"hello":{"protocol":2,"vendor":"mock","version":"9"}}"#));
            forever();
        }
        "other vendor" => {
            say(&frame(r#"{"hello":{"protocol":1,"vendor":"acme","version":"9"}}"#));
            forever();
        }
        "answer to nobody" => {
            say(&frame(r#"{"hello":{"protocol":1,"vendor":"mock","version":"9"}}"#));
            say(&frame(r#"{"failed":{"id":77,"error":{"kind":"io","message":"?"}}}"#));
            forever();
        }
        "endless frame" => {
            say(&u32::MAX.to_be_bytes());
            forever();
        }
        "huge frame" => {
            say(&u32::try_from(FRAME_LIMIT).expect("16 MiB").to_be_bytes());
            let piece = vec![b'['; 1 << 20];
            for _ in 0..64 {
                say(&piece);
            }
            forever();
        }
        "half a frame" => say(&[0, 0, 1, 0, b'{']),
        "silent" => forever(),
        "exit" => {
            complain("acme: no licence");
            std::process::exit(3);
        }
        "closed output" => {
            let elsewhere = std::fs::File::open("/dev/null").expect("a file");
            rustix::stdio::dup2_stdout(elsewhere).expect("it is closed");
            forever();
        }
        probe => return serve(Odd(probe.to_owned()), "1"),
    }
    ExitCode::SUCCESS
}

/// A backend that does something odd when it is probed.
#[derive(Debug)]
struct Odd(String);

impl BackendFactory for Odd {
    fn vendor(&self) -> Vendor {
        Vendor::new("mock")
    }

    fn probe(&self, host: &Host) -> Probe {
        match self.0.as_str() {
            "abort" => std::process::abort(),
            "segfault" => {
                complain("acme: dereferencing");
                // The first one is taken by Rust's own guard of stacks.
                loop {
                    kill_process(getpid(), Signal::SEGV).expect("a signal to myself");
                }
            }
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(3_600));
            },
            "panic" => panic!("an index is out of range"),
            "memory" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(vec![1_u8; 16 << 20]);
                }
            }
            "print" => {
                say(format!("libacme 4.2\nis {}\n", "chatty ".repeat(10_000)).as_bytes());
                machine().probe(host)
            }
            "flood" => {
                std::thread::spawn(|| {
                    loop {
                        complain("acme: warning: the same thing again and again and again");
                    }
                });
                machine().probe(host)
            }
            "offspring" => {
                // It keeps all our streams.
                let child = Command::new("sleep").arg("1000").spawn().expect("it starts");
                complain(&format!("started {}", child.id()));
                std::process::abort()
            }
            "look" => Probe::Absent(surroundings()),
            other => panic!("no child is called {other}"),
        }
    }
}

/// Open descriptors that came from the parent, blocked and ignored signals, the working folder.
fn surroundings() -> String {
    let mut open: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .expect("there is /proc")
        .filter_map(|entry| std::fs::read_link(entry.expect("an entry").path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| !target.contains("/fd"))
        .collect();
    open.sort();
    let status = std::fs::read_to_string("/proc/self/status").expect("there is /proc");
    let lines = status.lines().filter(|l| l.starts_with("SigBlk") || l.starts_with("SigCgt"));
    let lines: Vec<&str> = lines.collect();
    let folder = std::env::current_dir().expect("a folder");
    format!("{} | {} | {}", open.join(" "), lines.join(" "), folder.display())
}

fn machine() -> MockFactory {
    let file = PathBuf::from(std::env::var_os(MACHINE).expect("the machine's file is named"));
    MockFactory::combined(&Machine::open(Path::new(&file), Preset::Mixed).expect("a machine"))
}

/// Writes something else instead of its later frames.
struct Spoilt {
    after: u32,
}

impl Write for Spoilt {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        match self.after.checked_sub(1) {
            Some(left) => {
                self.after = left;
                say(frame);
            }
            None => say(&self::frame("Segmentation fault (not really)")),
        }
        Ok(frame.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn frame(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    [&length, text.as_bytes()].concat()
}

fn say(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    // The agent may have closed it.
    let _closed = out.write_all(bytes).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _closed = writeln!(io::stderr(), "{text}");
}

/// Until the agent is gone: a test that fails leaves nothing behind.
fn forever() -> ! {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _end = io::stdin().lock().read_to_end(&mut rest);
        std::process::exit(4);
    });
    loop {
        std::thread::sleep(Duration::from_secs(3_600));
    }
}
