//! Responses of any dialect.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::kv::Fault;

/// What a response carries.
pub(crate) type Outgoing = UnsyncBoxBody<Bytes, std::io::Error>;

/// A whole body.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Outgoing {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A response that is all status.
pub(crate) fn status(status: StatusCode) -> Response<Outgoing> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A response of JSON.
pub(crate) fn json(text: String) -> Response<Outgoing> {
    let mut response = Response::new(whole(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Names the methods that would be taken instead.
pub(crate) fn allow<'a>(
    response: &mut Response<Outgoing>,
    methods: impl IntoIterator<Item = &'a str>,
) {
    let methods: Vec<&str> = methods.into_iter().collect();
    if let Ok(methods) = HeaderValue::try_from(methods.join(", ")) {
        response.headers_mut().insert(ALLOW, methods);
    }
}

/// Makes a response a refusal; one that will not last says when to ask again.
pub(crate) fn refused(mut response: Response<Outgoing>, fault: &Fault) -> Response<Outgoing> {
    let status = StatusCode::from_u16(fault.status);
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if fault.status == 503 {
        let seconds = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}
