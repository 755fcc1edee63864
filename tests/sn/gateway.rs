//! The gateway in front of the broker core: each test plays clients of MQTT-SN, datagram by
//! datagram.

use core::time::Duration;
use mqtt_sansio::codec::{PacketIdentifier, QoS};
use mqtt_sansio::sn::v1_2::{
    Advertise, Connect, Encapsulated, GwInfo, Message, Puback, Publish, PublishQos, Regack,
    Register, ReturnCode, SearchGw, Suback, Subscribe, SubscriptionTopic, TopicId, TopicRef,
    Unsubscribe, WillTopic, decode,
};
use mqtt_sansio::sn::{Destination, Gateway, GatewayConfig, Retry, State};
use testkit::sn::{Peer, Site};

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u16) -> TopicId {
    TopicId::new(number).unwrap()
}

fn message_id(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).unwrap()
}

fn config() -> GatewayConfig {
    GatewayConfig::new(9).predefined_topic(id(700), "pre/7").unwrap()
}

fn connect(client_id: &str) -> Message<'_> {
    Message::Connect(Connect {
        will: false,
        clean_session: true,
        duration: 60,
        client_id: client_id.into(),
    })
}

fn resume(client_id: &str) -> Message<'_> {
    Message::Connect(Connect {
        will: false,
        clean_session: false,
        duration: 60,
        client_id: client_id.into(),
    })
}

fn subscribe(filter: &str, qos: QoS) -> Message<'_> {
    let topic = SubscriptionTopic::Filter(filter.into());
    Message::Subscribe(Subscribe { dup: false, qos, message_id: 77, topic })
}

fn publish(topic: TopicRef, qos: QoS, number: u16, data: &[u8]) -> Message<'_> {
    let message_id = PacketIdentifier::new(number);
    Message::Publish(Publish { qos: qos.into(), message_id, ..Publish::new(topic, data) })
}

fn register(name: &str) -> Message<'_> {
    Message::Register(Register { topic_id: None, message_id: 5, topic_name: name.into() })
}

fn puback(topic_id: u16, number: u16, return_code: ReturnCode) -> Message<'static> {
    Message::Puback(Puback { topic_id: TopicId::new(topic_id), message_id: number, return_code })
}

