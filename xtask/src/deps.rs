//! placeholder
pub(crate) fn run(_: &std::path::Path, _: &[String]) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
