//! The contract with the host: hints can be late, repeated, reordered or ignored.

use super::*;
use mqtt_sansio::broker::{Action, Admission, ConnectionId, Question};
use mqtt_sansio::codec::{QoS, Role, Rules, Subscribe, Subscription};
use proptest::prelude::*;
use testkit::wire::{ack, packets};

/// How a host treats the hints of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Obeys each hint after each call.
    Prompt,
    /// Obeys each hint twice.
    Twice,
    /// Fetches all hints, and obeys the last one first.
    Backwards,
    /// Transmits before it fetches hints, as the example program does.
    Eager,
    /// Fetches no hint before the clients are to read.
    Late,
    /// Fetches no hint at all, and asks.
    Asks,
}

const CLIENTS: usize = 3;
const TOPICS: [&str; 3] = ["a/1", "a/2", "b"];
const FILTERS: [&str; 4] = ["a/+", "#", "b", "a/1"];

/// One step of a client.
#[derive(Clone, Debug)]
enum Step {
    Connect { clean_start: bool, will: bool },
    Cut,
    Subscribe { filter: usize, qos: u8 },
    Unsubscribe { filter: usize },
    Publish { topic: usize, qos: u8, retain: bool },
    Ping,
    Leave,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        2 => any::<(bool, bool)>()
            .prop_map(|(clean_start, will)| Step::Connect { clean_start, will }),
        1 => Just(Step::Cut),
        4 => (0..FILTERS.len(), 0..3_u8).prop_map(|(filter, qos)| Step::Subscribe { filter, qos }),
        1 => (0..FILTERS.len()).prop_map(|filter| Step::Unsubscribe { filter }),
        6 => (0..TOPICS.len(), 0..3_u8, any::<bool>())
            .prop_map(|(topic, qos, retain)| Step::Publish { topic, qos, retain }),
        2 => Just(Step::Ping),
        1 => Just(Step::Leave),
    ];
    (0..CLIENTS, step)
}

struct Host {
    manner: Manner,
    broker: Broker,
    connections: Vec<ConnectionId>,
    /// All bytes that each connection has received, and how many of them its client has read.
    received: Vec<(Vec<u8>, usize)>,
    /// The connection of each client.
    current: [Option<usize>; CLIENTS],
    next_identifier: u16,
    now: u64,
}

impl Host {
    fn new(manner: Manner) -> Self {
        let server = ServerConfig::new().maximum_in_flight(2);
        Self {
            manner,
            broker: Broker::new(BrokerConfig::new(server), 1, Instant::default()),
            connections: Vec::new(),
            received: Vec::new(),
            current: [None; CLIENTS],
            next_identifier: 1,
            now: 0,
        }
    }

    fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    fn open(&mut self) -> usize {
        self.connections.push(self.broker.open(self.instant()));
        self.received.push((Vec::new(), 0));
        self.connections.len() - 1
    }

    fn obey(&mut self, action: &Action) {
        match action {
            Action::Ask(question, Question::Connect(_)) => {
                // The answer to a question that is asked twice has no effect.
                let _ = self.broker.accept(*question, Admission::default(), self.instant());
            }
            Action::Ready(id) => self.transmit(*id),
            Action::Closed(id, _) => {
                self.transmit(*id);
                let _ = self.broker.connection_lost(*id, self.instant());
            }
            other => panic!("{other:?}"),
        }
    }

    fn transmit(&mut self, id: ConnectionId) {
        let index = self.connections.iter().position(|other| *other == id).unwrap();
        loop {
            let mut out = Vec::new();
            let more = self.broker.transmit(id, self.instant(), &mut out);
            self.received[index].0.extend(out);
            assert_eq!(more, self.broker.wants_transmit(id));
            if !more {
                return;
            }
        }
    }

    /// Fetches hints, or asks, until there is nothing to do.
    fn obey_all(&mut self) {
        if self.manner == Manner::Asks {
            for id in self.connections.clone() {
                if self.broker.wants_transmit(id) {
                    self.transmit(id);
                }
                if self.broker.is_closed(id) {
                    let _ = self.broker.connection_lost(id, self.instant());
                }
            }
            return;
        }
        loop {
            let mut actions: Vec<_> = core::iter::from_fn(|| self.broker.poll_action()).collect();
            if actions.is_empty() {
                return;
            }
            if self.manner == Manner::Backwards {
                actions.reverse();
            }
            for action in actions {
                self.obey(&action);
                if self.manner == Manner::Twice {
                    self.obey(&action);
                }
            }
        }
    }

