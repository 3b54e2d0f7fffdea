//! The compatible API as the AWS SDK for Rust calls it: every operation that is here, errors by their types, pages.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_kinesisvideo as control;
use aws_sdk_kinesisvideo::config::interceptors::BeforeSerializationInterceptorContextRef;
use aws_sdk_kinesisvideo::config::retry::RetryConfig;
use aws_sdk_kinesisvideo::config::{ConfigBag, Intercept, Region, RuntimeComponents};
use aws_sdk_kinesisvideo::error::BoxError;
use aws_sdk_kinesisvideo::types::{
    ApiName, ComparisonOperator, DefaultStorageTier, Status, StreamNameCondition, StreamStorageConfiguration, Tag,
    UpdateDataRetentionOperation,
};
use aws_sdk_kinesisvideoarchivedmedia as archived;
use aws_sdk_kinesisvideoarchivedmedia::types as kept;
use aws_sdk_kinesisvideomedia as media;
use aws_sdk_kinesisvideomedia::types::{StartSelector, StartSelectorType};
use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use tokio_util::sync::CancellationToken;
use vidar_server::credentials;
use vidar_server::serve::Server;
use vidar_server::settings::ServeArgs;

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

/// Notes the names of the operations that are called.
#[derive(Debug, Clone, Default)]
struct Ran(Arc<Mutex<BTreeSet<String>>>);

impl Intercept for Ran {
    fn name(&self) -> &'static str {
        "Ran"
    }

    fn read_before_serialization(
        &self,
        _context: &BeforeSerializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = config.load::<Metadata>().ok_or("an operation without a name")?;
        self.0.lock().expect("never poisoned").insert(operation.name().to_owned());
        Ok(())
    }
}

