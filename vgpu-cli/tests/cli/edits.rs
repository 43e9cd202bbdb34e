//! `vgpu edits`.

use serde_json::Value;
use vgpu_core::cdi::{self, Spec};

use crate::support::{Said, vgpu};

#[test]
fn every_kind_of_grant_renders_to_valid_cdi() {
    for (words, holds) in [
        (&["--whole", "--vendor", "nvidia"][..], "/dev/nvidia0"),
        (&["--whole", "--vendor", "nvidia", "--machine", "h200x8", "--count", "2"], "/dev/nvidia1"),
        (&["--scheme", "mig", "--profile", "1g.18gb"], "nvidia-caps"),
        (&["--scheme", "smlu", "--memory", "10Gi", "--compute", "25%"], "cambricon-caps"),
        (&["--scheme", "vdcu", "--memory", "8Gi", "--compute", "30/120"], "vdev"),
        (&["--memory", "10Gi", "--vendor", "hygon"], "/dev/kfd"),
        (&["--scheme", "time-slice", "--vendor", "hygon"], "/dev/kfd"),
    ] {
        let said = mock(words).good();
        let spec: Spec = serde_json::from_str(&said.out).expect("a CDI spec");
        cdi::validate(&spec).expect("a valid one");
        assert!(said.out.contains(holds), "{words:?}: {}", said.out);
        assert_eq!(spec.devices[0].name, "dry-run");
        assert!(said.err.contains("dry run"), "{}", said.err);
    }
}

#[test]
fn names_and_places_are_the_caller_s() {
    let words =
        ["--whole", "--device", "0000:25:00.0", "--claim", "pod-1", "--kind", "k8s.test/gpu"];
    let spec: Value = mock(&words).good().json();
    assert_eq!(
        (&spec["kind"], &spec["devices"][0]["name"]),
        (&"k8s.test/gpu".into(), &"pod-1".into())
    );
    let words =
        ["--scheme", "smlu", "--memory", "1Gi", "--hook", "/h/vgpu-hook", "--state-dir", "/s"];
    let spec = mock(&words).good().json();
    let hook = &spec["devices"][0]["containerEdits"]["hooks"][0];
    assert_eq!(hook["path"], "/h/vgpu-hook");
    assert!(
        hook["args"].as_array().is_some_and(|args| args.contains(&"/s/hook.sock".into())),
        "{hook}"
    );
}

#[test]
fn an_audit_says_what_gives_too_much_or_that_nothing_does() {
    let said = mock(&["--whole", "--device", "0000:25:00.0", "--audit"]).good();
    assert_eq!(said.out.lines().count(), 1, "{}", said.out);
    // The daemon's folders must be writable, and a reviewer is told.
    let words = ["--scheme", "mps", "--machine", "h100x8", "--domain", "team-a", "--memory", "4Gi"];
    let said = mock(&[&words[..], &["--audit"]].concat()).good();
    assert!(said.out.contains("is mounted writable"), "{}", said.out);
}

#[test]
fn what_cannot_be_had_is_refused_with_every_reason() {
    let said = mock(&["--scheme", "mig", "--profile", "9g.9gb"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("mig has no profile 9g.9gb"), "{}", said.err);
    let said = mock(&["--device", "GPU-none", "--whole"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there is no card GPU-none"), "{}", said.err);
    let said = mock(&["--partition", "0000:25:00.0/vdcu/1"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there is no part"), "{}", said.err);
}

fn mock(words: &[&str]) -> Said {
    vgpu(&[&["edits", "--backend", "mock"], words].concat())
}
