//! Protocol 3: modules and verbs, named servers and namespaces.

use std::fs;

use crate::scenario::Control;
use crate::talk::Answer;
use crate::world::{Limits, World, mib, percent};

/// Runs one command.
pub(crate) fn run(world: &mut World, control: &Control, command: &str) -> Answer {
    let words: Vec<&str> = command.split_whitespace().collect();
    let (keys, plain): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with("--"));
    let key = |name: &str| {
        let of = |k: &&str| {
            k.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
        };
        keys.iter().find_map(of)
    };
    let flag = |name: &str| keys.contains(&name);
    let outcome = match plain.as_slice() {
        ["server", "create", name] => create_server(world, name, key("uid")),
        ["server", "delete", name] => delete_server(world, control, name, flag("--force")),
        ["server", "list", ..] => Ok(servers(world, control)),
        ["namespace", "create", name] => {
            server(world, key("server")).and_then(|n| create(world, n, name))
        }
        ["namespace", "delete", name] => server(world, key("server"))
            .and_then(|n| delete(world, control, n, name, flag("--force"))),
        ["namespace", "list", ..] => Ok(namespaces(world, control)),
        ["namespace", "set", name] => server(world, key("server")).and_then(|n| {
            let limits = namespace(world, n, name)?;
            if let Some(memory) = key("pinned-memory-limit") {
                limits.memory_mib = Some(mib(&memory)?);
            }
            if let Some(share) = key("active-thread-percentage") {
                limits.percent = Some(percent(&share)?);
            }
            Ok(String::new())
        }),
        ["namespace", "get", name, of, field] => {
            server(world, Some((*of).to_owned())).and_then(|n| {
                let limits = namespace(world, n, name)?.clone();
                match *field {
                    "pinned-memory-limit" => Ok(limits.memory()),
                    "active-thread-percentage" => Ok(share(&limits)),
                    "pipe-directory" => Ok(world.namespace_folder(of, name).display().to_string()),
                    other => Err(format!("unknown field {other}")),
                }
            })
        }
        ["client", "list"] => Ok(clients(world, control)),
        _ => Err(format!("unknown command: {command}")),
    };
    match outcome {
        Ok(text) => Answer::fine(text),
        Err(why) => Answer::refused(why),
    }
}

fn create_server(world: &mut World, name: &str, uid: Option<String>) -> Result<String, String> {
    check_name(name)?;
    if world.servers.iter().any(|s| s.name == name) {
        return Err(format!("server '{name}' already exists"));
    }
    let uid = uid.map_or(Ok(0), |uid| uid.parse()).map_err(|_bad| "invalid uid")?;
    let default = world.open_namespace(name, "default")?;
    world.start_server(name, uid)?;
    let server = world.servers.last_mut().expect("it was pushed a moment ago");
    server.namespaces.insert("default".into(), default);
    Ok(format!("server '{name}' created"))
}

fn delete_server(
    world: &mut World,
    control: &Control,
    name: &str,
    force: bool,
) -> Result<String, String> {
    let n = server(world, Some(name.to_owned()))?;
    if !force && !world.clients(control).is_empty() {
        return Err(format!("server '{name}' has active clients"));
    }
    world.servers.remove(n).end();
    let _none = fs::remove_dir_all(world.pipe.join(name));
    Ok(String::new())
}

fn create(world: &mut World, server: usize, name: &str) -> Result<String, String> {
    check_name(name)?;
    if world.servers[server].namespaces.contains_key(name) {
        return Err(format!("namespace '{name}' already exists"));
    }
    let of = world.servers[server].name.clone();
    let opened = world.open_namespace(&of, name)?;
    world.servers[server].namespaces.insert(name.into(), opened);
    Ok(format!("namespace '{name}' created"))
}

fn delete(
    world: &mut World,
    control: &Control,
    server: usize,
    name: &str,
    force: bool,
) -> Result<String, String> {
    let held = world.clients(control).iter().any(|c| c.namespace.as_deref() == Some(name));
    if held && !force {
        return Err(format!("namespace '{name}' has active clients"));
    }
    if world.servers[server].namespaces.remove(name).is_none() {
        return Err(format!("namespace '{name}' not found"));
    }
    let of = world.servers[server].name.clone();
    let _none = fs::remove_dir_all(world.namespace_folder(&of, name));
    Ok(String::new())
}

fn servers(world: &World, control: &Control) -> String {
    let status = if control.fault { "Fault" } else { "Ready" };
    let row = |s: &crate::world::Server| {
        let pipe = world.pipe.join(&s.name);
        format!("{},{},{},{status},{},{},-\n", s.name, s.uid, s.pid(), pipe.display(), world.card)
    };
    world.servers.iter().map(row).collect()
}

fn namespaces(world: &World, control: &Control) -> String {
    let status = if control.fault { "Fault" } else { "Ready" };
    let mut text = String::new();
    for server in &world.servers {
        for (name, namespace) in &server.namespaces {
            let folder = world.namespace_folder(&server.name, name);
            let (memory, share) = (namespace.limits.memory(), share(&namespace.limits));
            let of = &server.name;
            text += &format!("{name},{of},{status},{memory},{share},0,{}\n", folder.display());
        }
    }
    text
}

fn clients(world: &World, control: &Control) -> String {
    let Some(server) = world.servers.first() else { return String::new() };
    let row = |c: &&crate::scenario::Client| {
        let namespace = c.namespace.as_deref().unwrap_or("default");
        format!("{},{},0,{namespace},client --flag, more\n", c.pid, server.name)
    };
    world.clients(control).iter().map(row).collect()
}

fn share(limits: &Limits) -> String {
    limits.percent.map_or_else(|| "-".into(), |p| format!("{p}"))
}

fn server(world: &World, name: Option<String>) -> Result<usize, String> {
    let name = name.ok_or("--server is required")?;
    let at = world.servers.iter().position(|s| s.name == name);
    at.ok_or(format!("server '{name}' not found"))
}

fn namespace<'w>(
    world: &'w mut World,
    server: usize,
    name: &str,
) -> Result<&'w mut Limits, String> {
    let found = world.servers[server].namespaces.get_mut(name);
    found.map(|n| &mut n.limits).ok_or(format!("namespace '{name}' not found"))
}

/// Lower case, digits and underscores, up to 64.
fn check_name(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let fits = !name.is_empty() && name.len() <= 64 && name.bytes().all(good);
    if fits { Ok(()) } else { Err(format!("invalid name '{name}'")) }
}
