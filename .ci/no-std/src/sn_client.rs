//! The device's side of MQTT-SN behind one function.

use crate::{BUFFER, Single};
use mqtt_sansio::Instant;
use mqtt_sansio::codec::{Fixed, QoS};
use mqtt_sansio::sn::client::{Action, Client, ClientConfig};
use mqtt_sansio::sn::v1_2::{SubscriptionTopic, TopicRef};

static CLIENT: Single<Option<Client>> = Single::new(None);

/// Does an operation: 0 connects, 1 subscribes to the filter in the input, 2 registers the name in
/// the input, 3 handles a datagram, 4 handles what is due, 5 sleeps, 6 wakes, 7 disconnects, 8
/// publishes the input to the topic `t4` with QoS 2. Returns the kind of the action, and the bytes
/// of output.
#[unsafe(no_mangle)]
pub extern "C" fn call(operation: u32, length: usize, now: u32) -> u32 {
    let now = Instant::from_millis(now.into());
    CLIENT.with(|client| {
        let Ok(config) = ClientConfig::new("device") else { return 0 };
        let client = client.get_or_insert_with(|| Client::new(config));
        BUFFER.with(|buffer| {
            let (input, out) = buffer.split_at_mut(2048);
            let input = input.get(..length).unwrap_or_default();
            let text = core::str::from_utf8(input).unwrap_or_default();
            let mut out = Fixed::new(out);
            let qos = QoS::ExactlyOnce;
            let mut action = None;
            let result = match operation {
                0 => client.connect(false, now, &mut out),
                1 => {
                    let topic = SubscriptionTopic::Filter(text.into());
                    client.subscribe(topic, qos, now, &mut out)
                }
                2 => client.register(text, now, &mut out),
                5 => client.sleep(60, now, &mut out),
                6 => client.wake(now, &mut out),
                7 => client.disconnect(now, &mut out),
                8 => client.publish(TopicRef::Short(*b"t4"), qos, false, input, now, &mut out),
                3 => {
                    action = client.handle_datagram(input, now, &mut out);
                    Ok(())
                }
                _ => {
                    action = client.handle_timeout(now, &mut out);
                    Ok(())
                }
            };
            let kind = match action {
                None => u32::from(result.is_err()),
                Some(Action::Connected) => 2,
                Some(Action::Message(_)) => 3,
                Some(_) => 4,
            };
            kind << 24 | out.written().len() as u32
        })
    })
}
