//! Which clips are pushed by which clients, and how exactly their times come back. docs/design/matrix.md shows the same.

use Client::{Curl, Ffmpeg, FfmpegTcp, FfmpegUdp, GstTcp, GstUdp};

/// Who pushes, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Curl,
    Ffmpeg,
    FfmpegTcp,
    FfmpegUdp,
    GstTcp,
    GstUdp,
}

impl Client {
    const ALL: [Self; 6] = [Curl, Ffmpeg, FfmpegTcp, FfmpegUdp, GstTcp, GstUdp];

    fn title(self) -> &'static str {
        match self {
            Curl => "curl, HTTP",
            Ffmpeg => "ffmpeg, HTTP",
            FfmpegTcp => "ffmpeg, RTSP/TCP",
            FfmpegUdp => "ffmpeg, RTSP/UDP",
            GstTcp => "GStreamer, RTSP/TCP",
            GstUdp => "GStreamer, RTSP/UDP",
        }
    }

    /// Over RTP packets are framed anew.
    pub(crate) fn is_rtsp(self) -> bool {
        !matches!(self, Curl | Ffmpeg)
    }

    /// ffmpeg 5.1 gathers sound in RTP packets with one time each, and never sends the last, half-full one.
    pub(crate) fn gathers_sound(self) -> bool {
        matches!(self, FfmpegTcp | FfmpegUdp)
    }
}

/// A clip and who pushes it.
pub(crate) struct Cell {
    /// A fixture, or one of `MADE`.
    pub(crate) clip: &'static str,
    pub(crate) holds: &'static str,
    pub(crate) clients: &'static [Client],
}

const fn cell(clip: &'static str, holds: &'static str, clients: &'static [Client]) -> Cell {
    Cell { clip, holds, clients }
}

const HTTP: &[Client] = &[Curl, Ffmpeg];
const FFMPEG: &[Client] = &[Curl, Ffmpeg, FfmpegTcp, FfmpegUdp];
const RTSP_ALONE: &[Client] = &[FfmpegTcp, FfmpegUdp];
const GST: &[Client] = &[GstTcp, GstUdp];
const SOUND: &[Client] = &[Curl, Ffmpeg, FfmpegTcp, FfmpegUdp, GstTcp, GstUdp];

pub(crate) const CELLS: &[Cell] = &[
    cell("bbb.mkv", "H.264 with B-frames, AAC", FFMPEG),
    cell("bbb_frag.mp4", "H.264 with B-frames, AAC", HTTP),
    cell("bbb_cmaf.mp4", "H.264 with B-frames, AAC", &[Curl]),
    cell("bbb.ts", "H.264 with B-frames, AAC", HTTP),
    cell("short_bbb.mp4", "H.264 with B-frames, AAC", GST),
    cell("h264_ip.mkv", "H.264 without B-frames, AAC", FFMPEG),
    cell("h264_ip.mp4", "H.264 without B-frames, AAC", HTTP),
    cell("h264_ip.ts", "H.264 without B-frames, AAC", HTTP),
    cell("short_ip.mp4", "H.264 without B-frames, AAC", GST),
    cell("h264_open_gop.mkv", "H.264 with open GOPs, AAC", FFMPEG),
    cell("h264_open_gop.mp4", "H.264 with open GOPs, AAC", HTTP),
    cell("h264_open_gop.ts", "H.264 with open GOPs, AAC", HTTP),
    cell("short_open_gop.mp4", "H.264 with open GOPs, AAC", GST),
    cell("h264_pyramid.mkv", "H.264 with a pyramid of B-frames, AAC", FFMPEG),
    cell("h264_vfr.mkv", "H.264 of variable rate", FFMPEG),
    cell("h264_long_gop.mkv", "H.264, one GOP of 24 s", &[Curl, FfmpegTcp]),
    cell("h264_short_gop.mkv", "H.264, five keyframes a second", &[Curl, FfmpegTcp]),
    cell("h265_open_gop.mkv", "H.265 with open GOPs, AAC", FFMPEG),
    cell("h265.mp4", "H.265 with open GOPs, AAC", HTTP),
    cell("h265.ts", "H.265 with open GOPs, AAC", HTTP),
    cell("short_h265.mp4", "H.265 with open GOPs, AAC", GST),
    cell("av1_opus.mkv", "AV1, Opus", HTTP),
    cell("av1_opus.mp4", "AV1, Opus", HTTP),
    cell("vp9_opus.webm", "VP9, Opus", HTTP),
    cell("vp9_opus.mp4", "VP9, Opus", HTTP),
    cell("vp8_vorbis.webm", "VP8, Vorbis (opaque)", HTTP),
    cell("late_audio.mkv", "H.264, AAC 1.3 s late", HTTP),
    cell("laced.mkv", "H.264, AAC, MP3; laced", &[Curl]),
    cell("audio_aac.mkv", "AAC", FFMPEG),
    cell("audio_aac.mp4", "AAC", HTTP),
    cell("audio_aac.ts", "AAC", HTTP),
    cell("audio_opus.mkv", "Opus", SOUND),
    cell("opus.ts", "Opus", HTTP),
    cell("audio_pcm_mulaw.mkv", "G.711 µ-law", SOUND),
    cell("audio_pcm_alaw.mkv", "G.711 A-law", SOUND),
    cell("audio_mp3.mkv", "MP3", FFMPEG),
    cell("mp3_frag.mp4", "MP3", HTTP),
    cell("mp3.ts", "MP3", HTTP),
    cell("audio_pcm_s16le.mkv", "linear PCM, little-endian", HTTP),
    cell("l16.mkv", "linear PCM, big-endian", RTSP_ALONE),
];