/// Checks which messages a client has received.
#[track_caller]
fn expect(site: &mut Site, peer: Peer, messages: &[Message<'_>]) {
    let datagrams = site.take(peer);
    let found: Vec<_> = datagrams.iter().map(|datagram| decode(datagram).unwrap()).collect();
    assert_eq!(found, messages);
}

const CONNACK: Message<'_> = Message::Connack(ReturnCode::Accepted);

#[track_caller]
fn connected(config: GatewayConfig, clients: &[(Peer, &str)]) -> Site {
    let mut site = Site::new(config);
    for (peer, client_id) in clients {
        site.send(*peer, &connect(client_id));
        expect(&mut site, *peer, &[CONNACK]);
        assert_eq!(site.gateway.state(client_id), Some(State::Active));
    }
    site
}

/// Subscribes, and returns the topic id.
#[track_caller]
fn subscribed(site: &mut Site, peer: Peer, filter: &str, qos: QoS) -> Option<TopicId> {
    site.send(peer, &subscribe(filter, qos));
    match decode(&site.take(peer)[0]) {
        Ok(Message::Suback(Suback { qos: granted, topic_id, message_id: 77, return_code })) => {
            assert_eq!((granted, return_code), (qos, ReturnCode::Accepted));
            topic_id
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn registered(site: &mut Site, peer: Peer, name: &str) -> TopicId {
    site.send(peer, &register(name));
    match decode(&site.take(peer)[0]) {
        Ok(Message::Regack(Regack { topic_id: Some(id), message_id: 5, return_code })) => {
            assert_eq!(return_code, ReturnCode::Accepted);
            id
        }
        other => panic!("{other:?}"),
    }
}

/// [SN §6.5] [SN §6.6] [SN §6.9]
#[test]
fn message_reaches_subscriber_by_its_own_topic_id() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    registered(&mut site, 2, "another");
    let theirs = subscribed(&mut site, 2, "room/4", QoS::AtLeastOnce).unwrap();
    let own = registered(&mut site, 1, "room/4");
    assert_ne!(own, theirs);
    site.send(1, &publish(TopicRef::Normal(own), QoS::AtMostOnce, 0, b"0"));
    expect(&mut site, 1, &[]);
    expect(&mut site, 2, &[publish(TopicRef::Normal(theirs), QoS::AtMostOnce, 0, b"0")]);
    site.send(1, &publish(TopicRef::Normal(own), QoS::AtLeastOnce, 3, b"1"));
    expect(&mut site, 1, &[puback(own.get(), 3, ReturnCode::Accepted)]);
    expect(&mut site, 2, &[publish(TopicRef::Normal(theirs), QoS::AtLeastOnce, 1, b"1")]);
    // The next one waits for the acknowledgement.
    site.send(1, &publish(TopicRef::Normal(own), QoS::AtLeastOnce, 4, b"2"));
    expect(&mut site, 2, &[]);
    site.send(2, &puback(theirs.get(), 1, ReturnCode::Accepted));
    expect(&mut site, 2, &[publish(TopicRef::Normal(theirs), QoS::AtLeastOnce, 2, b"2")]);
}

/// [SN §6.6] [SN §5.4.14]
#[test]
fn qos_2_message_is_exchanged_in_four_steps_on_both_sides() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    let topic = TopicRef::short("t4").unwrap();
    let short = SubscriptionTopic::Short(*b"t4");
    let request = Subscribe { dup: false, qos: QoS::ExactlyOnce, message_id: 8, topic: short };
    site.send(2, &Message::Subscribe(request));
    let granted = Suback {
        qos: QoS::ExactlyOnce,
        topic_id: None,
        message_id: 8,
        return_code: ReturnCode::Accepted,
    };
    expect(&mut site, 2, &[Message::Suback(granted)]);
    let message = publish(topic, QoS::ExactlyOnce, 3, b"x");
    site.send(1, &message);
    expect(&mut site, 1, &[Message::Pubrec(message_id(3))]);
    // A copy is answered, and not published again.
    site.send(1, &message);
    expect(&mut site, 1, &[Message::Pubrec(message_id(3))]);
    site.send(1, &Message::Pubrel(message_id(3)));
    expect(&mut site, 1, &[Message::Pubcomp(message_id(3))]);
    site.send(1, &message);
    expect(&mut site, 1, &[Message::Pubrec(message_id(3))]);
    expect(&mut site, 2, &[publish(topic, QoS::ExactlyOnce, 1, b"x")]);
    site.send(2, &Message::Pubrec(message_id(1)));
    expect(&mut site, 2, &[Message::Pubrel(message_id(1))]);
    site.send(2, &Message::Pubcomp(message_id(1)));
    site.pass(30 * SECOND);
    expect(&mut site, 2, &[]);
    assert_eq!(site.gateway.stats().published, 1);
}

/// [SN §6.9] [SN §6.10]
#[test]
fn gateway_registers_topic_before_publish_that_wildcard_matches() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    assert_eq!(subscribed(&mut site, 2, "room/+", QoS::AtLeastOnce), None);
    let own = registered(&mut site, 1, "room/4");
    site.send(1, &publish(TopicRef::Normal(own), QoS::AtMostOnce, 0, b"0"));
    let new = Register { topic_id: Some(id(1)), message_id: 1, topic_name: "room/4".into() };
    expect(&mut site, 2, &[Message::Register(new)]);
    let regack = Regack { topic_id: Some(id(1)), message_id: 1, return_code: ReturnCode::Accepted };
    site.send(2, &Message::Regack(regack));
    expect(&mut site, 2, &[publish(TopicRef::Normal(id(1)), QoS::AtMostOnce, 0, b"0")]);
    // The client has forgotten the id.
    site.send(2, &puback(1, 0, ReturnCode::InvalidTopicId));
    site.send(1, &publish(TopicRef::Normal(own), QoS::AtLeastOnce, 2, b"1"));
    expect(&mut site, 2, &[Message::Register(Register { message_id: 2, ..new })]);
    site.send(2, &Message::Regack(Regack { message_id: 2, ..regack }));
    expect(&mut site, 2, &[publish(TopicRef::Normal(id(1)), QoS::AtLeastOnce, 3, b"1")]);
    site.send(2, &puback(1, 3, ReturnCode::InvalidTopicId));
    expect(&mut site, 2, &[Message::Register(Register { message_id: 4, ..new })]);
    site.send(2, &Message::Regack(Regack { message_id: 4, ..regack }));
    let Message::Publish(again) = publish(TopicRef::Normal(id(1)), QoS::AtLeastOnce, 3, b"1")
    else {
        panic!()
    };
    expect(&mut site, 2, &[Message::Publish(Publish { dup: true, ..again })]);
}

/// [SN §6.10]
#[test]
fn rejected_registration_drops_message_and_next_one_is_sent() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    subscribed(&mut site, 2, "#", QoS::AtLeastOnce);
    for name in ["long/name", "t4"] {
        let topic = match TopicRef::short(name) {
            Ok(topic) => topic,
            Err(_) => TopicRef::Normal(registered(&mut site, 1, name)),
        };
        site.send(1, &publish(topic, QoS::AtLeastOnce, 1 + name.len() as u16, b"x"));
    }
    let rejected = ReturnCode::NotSupported;
    let regack = Regack { topic_id: None, message_id: 1, return_code: rejected };
    assert_eq!(site.take(2).len(), 1);
    site.send(2, &Message::Regack(regack));
    let short = TopicRef::short("t4").unwrap();
    expect(&mut site, 2, &[publish(short, QoS::AtLeastOnce, 2, b"x")]);
    assert_eq!(site.gateway.stats().dropped, 1);
}

