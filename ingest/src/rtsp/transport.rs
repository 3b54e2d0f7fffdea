//! The Transport header field (RFC 2326 section 12.39).

/// How media of a track is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// On the RTSP connection; the channels the client chose.
    Interleaved(Option<(u8, u8)>),
    /// In UDP packets; the client's ports for RTP and RTCP.
    Udp(u16, u16),
}

/// The first of the client's alternatives that we can do. RTP/AVP over TCP or unicast UDP, for recording.
pub(crate) fn parse(value: &str) -> Result<Wanted, &'static str> {
    let mut reason = "no transport";
    for alternative in value.split(',') {
        match parse_one(alternative) {
            Ok(wanted) => return Ok(wanted),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

fn parse_one(alternative: &str) -> Result<Wanted, &'static str> {
    let mut fields = alternative.split(';').map(str::trim);
    let profile = fields.next().unwrap_or_default().to_ascii_uppercase();
    let tcp = match &profile[..] {
        "RTP/AVP/TCP" => true,
        "RTP/AVP" | "RTP/AVP/UDP" => false,
        _ => return Err("only RTP/AVP over TCP or UDP"),
    };
    let (mut interleaved, mut client_port) = (None, None);
    for field in fields {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let value = value.trim().trim_matches('"');
        match &name.trim().to_ascii_lowercase()[..] {
            "multicast" => return Err("no multicast"),
            // Several methods may stand there, as in mode="PLAY,RECORD" (cut at the comma by now).
            "mode" if value.to_ascii_lowercase().contains("play") => return Err("mode is not record"),
            "interleaved" => interleaved = Some(pair(value).ok_or("bad interleaved channels")?),
            "client_port" => client_port = Some(pair(value).ok_or("bad client_port")?),
            _ => {}
        }
    }
    if tcp || interleaved.is_some() {
        let channels = interleaved.map(|(rtp, rtcp)| Some((u8::try_from(rtp).ok()?, u8::try_from(rtcp).ok()?)));
        return match channels {
            Some(None) => Err("bad interleaved channels"),
            other => Ok(Wanted::Interleaved(other.flatten())),
        };
    }
    let (rtp, rtcp) = client_port.ok_or("no client_port")?;
    if rtp == 0 || rtcp == 0 { Err("bad client_port") } else { Ok(Wanted::Udp(rtp, rtcp)) }
}

/// `4` or `4-5`. One alone means itself and the next.
fn pair(value: &str) -> Option<(u16, u16)> {
    let (first, second) = value.split_once('-').map_or((value, None), |(first, second)| (first, Some(second)));
    let first: u16 = first.trim().parse().ok()?;
    let second = match second {
        Some(second) => second.trim().parse().ok()?,
        None => first.checked_add(1)?,
    };
    (first != second).then_some((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_ask_for() {
        for (value, wanted) in [
            ("RTP/AVP/TCP;unicast;interleaved=0-1;mode=record", Wanted::Interleaved(Some((0, 1)))),
            ("RTP/AVP/TCP;unicast;interleaved=254-255;mode=RECORD", Wanted::Interleaved(Some((254, 255)))),
            ("RTP/AVP/TCP;unicast;interleaved=6;mode=\"record\"", Wanted::Interleaved(Some((6, 7)))),
            ("rtp/avp/tcp;unicast", Wanted::Interleaved(None)),
            ("RTP/AVP/UDP;unicast;client_port=17740-17741;mode=record", Wanted::Udp(17740, 17741)),
            ("RTP/AVP; unicast; client_port=5000", Wanted::Udp(5000, 5001)),
            ("RTP/SAVP;unicast;client_port=1-2, RTP/AVP/TCP;interleaved=2-3", Wanted::Interleaved(Some((2, 3)))),
        ] {
            assert_eq!(parse(value), Ok(wanted), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_done() {
        for value in [
            "",
            "RTP/SAVP;unicast;client_port=1-2",
            "RTP/AVP;multicast;client_port=1-2",
            "RTP/AVP;unicast",
            "RTP/AVP;unicast;client_port=0-1",
            "RTP/AVP;unicast;client_port=65535",
            "RTP/AVP;unicast;client_port=70000-70001",
            "RTP/AVP/TCP;interleaved=256-257",
            "RTP/AVP/TCP;interleaved=1-1",
            "RTP/AVP/TCP;interleaved=0-1;mode=play",
        ] {
            assert!(parse(value).is_err(), "{value}");
        }
    }
}
