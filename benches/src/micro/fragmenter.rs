//! Cutting the events of a clip into fragments, beside copies of the events that go nowhere.

use super::clip;
use crate::measure::{Report, Work};

pub(super) fn rows(report: &mut Report) -> anyhow::Result<()> {
    let events = clip::bbb()?;
    clip::fragment(events.clone())?;
    report.row(
        "fragmenter",
        Work::Many(events.len(), "events"),
        || clip::fragment(events.clone()).map(|outputs| outputs.len()),
        "clones of the events",
        || events.clone(),
    );
    Ok(())
}