/// [SN §6.7]
#[test]
fn predefined_topic_needs_no_registration() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    let topic = SubscriptionTopic::Predefined(id(700));
    let request = Subscribe { dup: false, qos: QoS::AtMostOnce, message_id: 1, topic };
    site.send(2, &Message::Subscribe(request));
    assert_eq!(site.take(2).len(), 1);
    site.send(1, &publish(TopicRef::Predefined(id(700)), QoS::AtMostOnce, 0, b"7"));
    expect(&mut site, 2, &[publish(TopicRef::Predefined(id(700)), QoS::AtMostOnce, 0, b"7")]);
    site.send(1, &publish(TopicRef::Predefined(id(701)), QoS::AtMostOnce, 0, b"7"));
    expect(&mut site, 1, &[puback(701, 0, ReturnCode::InvalidTopicId)]);
    site.send(1, &publish(TopicRef::Normal(id(55)), QoS::AtLeastOnce, 9, b"7"));
    expect(&mut site, 1, &[puback(55, 9, ReturnCode::InvalidTopicId)]);
    site.send(2, &Message::Unsubscribe(Unsubscribe { message_id: 3, topic }));
    expect(&mut site, 2, &[Message::Unsuback(3)]);
    site.send(1, &publish(TopicRef::Predefined(id(700)), QoS::AtMostOnce, 0, b"7"));
    expect(&mut site, 2, &[]);
}

/// [SN §6.8] [SN §7.1]
#[test]
fn qos_minus_1_message_is_published_without_connection() {
    let mut site = connected(config(), &[(2, "b")]);
    subscribed(&mut site, 2, "t4", QoS::AtMostOnce);
    let short = TopicRef::short("t4").unwrap();
    let message = Publish { qos: PublishQos::MinusOne, ..Publish::new(short, b"-1") };
    site.send(50, &Message::Publish(message));
    site.send(51, &Message::Publish(message));
    expect(&mut site, 50, &[]);
    assert_eq!(site.take(2).len(), 2);
    assert_eq!(site.broker.stats().connections, 2, "both share one connection");
}

fn will_dialogue(site: &mut Site, peer: Peer, client_id: &str, duration: u16) {
    let clean_session = true;
    let connect = Connect { will: true, clean_session, duration, client_id: client_id.into() };
    site.send(peer, &Message::Connect(connect));
    expect(site, peer, &[Message::WillTopicReq]);
    // The first answer is lost.
    site.pass(10 * SECOND);
    expect(site, peer, &[Message::WillTopicReq]);
    let topic = WillTopic { qos: QoS::AtLeastOnce, retain: false, topic: "will".into() };
    site.send(peer, &Message::WillTopic(Some(topic)));
    expect(site, peer, &[Message::WillMsgReq]);
    site.send(peer, &Message::WillMsg(b"lost"));
    expect(site, peer, &[CONNACK]);
}

