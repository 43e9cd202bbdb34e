//! Protocol 2: the interactive shell's commands.

use crate::scenario::Control;
use crate::talk::Answer;
use crate::world::{World, mib, percent};

/// Runs one command.
pub(crate) fn run(world: &mut World, control: &Control, command: &str) -> Answer {
    let words: Vec<&str> = command.split_whitespace().collect();
    let outcome = match words.as_slice() {
        ["get_server_list"] => Ok(lines(world.servers.iter().map(|s| s.pid()))),
        ["get_server_status", pid] => server(world, pid).map(|_| status(control)),
        ["start_server", "-uid", uid] => start(world, uid),
        ["shutdown_server", pid, ..] => server(world, pid).map(|n| {
            world.servers.remove(n).end();
            String::new()
        }),
        ["get_client_list", pid] => server(world, pid).map(|n| match n {
            0 => lines(world.clients(control).iter().map(|c| c.pid)),
            _ => String::new(),
        }),
        ["ps"] => Ok(ps(world, control)),
        ["get_default_active_thread_percentage"] => {
            Ok(format!("{:.1}", world.defaults.percent.unwrap_or(100.0)))
        }
        ["set_default_active_thread_percentage", value] => {
            percent(value).map(|p| set(&mut world.defaults.percent, p))
        }
        ["get_default_device_pinned_mem_limit", "0"] => Ok(match world.defaults.memory_mib {
            None => String::new(),
            Some(_) => world.defaults.memory(),
        }),
        // By its place among the visible cards; its id is not understood here.
        ["set_default_device_pinned_mem_limit", "0", value] => {
            mib(value).map(|m| set(&mut world.defaults.memory_mib, m))
        }
        ["get_active_thread_percentage", pid] => server(world, pid)
            .map(|n| format!("{:.1}", world.servers[n].limits.percent.unwrap_or(100.0))),
        ["set_active_thread_percentage", pid, value] => server(world, pid)
            .and_then(|n| percent(value).map(|p| set(&mut world.servers[n].limits.percent, p))),
        ["set_device_pinned_mem_limit", pid, "0", value] => server(world, pid)
            .and_then(|n| mib(value).map(|m| set(&mut world.servers[n].limits.memory_mib, m))),
        ["get_device_pinned_mem_limit", pid, "0"] => {
            server(world, pid).map(|n| world.servers[n].limits.memory())
        }
        ["sm_partition", verb, rest @ ..] => partition(world, control, verb, rest),
        ["lspart"] => match &world.chunks {
            None => Err(NOT_STATIC.into()),
            Some(chunks) => {
                let held = world.clients(control);
                let in_use = |id: &str| held.iter().any(|c| c.partition.as_deref() == Some(id));
                Ok(chunks.table(&world.card, in_use))
            }
        },
        _ => Err(format!("Unknown command: {command}")),
    };
    // The shell tells a mistake in words and ends well.
    Answer::fine(outcome.unwrap_or_else(|why| why))
}

const NOT_STATIC: &str = "Static partitioning mode is not enabled";

fn set<T>(place: &mut Option<T>, value: T) -> String {
    *place = Some(value);
    String::new()
}

fn lines(pids: impl Iterator<Item = u32>) -> String {
    pids.map(|pid| format!("{pid}\n")).collect()
}

fn server(world: &World, pid: &str) -> Result<usize, String> {
    let at = world.servers.iter().position(|s| s.pid().to_string() == pid);
    at.ok_or(format!("Server {pid} not found"))
}

fn status(control: &Control) -> String {
    if control.fault { "FAULT" } else { "ACTIVE" }.into()
}

fn start(world: &mut World, uid: &str) -> Result<String, String> {
    let uid: u32 = uid.parse().map_err(|_bad| format!("Invalid uid {uid}"))?;
    if world.servers.iter().any(|s| s.uid == uid) {
        return Err(format!("Server for user {uid} exists"));
    }
    world.start_server("", uid).map(|()| String::new())
}

fn ps(world: &World, control: &Control) -> String {
    let mut text = String::from("PID       ID    SERVER    DEVICE        NAMESPACE    COMMAND\n");
    let Some(server) = world.servers.first() else { return text };
    for (n, client) in world.clients(control).iter().enumerate() {
        let (pid, of) = (client.pid, server.pid());
        text += &format!("{pid}  {n}  {of}  {}  4026531836  client\n", &world.card);
    }
    text
}

fn partition(
    world: &mut World,
    control: &Control,
    verb: &str,
    rest: &[&str],
) -> Result<String, String> {
    let held: Vec<String> =
        world.clients(control).iter().filter_map(|c| c.partition.clone()).collect();
    let card = world.card.clone();
    let chunks = world.chunks.as_mut().ok_or(NOT_STATIC)?;
    match (verb, rest) {
        ("add", [device, count]) if *device == card => {
            let count: u32 =
                count.parse().map_err(|_bad| format!("Invalid chunk count {count}"))?;
            let id = chunks.add(count).ok_or(format!(
                "Failed to fulfill the requested SM partition of {count} chunks, error \
                 CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"
            ))?;
            Ok(format!("Partition {card}/{id} created"))
        }
        ("rm", [device, id]) if *device == card => {
            if held.iter().any(|held| held == id) {
                return Err(format!("Partition {id} has active clients"));
            }
            match chunks.remove(id) {
                true => Ok(format!("Partition {card}/{id} removed")),
                false => Err(format!("Partition {id} not found")),
            }
        }
        _ => Err("Invalid SM partition command".into()),
    }
}
