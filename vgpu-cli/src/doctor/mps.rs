//! MPS daemons that are not ours.

use std::path::Path;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::processes::Process;

/// The daemon's program.
pub(crate) const PROGRAM: &str = "nvidia-cuda-mps-control";

/// Daemons outside of the agent's folder for them.
pub(crate) fn judge(processes: &[Process], ours: &Path) -> Vec<Finding> {
    processes
        .iter()
        .filter(|process| process.program() == PROGRAM)
        .filter_map(|p| of(p, ours))
        .collect()
}

fn of(process: &Process, ours: &Path) -> Option<Finding> {
    let at = format!("process {}", process.pid);
    if process.env.is_none() {
        let what = "an MPS daemon runs, and whose it is cannot be seen";
        return Some(Finding::new(Check::UnknownMps, what).at(&at).so("run `vgpu doctor` as root"));
    }
    let folder = process.variable("CUDA_MPS_PIPE_DIRECTORY").unwrap_or("/tmp/nvidia-mps");
    if Path::new(folder).starts_with(ours) {
        return None;
    }
    let what = format!("an MPS daemon that is not vgpu's serves clients at {folder}");
    let remedy = "its cards cannot enter another mode and are shared beside vgpu: end it (`echo quit | \
                  nvidia-cuda-mps-control`), and keep whoever starts it off this node";
    Some(Finding::new(Check::ForeignMps, what).at(&at).so(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_ours_by_its_folder_and_its_whole_name() {
        let process = |program: &str, env: Option<&str>| Process {
            pid: 7,
            words: vec![format!("/usr/bin/{program}"), "-d".into()],
            env: env.map(|folder| vec![format!("CUDA_MPS_PIPE_DIRECTORY={folder}")]),
        };
        let ids = |process: Process| -> Vec<&'static str> {
            judge(&[process], Path::new("/var/lib/vgpu/mps")).iter().map(|f| f.id).collect()
        };
        assert!(ids(process(PROGRAM, Some("/var/lib/vgpu/mps/GPU-1/pipe"))).is_empty());
        assert_eq!(ids(process(PROGRAM, Some("/run/nvidia/mps/pipe"))), ["DOC-CARD-8"]);
        assert_eq!(ids(process(PROGRAM, Some("/var/lib/vgpu/mps2"))), ["DOC-CARD-8"]);
        assert_eq!(
            ids(Process { env: Some(Vec::new()), ..process(PROGRAM, None) }),
            ["DOC-CARD-8"]
        );
        assert_eq!(ids(process(PROGRAM, None)), ["DOC-CARD-9"]);
        // Its servers have the same first 15 letters.
        assert!(ids(process("nvidia-cuda-mps-server", Some("/tmp/x"))).is_empty());
    }
}