/// [SN §6.2] [SN §6.14] [SN §7.2]
#[test]
fn will_is_published_when_client_is_silent_too_long() {
    for (duration, until_lost) in [(10, 15), (60, 90), (100, 110)] {
        let mut site = connected(config(), &[(2, "b")]);
        let topic = subscribed(&mut site, 2, "will", QoS::AtMostOnce).unwrap();
        will_dialogue(&mut site, 1, "a", duration);
        for _ in 0..until_lost - 1 {
            site.pass(SECOND);
            site.send(2, &Message::Pingreq(None));
            expect(&mut site, 2, &[Message::Pingresp]);
        }
        assert_eq!(site.gateway.state("a"), Some(State::Active));
        site.pass(SECOND);
        assert_eq!(site.gateway.state("a"), None, "a clean session is forgotten");
        let will = publish(TopicRef::Normal(topic), QoS::AtMostOnce, 0, b"lost");
        expect(&mut site, 2, &[will]);
        site.send(1, &Message::Pingreq(None));
        expect(&mut site, 1, &[Message::Disconnect(None)]);
    }
}

/// [SN §6.4]
#[test]
fn changed_will_is_published_once_instead_of_old_one() {
    let mut site = connected(config(), &[(2, "b")]);
    let topic = subscribed(&mut site, 2, "will", QoS::AtMostOnce).unwrap();
    will_dialogue(&mut site, 1, "a", 10);
    site.send(1, &Message::WillMsgUpd(b"new"));
    expect(&mut site, 1, &[Message::WillMsgResp(ReturnCode::Accepted)]);
    site.pass(16 * SECOND);
    expect(&mut site, 2, &[publish(TopicRef::Normal(topic), QoS::AtMostOnce, 0, b"new")]);
    // A Will that was deleted is not published.
    will_dialogue(&mut site, 1, "a", 10);
    site.send(1, &Message::WillTopicUpd(None));
    expect(&mut site, 1, &[Message::WillTopicResp(ReturnCode::Accepted)]);
    site.pass(16 * SECOND);
    assert_eq!(site.gateway.state("a"), None);
    expect(&mut site, 2, &[]);
    // Neither is that of a client that has disconnected.
    will_dialogue(&mut site, 1, "a", 10);
    site.send(1, &Message::Disconnect(None));
    expect(&mut site, 1, &[Message::Disconnect(None)]);
    site.pass(30 * SECOND);
    expect(&mut site, 2, &[]);
}

/// [SN §6.14]
#[test]
fn sleeping_client_receives_buffered_messages_when_it_wakes() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    let topic = TopicRef::Normal(subscribed(&mut site, 2, "room/4", QoS::AtLeastOnce).unwrap());
    let own = TopicRef::Normal(registered(&mut site, 1, "room/4"));
    site.send(2, &Message::Disconnect(Some(100)));
    expect(&mut site, 2, &[Message::Disconnect(None)]);
    assert_eq!(site.gateway.state("b"), Some(State::Asleep));
    site.send(1, &publish(own, QoS::AtMostOnce, 0, b"0"));
    site.send(1, &publish(own, QoS::AtLeastOnce, 7, b"1"));
    expect(&mut site, 1, &[puback(own.wire_id().unwrap().get(), 7, ReturnCode::Accepted)]);
    expect(&mut site, 2, &[]);
    site.pass(100 * SECOND);
    site.send(2, &Message::Pingreq(Some("b".into())));
    expect(
        &mut site,
        2,
        &[publish(topic, QoS::AtMostOnce, 0, b"0"), publish(topic, QoS::AtLeastOnce, 1, b"1")],
    );
    assert_eq!(site.gateway.state("b"), Some(State::Awake));
    site.send(2, &puback(topic.wire_id().unwrap().get(), 1, ReturnCode::Accepted));
    expect(&mut site, 2, &[Message::Pingresp]);
    assert_eq!(site.gateway.state("b"), Some(State::Asleep));
    // The sleep begins again.
    site.send(1, &connect("a"));
    site.pass(100 * SECOND);
    site.send(2, &Message::Pingreq(Some("b".into())));
    expect(&mut site, 2, &[Message::Pingresp]);
    site.send(2, &resume("b"));
    expect(&mut site, 2, &[CONNACK]);
    assert_eq!(site.gateway.state("b"), Some(State::Active));
    // Also if it returns with the same CONNECT after a moment.
    site.send(2, &Message::Disconnect(Some(100)));
    site.send(2, &resume("b"));
    expect(&mut site, 2, &[Message::Disconnect(None), CONNACK]);
    assert_eq!(site.gateway.state("b"), Some(State::Active));
    site.send(2, &Message::Disconnect(Some(100)));
    site.pass(111 * SECOND);
    assert_eq!(site.gateway.state("b"), None);
}

