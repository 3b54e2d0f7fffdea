//! Independent readers agree on every file that we write: of every clip there is, as Matroska, as MP4, and as the
//! init and media segments of every HLS rendition one after the other.

#[path = "support/readers.rs"]
mod readers;
mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use readers::{check_mkv, check_mp4};
use support::{Archive, Push, START};
use vidar_core::entry::SharedEntry;
use vidar_media::container::fmp4::sample_entry;

/// Clips of all containers that can be pushed, by path.
fn clips() -> Vec<String> {
    let clips = vidar_fixtures::corpus(&["mkv", "webm", "ts", "mp4"]).into_iter();
    // A plain MP4 is refused.
    let fragmented = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        path.extension().is_none_or(|ending| ending != "mp4") || bytes.windows(4).any(|window| window == b"moof")
    };
    clips.filter(fragmented).map(|path| path.to_str().unwrap().to_owned()).collect()
}

/// Stored samples by track of the config.
fn stored(entries: &[SharedEntry], tracks: usize) -> Vec<usize> {
    let mut counts = vec![0; tracks];
    for entry in entries {
        for (count, totals) in counts.iter_mut().zip(&entry.totals) {
            *count += totals.sample_count as usize;
        }
    }
    counts
}

/// Leading pictures of the first keyframe, and sound long before it, stay out of a clip.
fn assert_about(name: &str, expected: &[usize], found: &[usize]) {
    let close = |(expected, found): (&usize, &usize)| found <= expected && found + 30 >= *expected;
    let all = expected.len() == found.len() && expected.iter().zip(found).all(close);
    assert!(all, "{name}: {expected:?} are stored, {found:?} come out");
}

#[tokio::test]
async fn on_clips() {
    for clip in clips() {
        let archive = Archive::new();
        let entries = archive.push(Push::new("cam", &clip, START)).await;
        let config = archive.api.source.config(&entries[0]).await.unwrap();
        let one_config = entries.iter().all(|entry| entry.meta.config == entries[0].meta.config);
        let expected = stored(&entries, config.tracks.len());
        let answer = archive.get("/v1/streams/cam/clip.mkv").await;
        assert_eq!(answer.status, 200, "{clip}");
        assert_about(&format!("{clip} as Matroska"), &expected, &check_mkv(&clip, &answer.body));

        let carried = |index: &usize| sample_entry::encode(&config.tracks[*index]).is_some();
        let carried: Vec<usize> = (0..config.tracks.len()).filter(carried).collect();
        let answer = archive.get("/v1/streams/cam/clip.mp4").await;
        assert_eq!(answer.status, if carried.is_empty() { 422 } else { 200 }, "{clip}");
        if answer.status == 200 && one_config {
            let expected: Vec<usize> = carried.iter().map(|i| expected[*i]).filter(|count| *count > 0).collect();
            assert_about(&format!("{clip} as MP4"), &expected, &check_mp4(&clip, &answer.body));
        }
    }
}

#[tokio::test]
async fn on_hls() {
    for clip in clips() {
        let archive = Archive::new();
        let entries = archive.push(Push::new("cam", &clip, START)).await;
        let base = "/v1/streams/cam/hls";
        let master = archive.get(&format!("{base}/index.m3u8")).await;
        if master.status == 422 || entries.iter().any(|entry| entry.meta.config != entries[0].meta.config) {
            // Nothing that HLS carries, or several init segments.
            continue;
        }
        let master = m3u8_rs::parse_master_playlist_res(master.text().as_bytes())
            .unwrap_or_else(|error| panic!("{clip}: {error}: {}", master.text()));
        let whole = master.variants.iter().filter(|variant| !variant.is_i_frame);
        let uris = whole.map(|variant| variant.uri.clone());
        let uris = uris.chain(master.alternatives.iter().filter_map(|alternative| alternative.uri.clone()));
        let mut found = BTreeMap::new();
        for uri in uris {
            let (name, file) = (format!("{clip}: {uri}"), rendition(&archive, base, &uri).await);
            let counts = check_mp4(&name, &file);
            assert_eq!(counts.len(), 1, "{name}: {counts:?}");
            found.insert(uri, counts[0]);
        }
        // No sample is lost or told twice.
        let config = archive.api.source.config(&entries[0]).await.unwrap();
        let stored = stored(&entries, config.tracks.len());
        for (uri, count) in found {
            assert!(stored.contains(&count), "{clip}: {uri} has {count} samples, stored are {stored:?}");
        }
    }
}

/// Its init segment and its media segments in one.
async fn rendition(archive: &Archive, base: &str, uri: &str) -> Bytes {
    let playlist = archive.get(&format!("{base}/{uri}")).await;
    let (folder, _) = uri.rsplit_once("index.m3u8").unwrap();
    let playlist = m3u8_rs::parse_media_playlist_res(playlist.text().as_bytes())
        .unwrap_or_else(|error| panic!("{uri}: {error}: {}", playlist.text()));
    let mut file = Vec::new();
    for segment in playlist.segments {
        for uri in segment.map.iter().map(|map| &map.uri).chain([&segment.uri]) {
            let answer = archive.get(&format!("{base}/{folder}{uri}")).await;
            assert_eq!(answer.status, 200, "{uri}");
            file.extend_from_slice(&answer.body);
        }
    }
    file.into()
}
