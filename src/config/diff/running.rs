//! What a running pgsplit shows of its configuration (`GET /api/v1/config`), read again.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::config::show::{Entry, Shown, Value};

struct ShownVisitor;

impl<'de> Deserialize<'de> for Shown {
    /// Times, sizes and secrets are texts then, as they were shown.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShownVisitor)
    }
}

impl<'de> Visitor<'de> for ShownVisitor {
    type Value = Shown;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration as JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Shown, E> {
        Ok(Shown::One(Value::Text(text.to_owned())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Shown, E> {
        Ok(Shown::One(Value::Number(number)))
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<Shown, E> {
        Ok(Shown::One(Value::YesNo(yes)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Shown, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = all.next_element()? {
            items.push(item);
        }
        Ok(Shown::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Shown, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = all.next_entry()? {
            entries.push(Entry { key, value, is_default: false });
        }
        Ok(Shown::Mapping(entries))
    }
}