/// [SN §6.14]
#[test]
fn client_that_does_not_answer_is_asleep_again_and_gets_message_later() {
    let mut site = connected(config(), &[(2, "b")]);
    subscribed(&mut site, 2, "t4", QoS::AtLeastOnce);
    site.send(2, &Message::Disconnect(Some(1_000)));
    site.send(2, &publish(TopicRef::short("t4").unwrap(), QoS::AtLeastOnce, 7, b"x"));
    site.take(2);
    let of = |dup| {
        let topic = TopicRef::Normal(id(1));
        let message_id = PacketIdentifier::new(1);
        let qos = QoS::AtLeastOnce.into();
        Message::Publish(Publish { dup, qos, message_id, ..Publish::new(topic, b"x") })
    };
    site.send(2, &Message::Pingreq(Some("b".into())));
    expect(&mut site, 2, &[of(false)]);
    site.pass(60 * SECOND);
    expect(&mut site, 2, &[of(true); 4]);
    assert_eq!(site.gateway.state("b"), Some(State::Asleep));
    site.send(2, &Message::Pingreq(Some("b".into())));
    site.pass(Duration::ZERO);
    expect(&mut site, 2, &[of(true)]);
    site.send(2, &puback(1, 1, ReturnCode::Accepted));
    expect(&mut site, 2, &[Message::Pingresp]);
}

/// [SN §6.13]
#[test]
fn active_client_that_does_not_answer_is_lost() {
    let retry = Retry { interval: 2 * SECOND, count: 3 };
    let mut site = connected(config().retry(retry), &[(2, "b")]);
    subscribed(&mut site, 2, "t4", QoS::AtLeastOnce);
    site.send(2, &publish(TopicRef::short("t4").unwrap(), QoS::AtLeastOnce, 7, b"x"));
    site.take(2);
    site.pass(7 * SECOND);
    assert_eq!(site.take(2).len(), 3);
    site.pass(SECOND);
    assert_eq!(site.changes.last(), Some(&("b".to_owned(), State::Lost)));
    assert_eq!(site.gateway.stats().resent, 3);
}

/// [SN §6.3] [SN §6.5]
#[test]
fn session_is_kept_over_connections_without_clean_session() {
    let mut site = connected(config(), &[(1, "a")]);
    site.send(2, &resume("b"));
    expect(&mut site, 2, &[CONNACK]);
    let topic = subscribed(&mut site, 2, "room/4", QoS::ExactlyOnce).unwrap();
    site.send(2, &Message::Disconnect(None));
    expect(&mut site, 2, &[Message::Disconnect(None)]);
    assert_eq!(site.gateway.state("b"), Some(State::Disconnected));
    let own = TopicRef::Normal(registered(&mut site, 1, "room/4"));
    site.send(1, &publish(own, QoS::ExactlyOnce, 7, b"x"));
    site.send(1, &Message::Pubrel(message_id(7)));
    // From another address.
    site.send(3, &resume("b"));
    let register = Register { topic_id: Some(topic), message_id: 1, topic_name: "room/4".into() };
    expect(&mut site, 3, &[CONNACK, Message::Register(register)]);
    site.send(2, &Message::Pingreq(None));
    expect(&mut site, 2, &[Message::Disconnect(None)]);
}

