//! The values of packets as parts of a log line: quoted, shortened, or hidden.

use super::reason::ReasonCode;
use super::sequence::{Element, Sequence};
use super::text::Text;
use super::types::QoS;
use core::fmt::{Debug, Display, Formatter, Result};

/// The longest text in bytes that is shown whole.
const LONGEST: usize = 64;

/// The longest list that is shown whole.
const MOST: usize = 8;

/// A value as a part of a log line.
pub(super) trait Show {
    fn show(&self, f: &mut Formatter<'_>) -> Result;
}

/// The place of a secret, which must not reach a log as text or as numbers.
pub(super) struct Hidden;

impl Debug for Hidden {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("***")
    }
}

/// A value that is shown.
pub(super) struct Shown<T>(pub(super) T);

impl<T: Show> Display for Shown<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.show(f)
    }
}

macro_rules! show_as_displayed {
    ($($type:ty)*) => {
        $(impl Show for $type {
            fn show(&self, f: &mut Formatter<'_>) -> Result {
                Display::fmt(self, f)
            }
        })*
    };
}

show_as_displayed! { bool u16 u32 QoS }

impl Show for ReasonCode {
    fn show(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{self:#04x}")
    }
}

/// Quoted and escaped. A long text is cut, and its length follows.
impl Show for Text<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> Result {
        let bytes = self.as_bytes();
        if bytes.len() <= LONGEST {
            return write!(f, "{self:?}");
        }
        // The cut can fall into a character.
        let start = bytes.get(..LONGEST).unwrap_or_default();
        let text = start.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        write!(f, "{text:?}... ({} bytes)", bytes.len())
    }
}

/// The size, and the text if it is short and printable.
impl Show for &[u8] {
    fn show(&self, f: &mut Formatter<'_>) -> Result {
        let size = self.len();
        write!(f, "{size} byte{}", if size == 1 { "" } else { "s" })?;
        if !(1..=LONGEST).contains(&size) {
            return Ok(());
        }
        match core::str::from_utf8(self) {
            Ok(text) if !text.contains(char::is_control) => write!(f, " {text:?}"),
            _ => Ok(()),
        }
    }
}

/// In brackets. Only the first values of a long list are shown, and the number of the others
/// follows.
impl<'a, T: Element<'a> + Show> Show for Sequence<'a, T> {
    fn show(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("[")?;
        let mut values = self.iter();
        for (position, value) in values.by_ref().take(MOST).enumerate() {
            f.write_str(if position > 0 { ", " } else { "" })?;
            value.show(f)?;
        }
        match values.count() {
            0 => f.write_str("]"),
            more => write!(f, ", and {more} more]"),
        }
    }
}