    /// Feeds one connection, and answers its CONNECT, which is an input like others.
    fn feed(&mut self, connection: usize, bytes: &[u8]) {
        let id = self.connections[connection];
        let mut input = bytes;
        while self.broker.handle_input(id, &mut input, self.instant()) {}
        let question = self.broker.question(id).map(|(question, _)| question);
        if self.manner == Manner::Eager {
            self.transmit(id);
        } else if let Some(question) = question {
            self.broker.accept(question, Admission::default(), self.instant()).unwrap();
        }
        if self.manner != Manner::Late {
            self.obey_all();
        }
    }

    fn play(&mut self, client: usize, step: &Step) {
        let name = ["one", "two", "three"][client];
        let number = self.next_identifier;
        // Whether a client reads the last bytes before it leaves is no matter of the hints.
        if let (Step::Connect { .. } | Step::Cut, Some(connection)) = (step, self.current[client]) {
            self.transmit(self.connections[connection]);
        }
        if let Step::Connect { clean_start, will } = *step {
            let will = will.then(|| Will { retain: true, ..Will::new(TOPICS[client], b"will") });
            let connect = Connect { clean_start, will, ..kept(V5_0, name) };
            let connection = self.open();
            self.current[client] = Some(connection);
            return self.feed(connection, &encoded(connect, V5_0));
        }
        let Some(connection) = self.current[client] else { return };
        let bytes = match *step {
            Step::Cut => {
                self.current[client] = None;
                let _ = self.broker.connection_lost(self.connections[connection], self.instant());
                if self.manner != Manner::Late {
                    self.obey_all();
                }
                return;
            }
            Step::Subscribe { filter, qos: level } => {
                let subscriptions = [Subscription::new(FILTERS[filter], qos(level))];
                encoded(Subscribe::new(identifier(number), &subscriptions), V5_0)
            }
            Step::Unsubscribe { filter } => {
                let filters = [FILTERS[filter].into()];
                encoded(mqtt_sansio::codec::Unsubscribe::new(identifier(number), &filters), V5_0)
            }
            Step::Publish { topic, qos: level, retain } => {
                let packet_identifier = (level > 0).then(|| identifier(number));
                let payload = number.to_string();
                let publish = message(TOPICS[topic], &payload, level);
                encoded(Publish { retain, packet_identifier, ..publish }, V5_0)
            }
            Step::Ping => encoded(Packet::Pingreq, V5_0),
            Step::Leave | Step::Connect { .. } => encoded(Disconnect::default(), V5_0),
        };
        self.next_identifier += 1;
        self.feed(connection, &bytes);
    }

    /// Lets all clients read what there is and acknowledge it, until nothing is left.
    fn settle(&mut self) {
        loop {
            self.obey_all();
            let mut answers = Vec::new();
            for (connection, (bytes, read)) in self.received.iter_mut().enumerate() {
                for packet in packets(&bytes[*read..], V5_0) {
                    let answer: fn(_) -> Packet<'static> = match packet {
                        Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => {
                            Packet::Puback
                        }
                        Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                            Packet::Pubrec
                        }
                        Packet::Pubrec(_) => Packet::Pubrel,
                        Packet::Pubrel(_) => Packet::Pubcomp,
                        _ => continue,
                    };
                    answers.push((connection, ack(answer, number_of(&packet), V5_0)));
                }
                *read = bytes.len();
            }
            if answers.is_empty() {
                return;
            }
            for (connection, bytes) in answers {
                self.feed(connection, &bytes);
            }
        }
    }
}

proptest! {
    /// The chunks are short, so that no limit intervenes.
    #[test]
    fn hosts_of_all_manners_transmit_the_same_bytes(
        chunks in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..8),
    ) {
        let all = [
            Manner::Prompt,
            Manner::Twice,
            Manner::Backwards,
            Manner::Eager,
            Manner::Late,
            Manner::Asks,
        ];
        let outputs = all.map(|manner| {
            let mut host = Host::new(manner);
            for chunk in &chunks {
                chunk.iter().for_each(|(client, step)| host.play(*client, step));
                host.settle();
                host.now += 1_000;
            }
            host.received
        });
        prop_assert!(outputs[0].iter().all(|(bytes, _)| !bytes.is_empty()), "no CONNACK");
        for (manner, output) in all.iter().zip(&outputs) {
            prop_assert_eq!(output, &outputs[0], "{:?}", manner);
        }
    }
}