#[test]
fn address_alone_never_takes_over_a_client() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    subscribed(&mut site, 2, "t4", QoS::AtMostOnce);
    site.send(2, &Message::Disconnect(Some(100)));
    site.take(2);
    // Another client appears at the address of the sleeping one.
    site.send(2, &connect("c"));
    expect(&mut site, 2, &[CONNACK]);
    site.send(1, &publish(TopicRef::short("t4").unwrap(), QoS::AtMostOnce, 0, b"x"));
    site.send(2, &Message::Pingreq(Some("b".into())));
    expect(&mut site, 2, &[Message::Disconnect(None)]);
    site.send(3, &Message::Pingreq(Some("b".into())));
    expect(&mut site, 3, &[Message::Disconnect(None)]);
    site.send(2, &Message::Pingreq(None));
    expect(&mut site, 2, &[Message::Pingresp]);
    assert_eq!(site.gateway.state("b"), Some(State::Asleep));
    // The sleeping client comes from its new address.
    site.send(4, &resume("b"));
    let message = publish(TopicRef::short("t4").unwrap(), QoS::AtMostOnce, 0, b"x");
    expect(&mut site, 4, &[CONNACK, message]);
}

/// [SN §6.13]
#[test]
fn copy_of_connect_is_answered_and_changes_nothing() {
    let mut site = connected(config(), &[(2, "b")]);
    subscribed(&mut site, 2, "t4", QoS::AtMostOnce);
    site.send(2, &connect("b"));
    expect(&mut site, 2, &[CONNACK]);
    let short = TopicRef::short("t4").unwrap();
    site.send(2, &publish(short, QoS::AtMostOnce, 0, b"x"));
    assert_eq!(site.take(2).len(), 1, "the subscription is there");
    // Later it is a client that has begun again.
    site.pass(6 * SECOND);
    site.send(2, &connect("b"));
    expect(&mut site, 2, &[CONNACK]);
    site.send(2, &publish(short, QoS::AtMostOnce, 0, b"x"));
    expect(&mut site, 2, &[]);
}

/// [SN §6.1]
#[test]
fn gateway_advertises_and_answers_searches() {
    let mut site = Site::new(config().advertise(Some(900 * SECOND)));
    site.pass(901 * SECOND);
    let everywhere = Destination::Broadcast { radius: 0, asked_by: None };
    let advertise = Message::Advertise(Advertise { gateway_id: 9, duration: 900 });
    let found: Vec<_> = site.sent.iter().map(|(to, bytes)| (*to, decode(bytes).unwrap())).collect();
    assert_eq!(found, [(everywhere, advertise); 2]);
    site.sent.clear();
    for _ in 0..100 {
        site.send(4, &Message::SearchGw(SearchGw { radius: 2 }));
    }
    let info = Message::GwInfo(GwInfo { gateway_id: 9, address: b"" });
    let near = Destination::Broadcast { radius: 2, asked_by: Some(4) };
    assert_eq!(site.sent.len(), 1, "one answer in a second");
    assert_eq!((site.sent[0].0, decode(&site.sent[0].1)), (near, Ok(info)));
    site.gateway.set_available(false);
    site.pass(2 * SECOND);
    site.sent.clear();
    site.send(4, &Message::SearchGw(SearchGw { radius: 2 }));
    assert_eq!(site.sent, []);
}

/// [SN §5.5]
#[test]
fn clients_behind_a_forwarder_are_told_apart_by_their_nodes() {
    let mut site = Site::new(config());
    let mut connect_from = |node: u8| {
        let connect = [4, 0xFE, 0, node, 7, 0x04, 4, 1, 0, 60, b'a' + node];
        site.send_bytes(1, &connect);
        site.take(1)
    };
    for node in [0, 1] {
        let [datagram] = &connect_from(node)[..] else { panic!() };
        let encapsulated = Encapsulated::decode(datagram).unwrap();
        assert_eq!((encapsulated.node_id, encapsulated.radius), (&[node][..], 0));
        assert_eq!(decode(encapsulated.message), Ok(CONNACK));
    }
    site.send_bytes(1, &[4, 0xFE, 0, 9, 2, 0x16]);
    assert_eq!(site.take(1), [[4, 0xFE, 0, 9, 2, 0x18]]);
}

