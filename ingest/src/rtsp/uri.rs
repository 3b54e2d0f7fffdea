//! What request URIs name: a stream, and a track of it.

use rtsp_types::Url;
use vidar_core::ids::StreamName;

use super::sdp::Description;

/// Why a URI names no stream: an RTSP status, and what to say.
pub(crate) type UriError = (u16, &'static str);

/// The stream of `rtsp://host:port/STREAM` and of `…/STREAM/track`.
pub(crate) fn stream_name(uri: &Url) -> Result<StreamName, UriError> {
    let first = uri.path().trim_matches('/').split('/').next().unwrap_or_default();
    if first.is_empty() {
        return Err((404, "Not Found: the path is /STREAM"));
    }
    // A track's control may follow without a slash before it, or with a query.
    StreamName::new(first).map_err(|_| (400, "Bad Request: not a stream name"))
}

/// True if the path is a stream's and nothing more.
pub(crate) fn is_aggregate(uri: &Url) -> bool {
    !uri.path().trim_matches('/').contains('/')
}

/// Which media section a SETUP means. `taken` are those that were set up before.
///
/// RFC 2326 section C.1.1: `a=control` is absolute, or relative to the announced URI. ffmpeg writes `streamid=0`,
/// GStreamer `stream=0`; the order of SETUPs says nothing.
pub(crate) fn find_track(announced: &Url, request: &Url, description: &Description, taken: &[usize]) -> Option<usize> {
    let wanted = path_and_query(request);
    let base = description.base.as_deref().and_then(|base| Url::parse(base).ok());
    let bases = [Some(path_and_query(announced)), base.as_ref().map(path_and_query)];
    let named = |control: &str| {
        if let Some(absolute) = Url::parse(control).ok().filter(|_| control.contains("://")) {
            return path_and_query(&absolute) == wanted;
        }
        let control = control.trim_matches('/');
        bases.iter().flatten().any(|base| {
            wanted.strip_prefix(base.trim_end_matches('/')).is_some_and(|rest| rest.trim_matches('/') == control)
        })
    };
    let medias = &description.medias;
    if let Some(media) = medias.iter().find(|media| media.control.as_deref().is_some_and(named)) {
        return Some(media.index);
    }
    // A single track may be set up by the URI of the whole; sections without a control by their order.
    let aggregate = bases.iter().flatten().any(|base| *base == wanted);
    match &medias[..] {
        [only] if aggregate || only.control.is_none() => Some(only.index),
        _ => medias.iter().find(|media| media.control.is_none() && !taken.contains(&media.index)).map(|m| m.index),
    }
}

fn path_and_query(uri: &Url) -> String {
    let path = uri.path().trim_end_matches('/');
    uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_first_segment_names_the_stream() {
        for uri in
            ["rtsp://h:1/cam", "rtsp://h/cam/", "rtsp://u:p@h/cam/trackID=1", "rtsp://h/cam?x=1", "rtsp://h//cam"]
        {
            assert_eq!(stream_name(&url(uri)).unwrap().as_str(), "cam", "{uri}");
        }
        for (uri, status) in
            [("rtsp://h", 404), ("rtsp://h/", 404), ("rtsp://h/a%20b", 400), ("rtsp://h/%2e%2e%2fx", 400)]
        {
            assert_eq!(stream_name(&url(uri)).unwrap_err().0, status, "{uri}");
        }
        assert!(is_aggregate(&url("rtsp://h/cam/")));
        assert!(!is_aggregate(&url("rtsp://h/cam/streamid=0")));
    }

    #[test]
    fn tracks_are_found_by_their_control() {
        let description = |controls: [&str; 2], base: &str| {
            let text =
                format!("v=0\r\n{base}m=video 0 RTP/AVP 96\r\n{}m=audio 0 RTP/AVP 0\r\n{}", controls[0], controls[1]);
            Description::parse(text.as_bytes()).unwrap()
        };
        let cam = url("rtsp://h:8554/cam");
        let gst = description(["a=control:stream=1\r\n", "a=control:stream=0\r\n"], "");
        assert_eq!(find_track(&cam, &url("rtsp://h:8554/cam/stream=0"), &gst, &[]), Some(1));
        assert_eq!(find_track(&url("rtsp://h/cam/"), &url("rtsp://h/cam/stream=1"), &gst, &[]), Some(0));
        assert_eq!(find_track(&cam, &url("rtsp://h:8554/cam/stream=7"), &gst, &[]), None);
        assert_eq!(find_track(&cam, &cam, &gst, &[]), None);
        let absolute =
            description(["a=control:rtsp://10.0.0.1/cam/a\r\n", "a=control:b\r\n"], "a=control:rtsp://h/x/\r\n");
        assert_eq!(find_track(&cam, &url("rtsp://h/cam/a"), &absolute, &[]), Some(0));
        assert_eq!(find_track(&cam, &url("rtsp://h/x/b"), &absolute, &[]), Some(1));
        let silent = description(["", ""], "");
        assert_eq!(find_track(&cam, &cam, &silent, &[]), Some(0));
        assert_eq!(find_track(&cam, &cam, &silent, &[0]), Some(1));
        assert_eq!(find_track(&cam, &cam, &silent, &[0, 1]), None);
    }
}
