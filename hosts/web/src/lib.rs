//! The inspector as functions that `index.html` calls: `reserve` room for the input, fill it,
//! `explain` it, and read the output. There is one input and one output, because a page has one
//! thread.

#![expect(unsafe_code, reason = "`no_mangle` is an unsafe attribute")]

use mqtt_sansio::codec::Version;
use mqtt_sansio_inspect::{Style, inspect, inspect_hex};
use serde_json::json;
use std::cell::RefCell;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns room for an input of that length, which the page fills.
#[unsafe(no_mangle)]
pub extern "C" fn reserve(length: usize) -> *mut u8 {
    INPUT.with_borrow_mut(|input| {
        input.clear();
        input.resize(length, 0);
        input.as_mut_ptr()
    })
}

/// Explains the input, which is hex digits, or else a file. The version is 3, 4 or 5, and holds
/// until a CONNECT names another. Returns the length of the output: a JSON object in each line, and
/// an object with `problem` if the input cannot be read.
#[unsafe(no_mangle)]
pub extern "C" fn explain(is_hex: bool, version: u8, port: u16) -> usize {
    let version = match version {
        3 => Version::V3_1,
        4 => Version::V3_1_1,
        _ => Version::V5_0,
    };
    let style = Style { json: true, colour: false, version };
    OUTPUT.with_borrow_mut(|output| {
        output.clear();
        let explained = INPUT.with_borrow(|input| match is_hex {
            true => inspect_hex(&String::from_utf8_lossy(input), style, output),
            false => inspect(input.as_slice(), port, style, output),
        });
        if let Err(error) = explained {
            output.extend(json!({ "problem": format!("{error:#}") }).to_string().into_bytes());
        }
        output.len()
    })
}

/// Returns where the output is.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    OUTPUT.with_borrow(|output| output.as_ptr())
}