/// [SN §6.2]
#[test]
fn connect_is_rejected_when_server_is_away_or_feature_unknown() {
    let mut site = Site::new(config());
    site.is_reachable = false;
    site.send(1, &connect("a"));
    expect(&mut site, 1, &[Message::Connack(ReturnCode::Congestion)]);
    site.is_reachable = true;
    site.send_bytes(1, b"\x07\x04\x04\x02\0\x0Aa");
    expect(&mut site, 1, &[Message::Connack(ReturnCode::NotSupported)]);
    site.send(1, &connect("a"));
    expect(&mut site, 1, &[CONNACK]);
    site.cut();
    expect(&mut site, 1, &[Message::Disconnect(None)]);
    assert_eq!(site.gateway.state("a"), None);
}

#[test]
fn limits_of_clients_hold() {
    let config = config().maximum_clients(3).maximum_connecting(2).maximum_topics(2);
    let mut site = Site::new(config);
    let congestion = Message::Connack(ReturnCode::Congestion);
    let with_will = |client_id| Connect { will: true, clean_session: true, duration: 9, client_id };
    for (peer, name) in [(1, "a"), (2, "b")] {
        site.send(peer, &Message::Connect(with_will(name.into())));
        expect(&mut site, peer, &[Message::WillTopicReq]);
    }
    site.send(3, &connect("c"));
    expect(&mut site, 3, &[congestion]);
    // They do not answer, and are forgotten.
    site.pass(60 * SECOND);
    for (peer, name) in [(3, "c"), (4, "d"), (5, "e")] {
        site.send(peer, &resume(name));
        expect(&mut site, peer, &[CONNACK]);
    }
    site.send(6, &connect("f"));
    expect(&mut site, 6, &[congestion]);
    // One that has disconnected makes room.
    site.send(3, &Message::Disconnect(None));
    site.send(6, &connect("f"));
    expect(&mut site, 6, &[CONNACK]);
    assert_eq!(site.gateway.state("c"), None);
    registered(&mut site, 6, "one");
    registered(&mut site, 6, "two");
    site.send(6, &register("three"));
    let return_code = ReturnCode::Congestion;
    expect(&mut site, 6, &[Message::Regack(Regack { topic_id: None, message_id: 5, return_code })]);
    assert_eq!(site.gateway.stats().rejected, 2);
}

/// [3.1.1 MQTT-3.1.2-6]
#[test]
fn clean_session_of_active_client_is_not_resumed() {
    let mut site = connected(config(), &[(1, "a"), (2, "b")]);
    subscribed(&mut site, 2, "t4", QoS::AtLeastOnce);
    // It has restarted, at another address.
    site.send(3, &resume("b"));
    expect(&mut site, 3, &[CONNACK]);
    site.send(1, &publish(TopicRef::short("t4").unwrap(), QoS::AtMostOnce, 0, b"x"));
    expect(&mut site, 3, &[]);
}

