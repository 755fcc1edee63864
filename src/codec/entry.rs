//! The feature `serde`: the values of packets, as the entries of a map.

use super::sequence::{Element, Sequence};
use super::text::Text;
use super::types::QoS;
use alloc::string::String;
use core::fmt::Write as _;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// The place of a secret.
pub(super) const HIDDEN: &str = "***";

/// The value of a property, as [`Binary`] if it is bytes.
pub(super) trait Property {
    fn add_to<M: SerializeMap>(&self, map: &mut M, name: &'static str) -> Result<(), M::Error>;
}

/// Implements [`Property`] for types whose own form is for people.
macro_rules! plain_properties {
    ($($type:ty)*) => {
        $(impl crate::codec::entry::Property for $type {
            fn add_to<M: serde::ser::SerializeMap>(
                &self,
                map: &mut M,
                name: &'static str,
            ) -> Result<(), M::Error> {
                map.serialize_entry(name, self)
            }
        })*
    };
}

pub(super) use plain_properties;

plain_properties! { bool u16 u32 QoS Text<'_> }

impl Property for &[u8] {
    fn add_to<M: SerializeMap>(&self, map: &mut M, name: &'static str) -> Result<(), M::Error> {
        map.serialize_entry(name, &Binary(self))
    }
}

/// Bytes for people.
pub(super) struct Binary<'a>(pub(super) &'a [u8]);

impl Serialize for Binary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match core::str::from_utf8(self.0) {
            Ok(text) if !text.contains(char::is_control) => serializer.serialize_str(text),
            _ => {
                let mut hex = String::new();
                self.0.iter().try_for_each(|byte| write!(hex, "{byte:02x}")).unwrap_or_default();
                serializer.collect_map([("hex", hex)])
            }
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.to_str())
    }
}

impl<'a, T: Element<'a> + Serialize> Serialize for Sequence<'a, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}