/// The operations that the page says were run by the SDK.
fn said() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api/kinesis.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let table = page.split_once("\n### What was run\n").expect("its table").1;
    let table = table.split("\n#").next().expect("a part at least");
    let mut rows = table.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches(['|', ' ']).split(" | ").map(str::to_owned).collect::<Vec<_>>();
    let column = cells(rows.next().expect("its head")).iter().position(|cell| cell == "Rust SDK").expect("a column");
    let rows = rows.map(cells).filter(|row| row.get(column).is_some_and(|cell| cell == "yes"));
    rows.flat_map(|row| row[0].split(", ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

struct Clients {
    control: control::Client,
    archived: archived::Client,
    media: media::Client,
    ran: Ran,
}

impl Clients {
    fn new(url: &str, id: &str, secret: &str) -> Self {
        let ran = Ran::default();
        macro_rules! client {
            ($sdk:ident) => {
                $sdk::Client::from_conf(
                    $sdk::Config::builder()
                        .region(Region::new("eu-central-1"))
                        .endpoint_url(url)
                        .credentials_provider(Credentials::from_keys(id, secret, None))
                        .http_client(Builder::new().build_http())
                        .retry_config(RetryConfig::disabled())
                        .interceptor(ran.clone())
                        .build(),
                )
            };
        }
        Self { control: client!(control), archived: client!(archived), media: client!(media), ran }
    }

    async fn version(&self, name: &str) -> String {
        let told = self.control.describe_stream().stream_name(name).send().await.expect("described");
        told.stream_info.expect("a stream").version.expect("a version")
    }
}

/// Runs something over a server of this process, with the root pair.
async fn served<F: Future<Output = ()>>(run: impl FnOnce(String, String, String, String) -> F) {
    let own = tempfile::tempdir().expect("a folder");
    let args = ServeArgs {
        data_dir: Some(own.path().join("data")),
        http: Some(([127, 0, 0, 1], 0).into()),
        rtsp: Some(([127, 0, 0, 1], 0).into()),
        kvs: Some(([127, 0, 0, 1], 0).into()),
        disk_policy_mib: Some(2),
        disk_refuse_mib: Some(1),
        ..ServeArgs::default()
    };
    let server = Server::start(args.settings().expect("settings")).await.expect("it starts");
    let (pair, _) = credentials::load(&own.path().join("data")).expect("the root pair");
    let (url, http) = (server.kvs_url().expect("a port").to_owned(), server.http_address().expect("a port"));
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone().cancelled_owned()));
    run(url, http.to_string(), pair.access_key_id.clone(), pair.secret.to_string()).await;
    stop.cancel();
    serving.await.expect("it ends").expect("it closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_runs_every_operation_that_is_here() {
    served(async |url, http, id, secret| {
        let clients = Clients::new(&url, &id, &secret);
        manage_streams(&clients, &url).await;
        tag(&clients.control).await;
        configure(&clients).await;
        let pushed = Command::new("curl")
            .args(["-sSf", "-u", &format!("{id}:{secret}"), "-T"])
            .arg(vidar_fixtures::path("bbb.mkv"))
            .arg(format!("http://{http}/v1/streams/cam/media?start={START_MS}"))
            .output()
            .expect("curl runs");
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        read(&clients).await;
        let other = Clients::new(&url, &id, "wrong");
        let refused = other.control.list_streams().send().await.expect_err("not signed by the secret");
        assert_eq!(refused.into_service_error().meta().code(), Some("InvalidSignatureException"));
        assert_eq!(*clients.ran.0.lock().expect("never poisoned"), said());
    })
    .await;
}

async fn manage_streams(clients: &Clients, url: &str) {
    let kvs = &clients.control;
    let tier = StreamStorageConfiguration::builder().default_storage_tier(DefaultStorageTier::Hot).build();
    let made = kvs.create_stream().stream_name("rust-1").data_retention_in_hours(24).media_type("video/h264");
    let made = made.device_name("door").tags("site", "north").stream_storage_configuration(tier.expect("a tier"));
    let arn = made.send().await.expect("made").stream_arn.expect("an ARN");
    let taken = kvs.create_stream().stream_name("rust-1").send().await.expect_err("the name is taken");
    assert!(taken.into_service_error().is_resource_in_use_exception());
    let bad = kvs.create_stream().stream_name("bad").data_retention_in_hours(87_601).send().await;
    assert!(bad.expect_err("too long").into_service_error().is_invalid_argument_exception());
    let info = kvs.describe_stream().stream_arn(&arn).send().await.expect("described").stream_info.expect("a stream");
    assert_eq!(
        (info.device_name(), info.media_type(), info.status()),
        (Some("door"), Some("video/h264"), Some(&Status::Active))
    );
    let created_ms = ms(info.creation_time().expect("a time"));
    assert!(arn.ends_with(&format!("/{created_ms}")), "{arn}: to the millisecond");
    let none = kvs.describe_stream().stream_name("nowhere").send().await.expect_err("there is none");
    assert!(none.into_service_error().is_resource_not_found_exception());

    let update = |version: &str| kvs.update_stream().stream_name("rust-1").current_version(version).device_name("gate");
    update(info.version().expect("a version")).send().await.expect("updated");
    let stale = update(info.version().expect("a version")).send().await.expect_err("it has changed since");
    assert!(stale.into_service_error().is_version_mismatch_exception());
    let longer = kvs.update_data_retention().stream_arn(&arn).current_version(clients.version("rust-1").await);
    let longer =
        longer.operation(UpdateDataRetentionOperation::IncreaseDataRetention).data_retention_change_in_hours(24);
    longer.send().await.expect("updated");
    let info =
        kvs.describe_stream().stream_name("rust-1").send().await.expect("described").stream_info.expect("a stream");
    assert_eq!((info.device_name(), info.data_retention_in_hours()), (Some("gate"), Some(48)));

    for name in ["rust-2", "rust-3"] {
        kvs.create_stream().stream_name(name).send().await.expect("made");
    }
    let begins = StreamNameCondition::builder().comparison_operator(ComparisonOperator::BeginsWith);
    let pages = kvs.list_streams().stream_name_condition(begins.comparison_value("rust-").build());
    let mut pages = pages.into_paginator().page_size(2).send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.expect("a page");
        found.push(page.stream_info_list().iter().filter_map(|stream| stream.stream_name.clone()).collect::<Vec<_>>());
    }
    assert_eq!(found, [vec!["rust-1", "rust-2"], vec!["rust-3"]]);
    let gone =
        kvs.describe_stream().stream_name("rust-3").send().await.expect("described").stream_info.expect("a stream");
    let gone = gone.stream_arn.expect("an ARN");
    kvs.delete_stream().stream_arn(&gone).send().await.expect("deleted");
    let again = kvs.delete_stream().stream_arn(&gone).send().await.expect_err("it is gone");
    assert!(again.into_service_error().is_resource_not_found_exception());
    for api in ApiName::values() {
        let told = kvs.get_data_endpoint().stream_name("rust-1").api_name((*api).into()).send().await.expect("told");
        assert_eq!(told.data_endpoint(), Some(url), "{api}");
    }
}