/// Peers of the same hundred are one source.
#[test]
fn limits_of_a_source_hold_for_all_its_peers() {
    let rate = core::num::NonZeroU32::new(5);
    let config = config().maximum_connecting_per_source(2).maximum_per_source(3);
    let mut site = Site::new(config.maximum_connect_rate_per_source(rate));
    site.gateway = site.gateway.with_source(|peer| peer / 100 * 100);
    let congestion = Message::Connack(ReturnCode::Congestion);
    let with_will = |client_id: &'static str| {
        let client_id = client_id.into();
        Message::Connect(Connect { will: true, clean_session: true, duration: 60, client_id })
    };
    // Two wait for the Will.
    for (peer, client_id) in [(1, "a"), (2, "b")] {
        site.send(peer, &with_will(client_id));
        expect(&mut site, peer, &[Message::WillTopicReq]);
    }
    site.send(3, &connect("c"));
    expect(&mut site, 3, &[congestion]);
    site.send(101, &connect("other"));
    expect(&mut site, 101, &[CONNACK]);
    site.send(1, &Message::WillTopic(None));
    expect(&mut site, 1, &[CONNACK]);
    site.send(3, &connect("c"));
    expect(&mut site, 3, &[CONNACK]);
    site.send(2, &Message::WillTopic(None));
    expect(&mut site, 2, &[CONNACK]);
    // The fourth client is one too many, until another one is gone.
    site.send(4, &connect("d"));
    expect(&mut site, 4, &[congestion]);
    site.send(3, &Message::Disconnect(None));
    expect(&mut site, 3, &[Message::Disconnect(None)]);
    site.send(4, &connect("d"));
    expect(&mut site, 4, &[CONNACK]);
    // A client that comes from another source leaves the first one.
    site.send(102, &connect("d"));
    expect(&mut site, 102, &[CONNACK]);
    site.send(5, &connect("e"));
    expect(&mut site, 5, &[CONNACK]);
    // The sixth attempt in a second is too fast.
    site.send(5, &Message::Disconnect(None));
    site.take(5);
    site.send(5, &connect("e"));
    expect(&mut site, 5, &[congestion]);
    site.pass(SECOND);
    site.send(5, &connect("e"));
    expect(&mut site, 5, &[CONNACK]);
}

#[test]
fn gateway_replaces_its_own_oldest_topic_id() {
    let mut site = connected(config().maximum_topics(2), &[(1, "a"), (2, "b")]);
    subscribed(&mut site, 2, "#", QoS::AtMostOnce);
    for (number, name) in (1..).zip(["one", "two", "three", "one"]) {
        let clean_session = true;
        let publisher =
            Connect { will: false, clean_session, duration: number, client_id: "a".into() };
        site.send(1, &Message::Connect(publisher));
        site.take(1);
        let topic = TopicRef::Normal(registered(&mut site, 1, name));
        site.send(1, &publish(topic, QoS::AtMostOnce, 0, b"x"));
        let topic_id = Some(id(number));
        let register = Register { topic_id, message_id: number, topic_name: name.into() };
        expect(&mut site, 2, &[Message::Register(register)]);
        let return_code = ReturnCode::Accepted;
        site.send(2, &Message::Regack(Regack { topic_id, message_id: number, return_code }));
        expect(&mut site, 2, &[publish(TopicRef::Normal(id(number)), QoS::AtMostOnce, 0, b"x")]);
    }
}

/// [SN §6.10]
#[test]
fn buffer_of_sleeping_client_is_bounded_and_loses_no_qos_1_message() {
    let mut site = connected(config().maximum_buffered(10, 1_000), &[(1, "a"), (2, "b")]);
    subscribed(&mut site, 2, "t4", QoS::AtLeastOnce);
    site.send(2, &Message::Disconnect(Some(6_000)));
    site.take(2);
    let topic = TopicRef::short("t4").unwrap();
    for number in 1..=30 {
        site.send(1, &publish(topic, QoS::AtMostOnce, 0, b"zero"));
        site.send(1, &publish(topic, QoS::AtLeastOnce, number, &number.to_be_bytes()));
        assert_eq!(site.take(1).len(), 1);
    }
    let too_long = [0; 1_400];
    site.send(1, &publish(topic, QoS::AtLeastOnce, 99, &too_long));
    assert!(site.gateway.stats().dropped > 0);
    let mut received = Vec::new();
    site.send(2, &Message::Pingreq(None));
    for _ in 0..100 {
        for datagram in site.take(2) {
            match decode(&datagram).unwrap() {
                Message::Publish(Publish { message_id: Some(message_id), data, .. }) => {
                    received.push(u16::from_be_bytes(data.try_into().unwrap()));
                    site.send(2, &puback(1, message_id.get(), ReturnCode::Accepted));
                }
                Message::Pingresp => site.send(2, &Message::Pingreq(None)),
                _ => {}
            }
        }
    }
    assert_eq!(received, Vec::from_iter(1..=30));
}

#[test]
fn debug_form_of_gateway_and_its_configuration_hides_the_password() {
    let config = config().credentials("user", Some(b"secret"));
    let shown = format!("{config:?} {:?}", Gateway::<Peer>::new(config.clone()));
    assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
}
