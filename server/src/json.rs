//! JSON as it comes and goes: text, so that numbers and the order of members stay what they were.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Stored metadata as JSON; a program that embeds the engine may have stored other bytes.
pub(crate) fn or_null(metadata: &[u8]) -> String {
    let raw = serde_json::from_slice::<&RawValue>(metadata);
    raw.map_or_else(|_| "null".to_owned(), |raw| raw.get().to_owned())
}

/// Parses an object. Members that `T` does not know cost nothing.
pub(crate) fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    // Serde would take an array as well, for the members in their order.
    let is_object = raw.get().starts_with('{');
    let parsed = is_object.then(|| serde_json::from_str(raw.get()));
    parsed?.ok()
}

/// The items of an array, one more than `MAX` at the most: enough to know that there are too many,
/// whatever the request would make of our memory.
pub(crate) struct Items<T, const MAX: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Items<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ItemsVisitor(PhantomData))
    }
}

struct ItemsVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ItemsVisitor<T, MAX> {
    type Value = Items<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() <= MAX {
            let Some(item) = from.next_element()? else {
                return Ok(Items(items));
            };
            items.push(item);
        }
        while from.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Items(items))
    }
}
