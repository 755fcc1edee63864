//! rumqttc: the `MqttState` of its event loop with its codec on both sides, because `MqttState`
//! consumes and returns packets. It reads the clock in each call. The loop itself, its channel and
//! its handshake are left out.

use crate::cases::{PAYLOAD, TOPIC};
use crate::machine::{Host, Machine};
use bytes::{Bytes, BytesMut};
use mqtt_sansio::codec::QoS;

/// The initial capacity of tokio-util's `Framed`.
const ROOM: usize = 8 * 1024;

macro_rules! client {
    (
        $name:ident, $root:path, $packets:path, $maximum:expr, $more:pat, $publish:expr,
        $level:path
    ) => {
        pub mod $name {
            use super::*;
            use ::rumqttc::Outgoing;
            use $level as Level;
            use $packets::{Packet, Publish};
            use $root::{Event, MqttState, Request};

            pub struct Client {
                state: MqttState,
                received: BytesMut,
                out: BytesMut,
            }

            impl Client {
                pub fn connected(in_flight: u16) -> Self {
                    let [received, out] = [(); 2].map(|()| BytesMut::with_capacity(ROOM));
                    Self { state: MqttState::new(in_flight, false), received, out }
                }
            }

            impl Machine for Client {
                type Outgoing = Publish;

                fn outgoing(qos: QoS) -> Publish {
                    let level = [Level::AtMostOnce, Level::AtLeastOnce, Level::ExactlyOnce]
                        [usize::from(qos.as_u8())];
                    $publish(level, Bytes::copy_from_slice(&PAYLOAD[..64]))
                }

                fn publish(&mut self, message: Publish) -> u64 {
                    let packet = self
                        .state
                        .handle_outgoing_packet(Request::Publish(message))
                        .expect("it is allowed");
                    packet
                        .expect("nothing has its identifier")
                        .write(&mut self.out, $maximum)
                        .expect("a packet");
                    match self.state.events.pop_front() {
                        Some(Event::Outgoing(Outgoing::Publish(identifier))) => identifier.into(),
                        other => panic!("{other:?}"),
                    }
                }

                fn receive(&mut self, bytes: &[u8], host: &mut impl Host) {
                    self.received.extend_from_slice(bytes);
                    loop {
                        let packet = match Packet::read(&mut self.received, $maximum) {
                            Ok(packet) => packet,
                            Err($more) => break,
                            Err(error) => panic!("{error:?}"),
                        };
                        if let Some(answer) =
                            self.state.handle_incoming_packet(packet).expect("it is allowed")
                        {
                            answer.write(&mut self.out, $maximum).expect("a packet");
                        }
                    }
                    while let Some(event) = self.state.events.pop_front() {
                        match event {
                            Event::Incoming(Packet::Publish(publish)) => {
                                host.message(publish.topic.as_ref(), &publish.payload)
                            }
                            Event::Incoming(Packet::PubAck(ack)) => host.completed(ack.pkid.into()),
                            Event::Incoming(Packet::PubComp(ack)) => {
                                host.completed(ack.pkid.into())
                            }
                            Event::Incoming(_) | Event::Outgoing(_) => {}
                        }
                    }
                }

                fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R {
                    let result = write(&self.out);
                    self.out.clear();
                    result
                }
            }
        }
    };
}

client!(
    v4,
    rumqttc,
    rumqttc::mqttbytes::v4,
    usize::MAX,
    rumqttc::mqttbytes::Error::InsufficientBytes(_),
    |level, payload| Publish::from_bytes(TOPIC, level, payload),
    rumqttc::mqttbytes::QoS
);
client!(
    v5,
    rumqttc::v5,
    rumqttc::v5::mqttbytes::v5,
    None,
    rumqttc::v5::mqttbytes::Error::InsufficientBytes(_),
    |level, payload: Bytes| Publish::new(TOPIC, level, payload, None),
    rumqttc::v5::mqttbytes::QoS
);
