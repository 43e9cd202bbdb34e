//! Runtimes that ignore CDI, and those that hand out every card.

use vgpu_kubelet_plugin::RuntimeVersion;

use crate::backends::Name;
use crate::doctor::finding::Topic;
use crate::doctor::reader::Reader;
use crate::doctor::runtimes::{self, Asked};
use crate::doctor::tests::{CLEAN, Prepared};

const FILE: &str = "/etc/containerd/config.toml";
const NVIDIA: &str = "/etc/nvidia-container-runtime/config.toml";
const V3: &str = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n";
const V3_RUNTIMES: &str = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\n";

#[test]
fn cdi_that_is_off_or_reads_other_folders() {
    let host = Prepared::clean();
    host.write(FILE, format!("{V3}enable_cdi = false\n"));
    assert_eq!(host.ids(), ["DOC-RUN-3", "DOC-AGENT-1"]);
    assert_eq!(host.finding("DOC-RUN-3").place.as_deref(), Some(FILE));
    host.write(FILE, format!("{V3}cdi_spec_dirs = ['/etc/cdi']\n"));
    assert_eq!(host.ids(), ["DOC-RUN-4", "DOC-AGENT-1"]);
    host.write(FILE, format!("{V3}cdi_spec_dirs = ['/etc/cdi', '/run/cdi/']\n"));
    assert_eq!(host.ids(), CLEAN, "the same folder by its other name");
    host.write(FILE, "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = true\n");
    assert_eq!(host.ids(), CLEAN);
    host.write(FILE, "version = 2\n");
    assert_eq!(host.ids(), ["DOC-RUN-6", "DOC-AGENT-1"], "1.7 or 2: nobody says");
}

#[test]
fn the_version_decides_where_the_runtime_answers() {
    let host = Prepared::clean();
    let ids = |version: &str, file: &str| -> Vec<&'static str> {
        host.write(FILE, file);
        let mut reader = Reader::new(&host.places.tree, Topic::Runtime);
        let runtime = RuntimeVersion { name: "containerd".into(), version: version.into() };
        let facts = runtimes::read(&mut reader, Asked::Answers(runtime));
        runtimes::judge(&facts, &host.places).iter().map(|finding| finding.id).collect()
    };
    let off = format!("{V3}enable_cdi = false\n");
    let told = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = true\n";
    assert_eq!(ids("1.6.20~ds1", told), ["DOC-RUN-5"]);
    assert_eq!(ids("v1.7.25", "version = 2\n"), ["DOC-RUN-3"], "it must be told");
    assert_eq!(ids("v1.7.25", told), ["DOC-RUN-0"]);
    assert_eq!(ids("v2.3.4", "version = 3\n"), ["DOC-RUN-0"]);
    assert_eq!(ids("v2.3.4", &off), ["DOC-RUN-3"]);
    assert_eq!(ids("v2.4.0", &off), ["DOC-RUN-0"], "it passes over it");
    assert_eq!(ids("unheard of", &off), ["DOC-RUN-6"]);
}

#[test]
fn nvidia_by_default_gives_every_card_unless_it_refuses_the_environment() {
    let mut host = Prepared::clean();
    host.write(FILE, format!("{V3_RUNTIMES}default_runtime_name = 'runc'\n"));
    assert_eq!(host.ids(), CLEAN);
    host.write(FILE, format!("{V3_RUNTIMES}default_runtime_name = 'nvidia'\n"));
    assert_eq!(host.ids(), ["DOC-RUN-1", "DOC-AGENT-1"]);
    host.write(NVIDIA, "accept-nvidia-visible-devices-envvar-when-unprivileged = false\n");
    assert_eq!(host.ids(), ["DOC-RUN-9", "DOC-AGENT-1"]);
    host.write(NVIDIA, "accept-nvidia-visible-devices-envvar-when-unprivileged = true\n");
    assert_eq!(host.ids(), ["DOC-RUN-1", "DOC-AGENT-1"]);
    host.places.vendors = vec![Name::Cambricon];
    assert_eq!(host.ids(), CLEAN, "NVIDIA's cards are not vgpu's here");
}

#[test]
fn a_drop_in_says_the_last_word() {
    let host = Prepared::clean();
    host.write(
        FILE,
        format!("imports = ['conf.d/*.toml']\n{V3_RUNTIMES}default_runtime_name = 'runc'\n"),
    );
    assert_eq!(host.ids(), CLEAN);
    let runtime = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.cuda.options]\n\
                   BinaryName = '/usr/bin/nvidia-container-runtime'\n";
    host.write("/etc/containerd/conf.d/99-nvidia.toml", format!("version = 3\n{runtime}"));
    assert_eq!(host.ids(), ["DOC-RUN-2", "DOC-AGENT-1"], "whatever it is called");
    host.write(
        "/etc/containerd/conf.d/99-nvidia.toml",
        format!("{V3_RUNTIMES}default_runtime_name = 'cuda'\n{runtime}"),
    );
    assert_eq!(host.ids(), ["DOC-RUN-1", "DOC-AGENT-1"]);
    host.write("/etc/containerd/conf.d/99-nvidia.toml", "version = 'three'\n");
    assert_eq!(host.ids(), ["DOC-READ-2", "DOC-AGENT-1"]);
}

#[test]
fn crio_and_docker_and_hooks() {
    let host = Prepared::clean();
    std::fs::remove_file(host.at(FILE)).expect("removed");
    assert_eq!(host.ids(), ["DOC-RUN-6", "DOC-AGENT-1"], "no runtime at all");
    host.write(
        "/etc/crio/crio.conf",
        "[crio.runtime]\ncdi_spec_dirs = ['/etc/cdi', '/var/run/cdi']\n",
    );
    assert_eq!(host.ids(), CLEAN);
    host.write(
        "/etc/crio/crio.conf.d/99-nvidia.conf",
        "[crio.runtime]\ndefault_runtime = 'nvidia'\n",
    );
    assert_eq!(host.ids(), ["DOC-RUN-1", "DOC-AGENT-1"]);
    host.write(
        "/etc/crio/crio.conf.d/99-z.conf",
        "[crio.runtime]\ndefault_runtime = 'crun'\ncdi_spec_dirs = []\n",
    );
    assert_eq!(host.ids(), ["DOC-RUN-4", "DOC-AGENT-1"], "the last name wins");
    std::fs::remove_dir_all(host.at("/etc/crio/crio.conf.d")).expect("removed");
    host.write(
        "/etc/docker/daemon.json",
        r#"{"default-runtime": "runc", "runtimes": {"nvidia": {"path": "x"}}}"#,
    );
    host.write("/usr/share/containers/oci/hooks.d/other.json", "{}");
    assert_eq!(host.ids(), CLEAN);
    host.write("/etc/docker/daemon.json", r#"{"default-runtime": "nvidia", "log-opts": {}}"#);
    host.write("/usr/share/containers/oci/hooks.d/oci-nvidia-hook.json", "{}");
    assert_eq!(host.ids(), ["DOC-RUN-7", "DOC-RUN-8", "DOC-AGENT-1"]);
}

#[test]
fn a_socket_without_an_answer_is_told() {
    let mut host = Prepared::clean();
    host.leave("/run/containerd/containerd.sock");
    assert_eq!(host.ids(), ["DOC-RUN-6", "DOC-AGENT-1"]);
}
