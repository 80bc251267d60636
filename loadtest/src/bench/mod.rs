//! stub
use crate::cli::BenchArgs;
use anyhow::Result;
pub(crate) fn run(_args: &BenchArgs) -> Result<()> {
    Ok(())
}