/// A host can store the result of `transmit` over what the actions before it said.
#[test]
fn transmit_emits_no_action_for_its_own_connection() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.connect(clean(V5_0, "receiver")));
        net.retain(sender, "t", "old", 0);
        net.ask_for(receiver, None, &[("t", at(0))]);
        net.take(receiver);
        // As many as are queued at once, and more.
        for count in [1, 40] {
            for i in 0..count {
                net.retain(sender, &format!("many/{i}"), "old", 0);
            }
            net.stall(receiver, true);
            net.ask_for(receiver, None, &[("many/#", at(0))]);
            assert_eq!(net.transmit_once(receiver), (false, 0));
            net.retain(sender, "t", "new", 0);
            net.stall(receiver, false);
            assert_eq!(net.take(receiver).last().unwrap(), "t=new");
        }
    });
}

#[test]
fn input_is_not_wanted_while_much_output_waits() {
    let now = Instant::default();
    let mut broker = Broker::new(BrokerConfig::default(), 1, now);
    let id = broker.open(now);
    assert!(broker.wants_input(id));
    let _ = broker.handle_input(id, &mut &encoded(clean(V5_0, "client"), V5_0)[..], now);
    let (question, _) = broker.question(id).unwrap();
    assert!(!broker.wants_input(id));
    broker.accept(question, Admission::default(), now).unwrap();
    assert!(broker.question(id).is_none() && broker.wants_input(id));
    let publish =
        encoded(Publish { packet_identifier: Some(identifier(1)), ..message("t", "x", 1) }, V5_0);
    let bytes = publish.repeat(20_000);
    let (mut input, mut answers) = (&bytes[..], 0);
    while !input.is_empty() {
        while broker.handle_input(id, &mut input, now) {}
        let left = input.len();
        assert_eq!(broker.wants_input(id), left == 0);
        assert!(!broker.handle_input(id, &mut input, now));
        assert_eq!(input.len(), left);
        let mut out = Vec::new();
        assert!(!broker.transmit(id, now, &mut out));
        assert!(out.len() < 64 * 1024 + 10 && broker.wants_input(id));
        let rules = Rules::new(V5_0).sent_by(Role::Server);
        let mut out = bytes::BytesMut::from(&out[..]);
        while let Some(packet) =
            mqtt_sansio::codec::OwnedPacket::split_from(&mut out, u32::MAX, rules).unwrap()
        {
            answers += usize::from(matches!(packet.decode(), Packet::Puback(_)));
        }
    }
    assert_eq!(answers, 20_000);
    assert!(!broker.is_closed(id));
    let _ = broker.connection_lost(id, now);
    assert!(broker.is_closed(id) && !broker.wants_input(id) && !broker.wants_transmit(id));
}

/// [5.0 MQTT-3.3.2-6]
#[test]
fn clock_that_steps_back_stands_still() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 1);
        net.cut(receiver);
        net.now -= 500_000;
        let properties =
            PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
        net.put(sender, Publish { properties, ..message("t", "x", 1) });
        net.now += 504_000;
        let receiver = net.resume(kept(V5_0, "receiver"));
        assert_eq!(net.messages(receiver), ["t=x q1 expiry=6"]);
    });
}

#[test]
fn debug_shows_no_password() {
    let now = Instant::default();
    let mut broker = Broker::new(BrokerConfig::default(), 1, now);
    let id = broker.open(now);
    let password = &b"secret"[..];
    let connect =
        Connect { user_name: Some("user".into()), password: Some(password), ..clean(V5_0, "c") };
    let _ = broker.handle_input(id, &mut &encoded(connect, V5_0)[..], now);
    let action = broker.poll_action();
    let shown = format!("{broker:?} {:?} {action:?}", broker.question(id));
    let numbers = format!("{password:?}");
    assert!(
        !shown.contains("secret") && !shown.contains(numbers.trim_matches(['[', ']'])),
        "{shown}"
    );
    assert!(shown.contains("Connect {"), "{shown}");
}
