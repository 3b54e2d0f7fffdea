//! `/v1/streams/STREAM/image.jpg` and `.png`: the picture shown at an instant.

use std::sync::Arc;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue};

use crate::cache;
use crate::image::{self, ImageFormat, ImagePool, Style};
use crate::params::{self, Params};
use crate::{Api, ApiResult};

const WIDTH_MAX: u64 = 4096;
/// Of the settings of the encoders.
const FORMAT_VERSION: u32 = 1;

pub(super) async fn jpeg(
    state: State<Arc<Api>>,
    images: Extension<Arc<ImagePool>>,
    path: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    picture(state, images, path, query, headers, ImageFormat::Jpeg).await
}

pub(super) async fn png(
    state: State<Arc<Api>>,
    images: Extension<Arc<ImagePool>>,
    path: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    picture(state, images, path, query, headers, ImageFormat::Png).await
}

async fn picture(
    State(api): State<Arc<Api>>,
    Extension(images): Extension<Arc<ImagePool>>,
    Path(stream): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    format: ImageFormat,
) -> ApiResult<Response> {
    let stream = params::stream(&api, &stream)?.stream;
    let params = Params::parse(query.as_deref(), &["at", "width"])?;
    let at = params.time("at")?.unwrap_or_else(|| api.clock.now());
    let width = params.number("width", 1..=WIDTH_MAX)?.map(|width| width as u32);
    let picture = image::find(&api, stream, at).await?;
    let tag = format!("\"{}-{}-{FORMAT_VERSION}\"", picture.identity(), width.unwrap_or(0));
    let body = if cache::not_modified(&headers, &tag) {
        Vec::new()
    } else {
        let style = Style { format, width, height: None, quality: None };
        image::render(&api, &images, &picture, style).await?
    };
    let mut response = cache::answer(&headers, &tag, cache::REVALIDATE, format.content_type(), body);
    if let Ok(time) = HeaderValue::from_str(&picture.time.to_string()) {
        response.headers_mut().insert("vidar-picture-time", time);
    }
    Ok(response)
}
