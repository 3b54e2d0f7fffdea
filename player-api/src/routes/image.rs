//! `/v1/streams/STREAM/image.jpg` and `.png`: the picture shown at an instant.

use std::sync::Arc;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::cache;
use crate::image::{self, ImageError, ImageFormat, ImagePool, Job, Picture};
use crate::params::{self, Params};
use crate::{Api, ApiError, ApiResult};

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
        decode(&api, &images, &picture, format, width).await?
    };
    let mut response = cache::answer(&headers, &tag, cache::REVALIDATE, format.content_type(), body);
    if let Ok(time) = HeaderValue::from_str(&picture.time.to_string()) {
        response.headers_mut().insert("vidar-picture-time", time);
    }
    Ok(response)
}

async fn decode(
    api: &Api,
    images: &ImagePool,
    picture: &Picture,
    format: ImageFormat,
    width: Option<u32>,
) -> ApiResult<Vec<u8>> {
    let job = async |picture: &Picture| -> ApiResult<Job> {
        let (track, wanted_ticks) = (picture.track().clone(), picture.wanted_ticks());
        Ok(Job { track, pictures: picture.read(api).await?, wanted_ticks, format, width })
    };
    let place = images.place().await?;
    let error = match images.decode(job(picture).await?, place).await {
        Err(error @ ImageError::Undecodable(_)) => error,
        done => return Ok(done?),
    };
    match picture.clone().earlier(api).await? {
        Some(earlier) => {
            let place = images.place().await?;
            Ok(images.decode(job(&earlier).await?, place).await?)
        }
        None => Err(error.into()),
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let status = match &error {
            ImageError::NoDecoder(_) => StatusCode::NOT_IMPLEMENTED,
            ImageError::Undecodable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ImageError::Timeout(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}
