//! Demuxing clips in pushes of 64 KiB, beside a copy of their bytes.

use bytes::Bytes;
use vidar_media::container::Format;

use super::clip;
use crate::measure::{Report, Work};

/// Name, format, and what the row is called.
pub(super) const CLIPS: [(&str, Format, &str); 3] = [
    ("bbb.mkv", Format::Matroska, "demux Matroska"),
    ("bbb_frag.mp4", Format::Mp4, "demux fragmented MP4"),
    ("bbb.ts", Format::MpegTs, "demux MPEG-TS"),
];

pub(super) fn rows(report: &mut Report) -> anyhow::Result<()> {
    for (name, format, row) in CLIPS {
        let input = Bytes::from(vidar_fixtures::read(name));
        clip::events(format, &input)?;
        let mut copy = vec![0; input.len()];
        report.row(
            row,
            Work::Bytes(input.len()),
            || clip::events(format, &input).map(|events| events.len()),
            "a copy of the bytes",
            || {
                copy.copy_from_slice(&input);
                copy.last().copied()
            },
        );
    }
    Ok(())
}