async fn tag(kvs: &control::Client) {
    let info =
        kvs.describe_stream().stream_name("rust-1").send().await.expect("described").stream_info.expect("a stream");
    let arn = info.stream_arn.expect("an ARN");
    kvs.tag_stream().stream_name("rust-1").tags("floor", "2").send().await.expect("tagged");
    let room = Tag::builder().key("room").value("2.1").build().expect("a tag");
    kvs.tag_resource().resource_arn(&arn).tags(room).send().await.expect("tagged");
    let tags = kvs.list_tags_for_stream().stream_name("rust-1").send().await.expect("listed").tags.expect("tags");
    let names: BTreeSet<&str> = tags.keys().map(String::as_str).collect();
    assert_eq!(names, ["floor", "room", "site"].into());
    kvs.untag_stream().stream_name("rust-1").tag_key_list("floor").send().await.expect("untagged");
    kvs.untag_resource().resource_arn(&arn).tag_key_list("room").send().await.expect("untagged");
    let tags = kvs.list_tags_for_resource().resource_arn(&arn).send().await.expect("listed").tags.expect("tags");
    assert_eq!(tags, [("site".to_owned(), "north".to_owned())].into());
    let many = (0..51).map(|index| (format!("t{index}"), String::new())).collect();
    let refused = kvs.create_stream().stream_name("rust-9").set_tags(Some(many)).send().await.expect_err("51 tags");
    assert!(refused.into_service_error().is_tags_per_resource_exceeded_limit_exception());
}

/// What is kept and does nothing, and what is not here.
async fn configure(clients: &Clients) {
    let kvs = &clients.control;
    let tier = StreamStorageConfiguration::builder().default_storage_tier(DefaultStorageTier::Warm).build();
    let update = kvs.update_stream_storage_configuration().stream_name("rust-1");
    let update =
        update.current_version(clients.version("rust-1").await).stream_storage_configuration(tier.expect("a tier"));
    update.send().await.expect("updated");
    let told = kvs.describe_stream_storage_configuration().stream_name("rust-1").send().await.expect("described");
    let tier = told.stream_storage_configuration.expect("a configuration").default_storage_tier;
    assert_eq!(tier, DefaultStorageTier::Warm);
    let told = kvs.describe_image_generation_configuration().stream_name("rust-1").send().await.expect("described");
    assert!(told.image_generation_configuration().is_none());
    kvs.update_image_generation_configuration().stream_name("rust-1").send().await.expect("nothing is taken away");
    let told = kvs.describe_notification_configuration().stream_name("rust-1").send().await.expect("described");
    assert!(told.notification_configuration().is_none());
    kvs.update_notification_configuration().stream_name("rust-1").send().await.expect("nothing is taken away");
    let told = kvs.describe_mapped_resource_configuration().stream_name("rust-1").send().await.expect("described");
    assert!(told.mapped_resource_configuration_list().is_empty());
    assert!(kvs.list_signaling_channels().send().await.expect("listed").channel_info_list().is_empty());
    let none = kvs.describe_signaling_channel().channel_name("none").send().await.expect_err("there are none");
    assert!(none.into_service_error().is_resource_not_found_exception());
    let none = kvs.create_signaling_channel().channel_name("none").send().await.expect_err("none can be made");
    assert!(none.into_service_error().is_account_channel_limit_exceeded_exception());
    let none = kvs.describe_edge_configuration().stream_name("rust-1").send().await.expect_err("there is none");
    assert!(none.into_service_error().is_stream_edge_configuration_not_found_exception());
}

