//! What a configuration would come to, before it is taken.

use std::fmt::Write as _;
use std::io::Write as _;

use vgpu_core::plan::layout::Placed;
use vgpu_node::inventory::Registry;
use vgpu_node::pool::{Preview, preview};

use crate::args::CheckArgs;
use crate::backends::Choice;
use crate::config::NodeConfig;

/// Checks a configuration and says that it is right; on request also what its layouts would do to this node's cards, which
/// `choices` finds.
///
/// # Errors
/// What is wrong with it.
pub fn check_config(
    choices: impl FnOnce() -> anyhow::Result<Vec<Choice>>,
    args: &CheckArgs,
) -> anyhow::Result<()> {
    let config = NodeConfig::read(&args.file)?;
    let names: Vec<&str> = config.offers.iter().map(|o| o.resource.as_str()).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: {} offers: {}", args.file.display(), names.len(), names.join(", "))?;
    if !args.dry_run {
        return Ok(());
    }
    let registry = choices()?.into_iter().fold(Registry::new(), |r, c| r.with(c.factory, c.host));
    let previews = preview(&args.state_dir, registry, &config.offers, &config.layouts)?;
    write!(out, "{}", told(&previews))?;
    Ok(())
}

/// One line a step, in the order in which they are taken.
fn told(previews: &[Preview]) -> String {
    let mut text = String::new();
    for Preview { device, plan } in previews {
        let at = |p: &Placed| format!("{} at slots {}", p.profile, p.slots);
        let mut line = |what: &str, which: String| {
            let _never_fails = writeln!(text, "{device}: {what} {which}");
        };
        plan.keep.iter().for_each(|part| line("keep", part.local().to_owned()));
        plan.unmake.iter().for_each(|part| line("unmake", part.local().to_owned()));
        if let Some(mode) = &plan.mode {
            line("enter mode", mode.scheme.as_ref().map(ToString::to_string).unwrap_or_default());
        }
        plan.make.iter().for_each(|placed| line("make", at(placed)));
        let by: Vec<&str> = plan.waits_for.iter().map(vgpu_core::PartitionId::local).collect();
        let wait = |placed| format!("{}, when these have ended: {}", at(placed), by.join(", "));
        plan.later.iter().for_each(|placed| line("make later", wait(placed)));
        if plan.is_done() {
            line("nothing to do:", "it is as its layout says".to_owned());
        }
    }
    if previews.is_empty() {
        text.push_str("no layout selects a card of this node\n");
    }
    text
}
