//! A JSON object that keeps its order and may not name a key twice.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// Keys and values as written. `serde_json`'s own maps let the last of two equal keys win, so
/// that a file could show one tensor to a reader and another to a checker.
#[derive(Debug)]
pub(super) struct UniqueMap<V>(pub(super) Vec<(String, V)>);

// Not derived: that would ask for `V: Default`.
impl<V> Default for UniqueMap<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueMapVisitor(PhantomData))
    }
}

struct UniqueMapVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueMapVisitor<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut keys = UniqueKeys::default();
        let mut entries = Vec::new();
        while let Some(key) = keys.next(&mut map)? {
            entries.push((key, map.next_value()?));
        }
        Ok(UniqueMap(entries))
    }
}

/// Reads the keys of an object, each at most once.
#[derive(Default)]
pub(super) struct UniqueKeys(HashSet<String>);

impl UniqueKeys {
    pub(super) fn next<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
    ) -> Result<Option<String>, A::Error> {
        let Some(key) = map.next_key::<String>()? else { return Ok(None) };
        if self.0.insert(key.clone()) {
            return Ok(Some(key));
        }
        Err(A::Error::custom(format_args!("`{key}` appears twice")))
    }
}
