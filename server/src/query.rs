//! The query of a URI.

use hyper::Uri;
use percent_encoding::percent_decode_str;

use crate::kv::{Expiry, Fault, Result};

/// Names and values, form-decoded.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Refuses what is not UTF-8: replacing it would ask for another prefix than the client meant.
    pub(crate) fn parse(uri: &Uri) -> Result<Query> {
        let query = uri.query().unwrap_or_default();
        if percent_decode_str(query).decode_utf8().is_err() {
            return Err(Fault::new(400, 10042, "Could not URL-decode the query"));
        }
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Ok(Query(pairs.collect()))
    }

    /// The first value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// What it says about time.
    pub(crate) fn expiry(&self) -> Expiry {
        let owned = |name| self.get(name).map(str::to_owned);
        Expiry {
            expiration: owned("expiration"),
            expiration_ttl: owned("expiration_ttl"),
        }
    }
}