fn at(after_ms: i64) -> archived::primitives::DateTime {
    archived::primitives::DateTime::from_millis(START_MS + after_ms)
}

/// The SDK keeps the binary fraction it reads: a bit less than the millisecond, at times.
fn ms(time: &archived::primitives::DateTime) -> i64 {
    (time.as_secs_f64() * 1000.0).round() as i64
}

async fn read(clients: &Clients) {
    let kept_media = &clients.archived;
    let (first, last) = (at(0), at(60_000));
    let range = kept::TimestampRange::builder().start_timestamp(first).end_timestamp(last).build().expect("a range");
    let all = kept::FragmentSelector::builder().fragment_selector_type(kept::FragmentSelectorType::ProducerTimestamp);
    let list = kept_media.list_fragments().stream_name("cam");
    let list = list.fragment_selector(all.timestamp_range(range).build().expect("a selector"));
    let mut fragments = Vec::new();
    let mut pages = list.into_paginator().page_size(2).items().send();
    while let Some(fragment) = pages.next().await {
        fragments.push(fragment.expect("a fragment"));
    }
    fragments.sort_by(|a, b| a.fragment_number.cmp(&b.fragment_number));
    let numbers: Vec<String> = fragments.iter().filter_map(|fragment| fragment.fragment_number.clone()).collect();
    assert!(numbers.len() > 3 && fragments.iter().all(|fragment| fragment.fragment_size_in_bytes > 0));
    assert_eq!(fragments[0].producer_timestamp, Some(at(0)));
    // To the millisecond, both ways: what was told is found again, and nothing a millisecond later.
    let told = fragments[1].server_timestamp.expect("a time");
    for (time, later_ms) in [(told, 0), (archived::primitives::DateTime::from_millis(ms(&told) + 1), 1)] {
        let range = kept::TimestampRange::builder().start_timestamp(time).end_timestamp(time).build().expect("a range");
        let one = kept::FragmentSelector::builder().fragment_selector_type(kept::FragmentSelectorType::ServerTimestamp);
        let one = one.timestamp_range(range).build().expect("a selector");
        let found = kept_media.list_fragments().stream_name("cam").fragment_selector(one).send().await.expect("listed");
        let begun =
            |fragment: &&kept::Fragment| fragment.server_timestamp.as_ref().map(ms) == Some(ms(&told) + later_ms);
        assert_eq!(found.fragments().len(), fragments.iter().filter(begun).count(), "{later_ms} ms later");
    }

    let media = kept_media.get_media_for_fragment_list().stream_name("cam").set_fragments(Some(numbers.clone()));
    let media = media.send().await.expect("media");
    assert_eq!(media.content_type(), Some("video/webm"));
    let media = media.payload.collect().await.expect("all of it").into_bytes();
    assert!(numbers.iter().all(|number| contains(&media, number.as_bytes())));
    let none = kept_media.get_media_for_fragment_list().stream_name("nowhere").fragments("1").send().await;
    assert!(none.expect_err("no such stream").into_service_error().is_resource_not_found_exception());

    let range =
        kept::ClipTimestampRange::builder().start_timestamp(first).end_timestamp(last).build().expect("a range");
    let clip = kept::ClipFragmentSelector::builder();
    let clip = clip.fragment_selector_type(kept::ClipFragmentSelectorType::ProducerTimestamp).timestamp_range(range);
    let clip = clip.build().expect("a selector");
    let answer =
        kept_media.get_clip().stream_name("cam").clip_fragment_selector(clip.clone()).send().await.expect("a clip");
    assert_eq!(answer.content_type(), Some("video/mp4"));
    assert_eq!(&answer.payload.collect().await.expect("all of it").into_bytes()[4..8], b"ftyp");
    let watched = kept_media.get_clip().stream_name("rust-2").clip_fragment_selector(clip).send().await;
    assert!(watched.expect_err("nothing is kept").into_service_error().is_no_data_retention_exception());

    let images = kept_media.get_images().stream_name("cam").format(kept::Format::Jpeg).sampling_interval(500);
    let images = images.image_selector_type(kept::ImageSelectorType::ProducerTimestamp);
    let images = images.start_timestamp(at(250)).end_timestamp(at(3250));
    let mut pages = images.into_paginator().page_size(3).items().send();
    let mut times = Vec::new();
    while let Some(image) = pages.next().await {
        let image = image.expect("an image");
        assert!(image.error.is_none() && image.image_content.is_some_and(|content| content.starts_with("/9j/")));
        times.push(ms(&image.time_stamp.expect("a time")));
    }
    assert_eq!(times, (0..7).map(|index| START_MS + 250 + 500 * index).collect::<Vec<_>>());

    let range = kept::HlsTimestampRange::builder().start_timestamp(first).end_timestamp(last).build();
    let selector = kept::HlsFragmentSelector::builder().timestamp_range(range);
    let selector = selector.fragment_selector_type(kept::HlsFragmentSelectorType::ProducerTimestamp).build();
    let hls = kept_media.get_hls_streaming_session_url().stream_name("cam").hls_fragment_selector(selector);
    let hls = hls.playback_mode(kept::HlsPlaybackMode::OnDemand).send().await.expect("a session");
    assert!(hls.hls_streaming_session_url().expect("a URL").contains("/hls/v1/"));
    let range = kept::DashTimestampRange::builder().start_timestamp(first).end_timestamp(last).build();
    let selector = kept::DashFragmentSelector::builder().timestamp_range(range);
    let selector = selector.fragment_selector_type(kept::DashFragmentSelectorType::ProducerTimestamp).build();
    let dash = kept_media.get_dash_streaming_session_url().stream_name("cam").dash_fragment_selector(selector);
    let dash = dash.playback_mode(kept::DashPlaybackMode::OnDemand).send().await.expect("a session");
    assert!(dash.dash_streaming_session_url().expect("a URL").contains("/dash/v1/"));
    get_media(clients, &numbers).await;
}

/// GetMedia has no end: it is read until all that is stored came.
async fn get_media(clients: &Clients, numbers: &[String]) {
    let earliest =
        StartSelector::builder().start_selector_type(StartSelectorType::Earliest).build().expect("a selector");
    let get = clients.media.get_media().stream_name("cam").start_selector(earliest.clone());
    let mut answer = get.send().await.expect("media");
    assert_eq!(answer.content_type(), Some("video/webm"));
    let mut got = Vec::new();
    let last = numbers.last().expect("fragments");
    // The last fragment's token is the last thing it says of it.
    while !got.ends_with(last.as_bytes()) || !contains(&got, b"AWS_KINESISVIDEO_CONTINUATION_TOKEN") {
        let more = tokio::time::timeout(Duration::from_secs(60), answer.payload.try_next()).await;
        got.extend(more.expect("in time").expect("bytes").expect("it goes on"));
    }
    assert!(numbers.iter().all(|number| contains(&got, number.as_bytes())));
    let none = clients.media.get_media().stream_name("nowhere").start_selector(earliest).send().await;
    assert!(none.expect_err("no such stream").into_service_error().is_resource_not_found_exception());
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
