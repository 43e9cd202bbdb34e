//! What the agent tells Prometheus; ratios are 0 to 1, memory is in bytes, times in seconds.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use vgpu_core::{Bytes, Usage};
use vgpu_node::Node;
use vgpu_node::claim::Holder;
use vgpu_node::inventory::Presence;

use vgpu_node::ResourceName;

/// All metrics of the agent.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    calls: Family<CallLabels, Histogram, fn() -> Histogram>,
    slots: Family<SlotLabels, Gauge>,
    claims: Family<ClaimLabels, Gauge>,
    every_device: Family<ResourceLabels, Gauge>,
    cards: Family<CardLabels, Gauge>,
    enforcement: Family<EnforcementLabels, Gauge>,
    used: Family<UseLabels, Gauge>,
    limit: Family<UseLabels, Gauge>,
    busy: Family<UseLabels, Gauge<f64, AtomicU64>>,
    repairs: Gauge,
    reloads: Family<ReloadLabels, Counter>,
    hook_calls: Family<ReloadLabels, Counter>,
}

/// A call of the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Call {
    Allocate,
    PreStart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    Ok,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: Call,
    resource: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SlotLabels {
    resource: String,
    health: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClaimLabels {
    resource: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CardLabels {
    device: String,
    vendor: String,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EnforcementLabels {
    claim: String,
    resource: String,
    device: String,
    scheme: String,
    axis: &'static str,
    level: String,
}

/// Whose use it is; pod, namespace and container are empty where the kubelet did not name them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    claim: String,
    resource: String,
    device: String,
    scheme: String,
    namespace: String,
    pod: String,
    container: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: Outcome,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("vgpu");
        let buckets = || Histogram::new([0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0]);
        let calls = Family::new_with_constructor(buckets as fn() -> Histogram);
        let slots = Family::default();
        let claims = Family::default();
        let every_device = Family::default();
        let cards = Family::default();
        let enforcement = Family::default();
        let (used, limit, busy) = (Family::default(), Family::default(), Family::default());
        let repairs = Gauge::default();
        let reloads = Family::default();
        let hook_calls = Family::default();
        let unit = prometheus_client::registry::Unit::Seconds;
        let help = "Calls of the kubelet, and how long the answer took";
        registry.register_with_unit("kubelet_call", help, unit, calls.clone());
        registry.register("ids", "Ids told to the kubelet, by health", slots.clone());
        registry.register("claims", "Claims that live, by state", claims.clone());
        let help = "Claims with a container that may open every device of the node (privileged)";
        registry.register("claims_with_every_device", help, every_device.clone());
        registry.register("card_up", "1 for a card that answers, 0 for a lost one", cards.clone());
        let help = "1 for the level that is enforced for a claim, per axis";
        registry.register("claim_enforcement", help, enforcement.clone());
        let bytes = prometheus_client::registry::Unit::Bytes;
        let help = "Device memory that a claim's grant uses, where the driver tells it";
        registry.register_with_unit("claim_memory_used", help, bytes.clone(), used.clone());
        let help = "Device memory limit of a claim's grant as the driver has it in force";
        registry.register_with_unit("claim_memory_limit", help, bytes, limit.clone());
        let help = "Busy share of a claim's grant over the driver's own window";
        let ratio = prometheus_client::registry::Unit::Ratios;
        registry.register_with_unit("claim_busy", help, ratio, busy.clone());
        let help = "Memory limits of containers that were found gone or changed, and set again";
        registry.register("limit_repairs", help, repairs.clone());
        registry.register("config_reloads", "Configurations taken or refused", reloads.clone());
        registry.register("hook_calls", "Containers confined or refused", hook_calls.clone());
        let registry = Mutex::new(registry);
        Self {
            registry,
            calls,
            slots,
            claims,
            every_device,
            cards,
            enforcement,
            used,
            limit,
            busy,
            repairs,
            reloads,
            hook_calls,
        }
    }

    pub(crate) fn call(&self, call: Call, resource: &ResourceName, took: Duration, ok: bool) {
        let labels = CallLabels { call, resource: resource.to_string(), outcome: outcome(ok) };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn reload(&self, ok: bool) {
        self.reloads.get_or_create(&ReloadLabels { outcome: outcome(ok) }).inc();
    }

    pub(crate) fn hook_call(&self, ok: bool) {
        self.hook_calls.get_or_create(&ReloadLabels { outcome: outcome(ok) }).inc();
    }

    /// The text that Prometheus reads; what is counted from the node's state is counted now.
    pub(crate) fn text(&self, node: &Node) -> String {
        self.gather(node);
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = String::new();
        if text::encode(&mut out, &registry).is_err() {
            let _ = writeln!(out, "# the metrics could not be encoded");
        }
        out
    }

    /// What the driver does not give is absent, not zero.
    fn tell_use(&self, labels: &UseLabels, usage: &Usage) {
        if let Some(used) = usage.memory {
            self.used.get_or_create(labels).set(gauge(used));
        }
        if let Some(limit) = usage.limit {
            self.limit.get_or_create(labels).set(gauge(limit));
        }
        if let Some(ppm) = usage.busy_ppm {
            self.busy.get_or_create(labels).set(f64::from(ppm) / 1e6);
        }
    }

    fn gather(&self, node: &Node) {
        self.slots.clear();
        self.every_device.clear();
        for (resource, slots) in node.listing().iter() {
            let labels = ResourceLabels { resource: resource.to_string() };
            self.every_device.get_or_create(&labels).set(0);
            for health in ["healthy", "unhealthy"] {
                let count = slots.iter().filter(|s| s.healthy == (health == "healthy")).count();
                let labels = SlotLabels { resource: resource.to_string(), health };
                self.slots.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        self.cards.clear();
        for (id, card) in &node.snapshot().cards {
            let labels = CardLabels {
                device: id.to_string(),
                vendor: card.device.vendor.to_string(),
                model: card.device.model.clone(),
            };
            let up = i64::from(card.presence == Presence::Here);
            self.cards.get_or_create(&labels).set(up);
        }
        self.repairs.set(i64::try_from(node.limit_repairs()).unwrap_or(i64::MAX));
        self.claims.clear();
        self.enforcement.clear();
        self.used.clear();
        self.limit.clear();
        self.busy.clear();
        let usage = node.usage();
        for claim in node.claims() {
            let resource = claim.resource.to_string();
            let labels = ClaimLabels { resource: resource.clone(), state: claim.state };
            self.claims.get_or_create(&labels).inc();
            let labels = ResourceLabels { resource: resource.clone() };
            self.every_device.get_or_create(&labels).inc_by(i64::from(claim.every_device));
            let used = usage.get(&claim.claim);
            for (at, grant) in claim.grants.into_iter().enumerate() {
                if let Some(usage) = used.and_then(|used| used.get(&at)) {
                    let holder = claim.holder.clone();
                    let of =
                        |part: fn(Holder) -> String| holder.clone().map(part).unwrap_or_default();
                    let labels = UseLabels {
                        claim: claim.claim.to_string(),
                        resource: resource.clone(),
                        device: grant.device.to_string(),
                        scheme: grant.scheme.to_string(),
                        namespace: of(|holder| holder.namespace),
                        pod: of(|holder| holder.pod),
                        container: of(|holder| holder.container),
                    };
                    self.tell_use(&labels, usage);
                }
                for (axis, level) in [
                    ("memory", grant.levels.memory),
                    ("compute", grant.levels.compute),
                    ("faults", grant.levels.faults),
                ] {
                    let labels = EnforcementLabels {
                        claim: claim.claim.to_string(),
                        resource: resource.clone(),
                        device: grant.device.to_string(),
                        scheme: grant.scheme.to_string(),
                        axis,
                        level: level.to_string(),
                    };
                    self.enforcement.get_or_create(&labels).set(1);
                }
            }
        }
    }
}

/// Bytes as Prometheus counts here.
fn gauge(bytes: Bytes) -> i64 {
    i64::try_from(bytes.0).unwrap_or(i64::MAX)
}

fn outcome(ok: bool) -> Outcome {
    if ok { Outcome::Ok } else { Outcome::Error }
}
