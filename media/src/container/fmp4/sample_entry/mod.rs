//! Sample entries: what `stsd` says about a track (ISO/IEC 14496-12 section 8.5.2), to and from a
//! [`Track`](vidar_core::track::Track).
//!
//! | codec | entry | with | from |
//! |---|---|---|---|
//! | H.264 | `avc1`, `avc3` if parameter sets stand in samples | `avcC` | ISO/IEC 14496-15 section 5.4 |
//! | H.265 | `hvc1`, `hev1` | `hvcC` | ISO/IEC 14496-15 section 8.4 |
//! | AV1 | `av01` | `av1C` | AV1 in ISOBMFF 1.2 |
//! | VP8, VP9 | `vp08`, `vp09` | `vpcC` | VP codec ISO media file format binding 1.0 |
//! | AAC, MP3 | `mp4a` | `esds`, object types 0x40, 0x69 and 0x6B | ISO/IEC 14496-14 section 5.6 |
//! | Opus | `Opus` | `dOps` | Encapsulation of Opus in ISOBMFF 0.6.8 |
//! | G.711 | `ulaw`, `alaw` | | QuickTime file format |
//! | PCM | `ipcm`, `fpcm` | `pcmC` | ISO/IEC 23003-5 |

mod codec_string;
mod decode;
mod encode;

pub use codec_string::codec_string;
pub(crate) use decode::{Entry, decode};
pub use encode::encode;
use vidar_core::track::Track;

use super::boxes::BoxReader;

/// Writes the sample entry of a track that came from MP4 and reads it again.
///
/// # Panics
/// If the track changes.
#[doc(hidden)]
pub fn check_round_trip(track: &Track) {
    let Some(entry) = encode(track) else { return };
    let mut reader = BoxReader::new(&entry, 0);
    let (kind, body) = reader.next_box().expect("a box").expect("one entry");
    let read = decode(kind, body, track.kind, 0).expect("what was written reads");
    assert_eq!((read.codec, read.framing), (track.codec, track.framing));
    assert_eq!(read.in_band_parameter_sets, track.in_band_parameter_sets);
    // A vpcC is made where there is none.
    assert!(read.codec_private == track.codec_private || track.codec_private.is_empty());
}
