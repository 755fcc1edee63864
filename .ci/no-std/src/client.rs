//! The client machine behind one function, for a host in another language.

use crate::{BUFFER, Single};
use mqtt_sansio::Instant;
use mqtt_sansio::client::{Action, Client, ClientConfig};
use mqtt_sansio::codec::{Connect, Disconnect, Fixed, Publish, QoS, Subscription, Version};

/// The first half of the buffer is the input, the second half the output.
const HALF: usize = 2048;

static CLIENT: Single<Option<Client>> = Single::new(None);

/// Does an operation: 0 connects with the client identifier in the input, 1 subscribes to the
/// filter in the input with QoS 2, 2 publishes the input to the topic `wasm` with QoS 2, 3 takes a
/// step with what was received, 4 handles what is due, 5 disconnects, 6 returns the next deadline.
///
/// Returns `action << 24 | taken << 12 | written`: the kind of the action (0 none, 1 connected, 2
/// message, 3 published, 4 subscribed, 5 closed, 6 another), the bytes of the input that were
/// consumed, and the bytes of output. The payload of a message is the end of what was consumed.
#[unsafe(no_mangle)]
pub extern "C" fn call(operation: u32, length: usize, now: u32) -> u32 {
    let now = Instant::from_millis(now.into());
    CLIENT.with(|client| {
        let client = client.get_or_insert_with(|| Client::new(ClientConfig::new()));
        BUFFER.with(|buffer| {
            let (input, out) = buffer.split_at_mut(HALF);
            let input = input.get(..length).unwrap_or_default();
            let mut out = Fixed::new(out);
            let mut rest = input;
            let text = core::str::from_utf8(input).unwrap_or_default();
            let action = match operation {
                0 => {
                    let connect = Connect { keep_alive: 30, ..Connect::new(Version::V5_0, text) };
                    let connect = Connect { clean_start: true, ..connect };
                    failed(client.connect(&connect, now, &mut out).is_err())
                }
                1 => {
                    let filters = [Subscription::new(text, QoS::ExactlyOnce)];
                    let none = Default::default();
                    failed(client.subscribe(1, &filters, none, now, &mut out).is_err())
                }
                2 => {
                    let publish = Publish { qos: QoS::ExactlyOnce, ..Publish::new("wasm", input) };
                    failed(client.publish(2, &publish, now, &mut out).is_err())
                }
                3 => kind(client.handle_input(&mut rest, now, &mut out)),
                4 => kind(client.handle_timeout(now, &mut out)),
                5 => failed(client.disconnect(&Disconnect::default(), now, &mut out).is_err()),
                _ => {
                    let deadline = client.poll_timeout().map(Instant::as_millis);
                    return deadline.and_then(|at| u32::try_from(at).ok()).unwrap_or(u32::MAX);
                }
            };
            let taken = (input.len() - rest.len()) as u32;
            action << 24 | taken << 12 | out.written().len() as u32
        })
    })
}

/// Returns the number that reports a command that failed: that of the end of the connection.
fn failed(failed: bool) -> u32 {
    if failed { 5 } else { 0 }
}

fn kind(action: Option<Action<'_>>) -> u32 {
    match action {
        None => 0,
        Some(Action::Connected(_)) => 1,
        Some(Action::Message(_)) => 2,
        Some(Action::Published(_)) => 3,
        Some(Action::Subscribed(..)) => 4,
        Some(Action::Closed(_)) => 5,
        Some(_) => 6,
    }
}
