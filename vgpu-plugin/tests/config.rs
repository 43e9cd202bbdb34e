//! Configurations and state folders, good and bad: what holds stays, what is wrong is told, and the
//! last good one is served on.

mod stage;

use std::path::Path;

use stage::{
    DCU, GPU, MEM, Stage, at_once, config, config_text, eventually, folder, mixed, pod, waiting,
};
use vgpu_backend_mock::Preset;
use vgpu_core::Vendor;
use vgpu_kubelet_plugin::fake::ContainerSpec;
use vgpu_node::ResourceName;
use vgpu_plugin::config::NodeConfig;
use vgpu_plugin::{Agent, AgentOptions};

const QUARTERS: &str =
    "- {resource: vgpu.dev/dcu, kind: slice, slots: 4, select: {vendors: [hygon]}}";
const HALVES: &str =
    "- {resource: vgpu.dev/dcu, kind: slice, slots: 2, select: {vendors: [hygon]}}";
const UNITS: &str = "- {resource: vgpu.dev/mem, kind: unit, unit: 1Gi, largest: 16, \
                     select: {vendors: [cambricon]}}";

fn quick(stage: &Stage, offers: &str) -> AgentOptions {
    AgentOptions { absence: at_once(), ..stage.options(offers) }
}

async fn refused(stage: &Stage, options: AgentOptions) -> String {
    let outcome = Agent::start(stage.choices(), options).await;
    format!("{:#}", outcome.map(drop).expect_err("it is refused"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_come_and_go_and_change_their_shape_while_they_are_in_use() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent_with(quick(&stage, QUARTERS)).await;
    assert_eq!(stage.kubelet.allocatable(DCU), 8);
    let (holder, view) = stage.run("holder", DCU, 1).await;
    let held = holder.device_ids("main", DCU)[0].clone();

    // One more resource: at once.
    agent.reload(config(&format!("{QUARTERS}\n{UNITS}"))).await.expect("taken");
    let comes = |k: &vgpu_kubelet_plugin::fake::FakeKubelet| k.allocatable(MEM) > 0;
    stage.kubelet.wait_until("the units", comes).await.expect("they come");

    // Another shape: the held id keeps its meaning, the free ones are halves.
    agent.reload(config(&format!("{HALVES}\n{UNITS}"))).await.expect("taken");
    stage.served(&agent).await;
    let ids = |agent: &Agent| {
        let slots = agent.node().listing()[&ResourceName::new(DCU).expect("a name")].clone();
        slots.iter().map(|s| (s.id.to_string(), s.healthy)).collect::<Vec<_>>()
    };
    // Closed to others as soon as the kubelet is settled, which is at once here.
    eventually("the held id to be closed", || ids(&agent).contains(&(held.clone(), false))).await;
    assert!(ids(&agent).iter().all(|(id, _)| *id == held || id.contains("::2.")));
    assert_eq!(stage.start(&holder.uid, "main").await, view, "it restarts as it was");
    stage.kubelet.wait_allocatable(DCU, 3).await.expect("three halves, beside the closed quarter");
    stage.run("half", DCU, 1).await;

    // Removed: what is held stays listed, until it is released; then the capacity is 0.
    agent.reload(config(UNITS)).await.expect("taken");
    stage.kubelet.wait_capacity(DCU, 2).await.expect("only the held ones");
    stage.served(&agent).await;
    assert_eq!(stage.start(&holder.uid, "main").await, view);
    let app = ContainerSpec::app("main").request(DCU, 1);
    let e = stage.kubelet.admit(pod("late", [app])).await.expect_err("not offered");
    assert!(!e.to_string().is_empty());
    for pod in stage.kubelet.pods() {
        assert!(stage.kubelet.delete_pod(&pod.uid));
    }
    stage.kubelet.wait_capacity(DCU, 0).await.expect("the resource is gone");
    let withdrawn = || agent.registrations().keys().all(|r| r.as_str() != DCU);
    eventually("it to be withdrawn", withdrawn).await;
    eventually("the claims to be released", || agent.node().claims().is_empty()).await;

    // And back.
    agent.reload(config(&format!("{HALVES}\n{UNITS}"))).await.expect("taken");
    stage.kubelet.wait_allocatable(DCU, 4).await.expect("it is back");
    stage.run("again", DCU, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_changes_nothing() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let before = agent.node().listing();
    let overlap = format!("{}\n- {{resource: vgpu.dev/all, kind: whole}}", mixed(&stage.machine));
    let e = agent.reload(config(&overlap)).await.expect_err("overlaps");
    let text = format!("{e:#}");
    assert!(text.contains("vgpu.dev/all") && text.contains("both select card"), "{text}");
    assert_eq!(agent.node().listing(), before);
    stage.run("served", DCU, 1).await;
    stage.run("on", MEM, 3).await;
}

#[test]
fn each_bad_file_is_told_by_name_and_reason() {
    let dir = folder();
    let file = dir.path().join("node.yaml");
    let good = config_text(QUARTERS);
    for (text, words) in [
        (good[..good.len() - 9].to_owned(), "not right"),
        (good.replace("slots: 4", "slots: 0"), "from 1 to"),
        (good.replace("slots: 4", "slots: 2147483648"), "from 1 to"),
        (good.replace("slots: 4", "slots: -1"), "line 5"),
        (good.replace("slots: 4", "size: {memory: 10}"), "memory"),
        (good.replace("slots: 4", "size: {memory: \"10\"}"), "no unit"),
        (good.replace("slots: 4", "slotz: 4"), "slotz"),
        (good.replace("vgpu.dev/dcu", "gpu"), "domain"),
        (format!("{good}\n{QUARTERS}"), "two offers are named vgpu.dev/dcu"),
        (good.replace("vendors:", "colour:"), "colour"),
        (String::new(), "unexpected end"),
        ("\u{0}\u{1}".to_owned(), "not right"),
        ("x".repeat(2 << 20), "at most"),
    ] {
        std::fs::write(&file, &text).expect("written");
        let e = NodeConfig::read(&file).expect_err(words).to_string();
        assert!(e.contains(words), "{words}: {e}");
        assert!(e.contains(file.to_str().expect("UTF-8")), "it names the file: {e}");
        assert!(e.len() < 1_000, "{e}");
    }
    for path in [dir.path().join("none.yaml"), dir.path().to_owned()] {
        let e = NodeConfig::read(&path).expect_err("unreadable").to_string();
        assert!(e.contains(path.to_str().expect("UTF-8")), "{e}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_card_can_serve_is_told_with_its_reason_and_not_advertised() {
    for (offer, why) in [
        ("kind: slice, size: {memory: 500Gi}, select: {vendors: [cambricon]}", "500Gi"),
        ("kind: slice, profile: 9g.999gb, select: {vendors: [nvidia]}", "no profile 9g.999gb"),
        ("kind: slice, slots: 4, schemes: [mig], select: {vendors: [hygon]}", "mig is not among"),
        (
            "kind: slice, slots: 2, schemes: [smlu], select: {vendors: [nvidia]}",
            "smlu is not among",
        ),
        (
            "kind: unit, unit: 3Mi, largest: 4, select: {vendors: [cambricon]}",
            "3Mi is not a multiple",
        ),
        ("kind: unit, unit: 500Gi, largest: 4, select: {vendors: [cambricon]}", "0 units of 500Gi"),
        (
            "kind: slice, slots: 4, minimum: {memory: hardware}, select: {vendors: [hygon]}",
            "memory",
        ),
    ] {
        let stage = Stage::new(Preset::Mixed);
        let agent =
            stage.agent(&format!("- {{resource: vgpu.dev/odd, {offer}}}\n{UNITS_MEM}")).await;
        let layout = agent.node().layout();
        let resource = &layout.resources[&ResourceName::new("vgpu.dev/odd").expect("a name")];
        assert!(resource.cards.is_empty(), "{offer}: {:?}", resource.cards);
        assert!(!resource.unfit.is_empty(), "{offer}");
        for (card, told) in &resource.unfit {
            assert!(told.len() > 5 && told.contains(why), "{offer}: {card}: {told}");
            println!("{offer}: {told}");
        }
        assert_eq!(stage.kubelet.capacity("vgpu.dev/odd"), 0, "{offer}");
        assert!(stage.kubelet.allocatable("vgpu.dev/dcu-half") > 0 || offer.contains("hygon"));
    }
}

/// Beside the odd one, on other cards where it leaves any.
const UNITS_MEM: &str = "- {resource: vgpu.dev/dcu-half, kind: slice, slots: 2, select: {models: \
                         [K100-AI]}}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_that_selects_nothing_is_served_as_nothing() {
    let stage = Stage::new(Preset::Mlu370x8);
    let agent = stage.agent(&format!("{QUARTERS}\n{UNITS}")).await;
    assert_eq!(stage.kubelet.capacity(DCU), 0);
    assert!(stage.kubelet.allocatable(MEM) > 0);
    assert!(stage.cards(&Vendor::HYGON).is_empty());
    assert!(agent.node().trouble().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_one_state_folder_is_refused() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(QUARTERS).await;
    let options =
        || AgentOptions { ledger_wait: std::time::Duration::ZERO, ..stage.options(QUARTERS) };
    let text = refused(&stage, options()).await;
    assert!(text.contains("another agent uses the state folder"), "{text}");
    assert!(text.contains(stage.state_dir().to_str().expect("UTF-8")), "{text}");
    // The first one is as it was, its sockets too.
    let (_, view) = stage.run("served", DCU, 1).await;
    assert!(!view.cdi_devices.is_empty());
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_folder_of_a_newer_agent_is_left_alone() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(QUARTERS).await;
    stage.run("holder", DCU, 1).await;
    drop(agent);
    eventually("the agent to be gone", || stage.kubelet.allocatable(DCU) == 0).await;
    let journal = stage.state_dir().join("journal");
    let record = frame(9, 9, r#"{"something":{"key":"new"}}"#);
    let mut bytes = std::fs::read(&journal).expect("a journal");
    bytes.extend_from_slice(record.as_bytes());
    std::fs::write(&journal, &bytes).expect("written");
    let (parts, specs) = (stage.parts(), stage.specs());
    let text = refused(&stage, stage.options(QUARTERS)).await;
    assert!(text.contains("was written by a newer agent"), "{text}");
    assert!(text.contains(journal.to_str().expect("UTF-8")), "{text}");
    assert_eq!(std::fs::read(&journal).expect("a journal"), bytes, "not a byte is changed");
    assert_eq!((stage.parts(), stage.specs()), (parts, specs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_is_put_aside_and_claims_come_from_the_checkpoint() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts();
    let agent = stage.agent_with(quick(&stage, &mixed(&stage.machine))).await;
    let (tagged, view) = stage.run("tagged", MEM, 4).await;
    let (untagged, _) = stage.run("untagged", DCU, 1).await;
    drop(agent);
    eventually("the agent to be gone", || stage.kubelet.allocatable(DCU) == 0).await;
    let journal = stage.state_dir().join("journal");
    let mut bytes = std::fs::read(&journal).expect("a journal");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x55;
    std::fs::write(&journal, &bytes).expect("written");
    let parts = stage.parts();
    let agent = stage.agent_with(quick(&stage, &mixed(&stage.machine))).await;
    let aside = damaged(&stage.state_dir());
    assert_eq!(aside.len(), 1, "what was damaged is kept: {aside:?}");
    // The driver keeps this part's tag: it is found again, and nothing else is made.
    let again = stage.start(&tagged.uid, "main").await;
    assert_eq!(again, view);
    assert_eq!(stage.parts(), parts);
    // This one's has none: it may be anybody's. It is left alone, and what it takes is not given.
    let e =
        stage.kubelet.start_container(&untagged.uid, "main").await.expect_err("not ours to use");
    assert!(waiting(&e).contains("another tool"), "{e}");
    assert_eq!(stage.parts(), parts);
    for pod in [&tagged, &untagged] {
        assert!(stage.kubelet.delete_pod(&pod.uid));
    }
    eventually("the claims to be released", || agent.node().claims().is_empty()).await;
    assert_eq!(stage.parts().len(), before.len() + 1, "only the one that may be anybody's");
    assert!(stage.specs().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_cannot_be_used_are_named() {
    let stage = Stage::new(Preset::Mixed);
    let file = stage.dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let options = AgentOptions { state_dir: file.join("state"), ..stage.options(QUARTERS) };
    let text = refused(&stage, options).await;
    assert!(text.contains(file.to_str().expect("UTF-8")), "{text}");
    let options = AgentOptions { cdi_dir: "relative/cdi".into(), ..stage.options(QUARTERS) };
    let text = refused(&stage, options).await;
    assert!(text.contains("relative/cdi") && text.contains("full path"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = Some(taken.local_addr().expect("an address"));
    let options = AgentOptions { metrics_address: address, ..stage.options(QUARTERS) };
    let text = refused(&stage, options).await;
    assert!(text.contains("choose another --metrics-address"), "{text}");
    // None of them left anything that keeps a good one from starting.
    stage.agent(QUARTERS).await;
    assert_eq!(stage.kubelet.capacity(GPU), 0);
}

/// Files that were put aside.
fn damaged(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir).expect("a folder");
    let names = files.map(|f| f.expect("a file").file_name().into_string().expect("a name"));
    names.filter(|n| n.contains("damaged")).collect()
}

/// A record as every version of the agent frames it: checksum, format, oldest reader, length, text.
fn frame(format: u32, min_reader: u32, payload: &str) -> String {
    let body = format!("{format} {min_reader} {} {payload}", payload.len());
    format!("{:08x} {body}\n", crc32(body.as_bytes()))
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[test]
fn every_example_of_the_documentation_is_a_configuration() {
    let text = include_str!("../../docs/configuration.md");
    let examples: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("split gives one at least"))
        .collect();
    assert!(examples.len() >= 5, "{} examples were found", examples.len());
    let mut offers = 0;
    for example in &examples {
        // What an example leaves out is what every file has.
        let mut whole = (*example).to_owned();
        for (key, line) in [
            ("apiVersion:", "apiVersion: vgpu.dev/v1alpha1"),
            ("kind:", "kind: NodeConfig"),
            ("offers:", "offers: []"),
        ] {
            if !example.lines().any(|l| l.starts_with(key)) {
                whole = format!("{line}\n{whole}");
            }
        }
        let config = NodeConfig::parse(&whole).unwrap_or_else(|e| panic!("{e}:\n{whole}"));
        offers += config.offers.len();
    }
    assert!(offers >= 8, "{offers} offers were read");
}