const FRAGMENTED: &[&str] = &["-c", "copy", "-movflags", "+frag_keyframe+empty_moov+default_base_moof"];
/// For who pushes in real time.
const SHORT: &[&str] = &["-t", "4", "-c", "copy", "-movflags", "+frag_keyframe+empty_moov+default_base_moof"];

/// What ffmpeg makes of fixtures, encoding no picture and no compressed sound anew: name, fixture, arguments.
pub(crate) const MADE: &[(&str, &str, &[&str])] = &[
    ("h264_ip.mp4", "h264_ip.mkv", FRAGMENTED),
    ("h264_ip.ts", "h264_ip.mkv", &["-c", "copy"]),
    ("opus.ts", "audio_opus.mkv", &["-c", "copy"]),
    ("mp3.ts", "audio_mp3.mkv", &["-c", "copy"]),
    ("mp3_frag.mp4", "audio_mp3.mkv", &["-c", "copy", "-movflags", "+empty_moov", "-frag_duration", "500000"]),
    ("l16.mkv", "audio_pcm_s16le.mkv", &["-c:a", "pcm_s16be"]),
    ("short_bbb.mp4", "bbb_frag.mp4", SHORT),
    ("short_ip.mp4", "h264_ip.mkv", SHORT),
    ("short_open_gop.mp4", "h264_open_gop.mp4", SHORT),
    ("short_h265.mp4", "h265.mp4", SHORT),
];

/// By how much the time of a packet may be off, and why.
pub(crate) fn tolerance_ms(client: Client, clip: &str) -> i64 {
    match client {
        // Laced frames have no times of their own: readers round the steps between them differently.
        _ if clip == "laced.mkv" => 2,
        Curl | Ffmpeg => 0,
        // matroskademux 1.22 gives a packet from before 0, as the first one of Opus is, as if it were at 0.
        GstTcp | GstUdp if clip == "audio_opus.mkv" => 7,
        // RTP's clocks are not the clip's: 1/90000 s of video and 1/48000 s of sound, from its whole milliseconds.
        _ => 1,
    }
}

/// The table of docs/design/matrix.md.
pub(crate) fn table() -> String {
    let titles: Vec<&str> = Client::ALL.map(Client::title).to_vec();
    let mut lines =
        vec![format!("| Clip | Holds | {} |", titles.join(" | ")), "|---|---".to_owned() + &"|---".repeat(6) + "|"];
    for Cell { clip, holds, clients } in CELLS {
        let column = |client: Client| match tolerance_ms(client, clip) {
            _ if !clients.contains(&client) => String::new(),
            0 => "exact".to_owned(),
            ms => format!("{ms} ms"),
        };
        lines.push(format!("| `{clip}` | {holds} | {} |", Client::ALL.map(column).join(" | ")));
    }
    lines.join("\n").replace("|  |", "| |").replace("|  |", "| |") + "\n"
}
