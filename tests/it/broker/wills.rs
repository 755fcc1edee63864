//! Will Messages.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    /// DISCONNECT with this reason code, which is not sent before 5.0.
    Disconnect(u8),
    /// DISCONNECT with a reason code that the standard does not define.
    UndefinedDisconnect,
    ConnectionLost,
    KeepAlive,
    Violation,
    SecondConnect,
    /// The host ends the connection.
    Host,
    /// Another connection with the same client identifier, and whether it starts a new session.
    TakeOver(bool),
}

pub(crate) const ENDINGS: [Ending; 12] = [
    Ending::Disconnect(0x00),
    Ending::Disconnect(0x04),
    Ending::Disconnect(0x80),
    Ending::Disconnect(0x99),
    Ending::UndefinedDisconnect,
    Ending::ConnectionLost,
    Ending::KeepAlive,
    Ending::Violation,
    Ending::SecondConnect,
    Ending::Host,
    Ending::TakeOver(false),
    Ending::TakeOver(true),
];

pub(crate) fn end(net: &mut Net, c: C, connect: Connect<'_>, ending: Ending) {
    match ending {
        Ending::Disconnect(code) => {
            let code = if connect.version == V5_0 { code } else { 0 };
            net.send(c, Disconnect::new(ReasonCode::new(code)).into());
        }
        Ending::UndefinedDisconnect => net.raw(c, &[0xE0, 1, 3]),
        Ending::ConnectionLost => net.cut(c),
        Ending::KeepAlive => net.advance(15_000),
        Ending::Violation => net.raw(c, &[0, 0]),
        Ending::SecondConnect => net.send(c, connect.into()),
        Ending::Host => net.disconnect(c, ReasonCode::ADMINISTRATIVE_ACTION),
        Ending::TakeOver(clean_start) => {
            net.connect(Connect { clean_start, will: None, keep_alive: 0, ..connect });
        }
    }
    assert!(!net.is_open(c), "{ending:?}");
}

/// Returns the times at which a client received such a message, in milliseconds after an instant.
fn arrivals(net: &Net, c: C, start: u64, topic: &str) -> Vec<u64> {
    net.log(c).iter().filter(|(_, shown)| shown.contains(topic)).map(|(at, _)| at - start).collect()
}

/// [5.0 MQTT-3.1.2-8] [5.0 MQTT-3.1.2-10] [5.0 MQTT-3.1.3-9] [5.0 MQTT-3.14.4-3] [5.0 §3.1.3.2.2]
/// [5.0 §3.1.4]
#[test]
fn will_is_published_once_or_never() {
    let backs = [None, Some(false), Some(true)];
    for (delay, expiry) in
        [0, 1, 5].into_iter().flat_map(|delay| [0, 3, 60, u32::MAX].map(|expiry| (delay, expiry)))
    {
        for (ending, back) in
            ENDINGS.into_iter().flat_map(|ending| backs.map(|back| (ending, back)))
        {
            if matches!(ending, Ending::TakeOver(_)) && back.is_some() {
                continue;
            }
            // The will is due after its delay or at the end of the session, whichever is first.
            let due = u64::from(delay.min(expiry)) * 1_000;
            let expected = match (ending, back) {
                (Ending::Disconnect(0), _) => None,
                (Ending::TakeOver(clean_start), _) => (clean_start || due == 0).then_some(0),
                // The client comes back after two seconds, and resumes its session or ends it.
                (_, Some(false)) if due > 2_000 => None,
                (_, Some(true)) if due > 2_000 => Some(2_000),
                _ => Some(due),
            };
            play(|net| {
                let watcher = watcher(net);
                let properties =
                    WillProperties { will_delay_interval: Some(delay), ..Default::default() };
                let will =
                    Will { topic: "will".into(), payload: b"x", properties, ..Default::default() };
                let connect =
                    Connect { keep_alive: 10, will: Some(will), ..expiring("dying", expiry) };
                let dying = net.join(connect);
                net.advance(1_000);
                net.send(dying, Packet::Pingreq);
                end(net, dying, connect, ending);
                let start = net.now;
                net.advance(2_000);
                if let Some(clean_start) = back {
                    net.connect(Connect { clean_start, will: None, keep_alive: 0, ..connect });
                }
                net.advance(10_000_000);
                let expected: Vec<_> = expected.into_iter().collect();
                let found = arrivals(net, watcher, start, "will=x");
                assert_eq!(
                    found, expected,
                    "{ending:?}, delay {delay}, expiry {expiry}, back {back:?}"
                );
            });
        }
    }
}

/// [3.1.1 MQTT-3.1.2-8] [3.1.1 MQTT-3.1.2-10] [3.1.1 MQTT-3.14.4-3]
#[test]
fn will_is_published_at_once_or_never_before_5_0() {
    for (version, ending) in
        [V3_1, V3_1_1].into_iter().flat_map(|version| ENDINGS.map(|ending| (version, ending)))
    {
        let expected: &[u64] = match ending {
            Ending::Disconnect(0) => &[],
            Ending::Disconnect(_) => continue,
            _ => &[0],
        };
        for clean_start in [false, true] {
            play(|net| {
                let watcher = watcher(net);
                let will = Will { topic: "will".into(), payload: b"x", ..Default::default() };
                let connect = Connect {
                    keep_alive: 10,
                    will: Some(will),
                    clean_start,
                    ..Connect::new(version, "dying")
                };
                let dying = net.join(connect);
                end(net, dying, connect, ending);
                let start = net.now;
                net.advance(10_000_000);
                net.connect(Connect { will: None, ..connect });
                net.advance(10_000_000);
                assert_eq!(
                    arrivals(net, watcher, start, "will=x"),
                    expected,
                    "{version} {ending:?}"
                );
            });
        }
    }
}

/// [5.0 MQTT-3.1.2-8] [5.0 §3.14.2.2.2]
#[test]
fn disconnect_with_new_expiry_moves_session_end_and_will() {
    for (expiry, expected) in [(Some(3), 3_000), (Some(0), 0), (Some(100), 5_000), (None, 5_000)] {
        play(|net| {
            let watcher = watcher(net);
            let properties = WillProperties { will_delay_interval: Some(5), ..Default::default() };
            let will =
                Will { topic: "will".into(), payload: b"x", properties, ..Default::default() };
            let dying = net.join(Connect { will: Some(will), ..expiring("dying", 60) });
            let properties =
                DisconnectProperties { session_expiry_interval: expiry, ..Default::default() };
            net.send(
                dying,
                Disconnect { reason_code: ReasonCode::DISCONNECT_WITH_WILL_MESSAGE, properties }
                    .into(),
            );
            let start = net.now;
            net.advance(1_000_000);
            assert_eq!(arrivals(net, watcher, start, "will=x"), [expected]);
        });
    }
}

/// [5.0 MQTT-3.1.3-10] [5.0 §3.1.3.2] [5.0 MQTT-3.1.2-14] [5.0 MQTT-3.1.2-15] [3.1.1 MQTT-3.1.2-16]
/// [3.1.1 MQTT-3.1.2-17]
#[test]
fn will_is_published_with_qos_retain_and_properties() {
    play(|net| {
        let (user, watcher) = (user_properties(), watcher(net));
        let message = all_properties(&user);
        let properties = WillProperties {
            payload_format_indicator: message.payload_format_indicator,
            message_expiry_interval: Some(10),
            content_type: message.content_type,
            response_topic: message.response_topic,
            correlation_data: message.correlation_data,
            will_delay_interval: Some(20),
            user_properties: message.user_properties,
        };
        let told = ALL_PROPERTIES.replace(" type", " expiry=10 type");
        for (retain, number) in
            [false, true].into_iter().flat_map(|retain| [0, 1, 2].map(|number| (retain, number)))
        {
            let will =
                Will { qos: qos(number), retain, topic: "will".into(), payload: b"x", properties };
            let dying = net.join(Connect { will: Some(will), ..expiring("dying", 60) });
            net.cut(dying);
            net.advance(20_000);
            let qos = ["", " q1", " q2"][usize::from(number)];
            assert_eq!(net.messages(watcher), [format!("will=x{qos}{told}")]);
            let late = helper(net, "late");
            net.subscribe(late, "will", 2);
            let expected: &[String] = if retain { &[format!("will=x{qos} R{told}")] } else { &[] };
            assert_eq!(net.messages(late), expected);
            net.advance(100_000);
            net.subscribe(late, "will", 2);
            assert_eq!(net.messages(late), NONE, "it has expired");
        }
    });
}

/// [5.0 MQTT-3.1.2-14] [5.0 MQTT-3.1.2-15] [3.1.1 MQTT-3.1.2-16] [3.1.1 MQTT-3.1.2-17]
#[test]
fn will_is_retained_when_its_retain_flag_is_set() {
    each(|net, version| {
        for (retain, expected) in [(false, &[][..]), (true, &["will=x q1 R"])] {
            let will = Will {
                qos: qos(1),
                retain,
                topic: "will".into(),
                payload: b"x",
                ..Default::default()
            };
            let dying = net.join(Connect { will: Some(will), ..clean(version, "dying") });
            net.cut(dying);
            let late = net.join(clean(version, "late"));
            net.subscribe(late, "will", 2);
            assert_eq!(net.messages(late), expected);
            net.leave(late);
        }
    });
}

/// [5.0 MQTT-3.3.1-6] [3.1.1 MQTT-3.3.1-10] [3.1.1 MQTT-3.1.2-17]
#[test]
fn empty_retained_will_removes_the_retained_message() {
    each(|net, version| {
        let watcher = watcher(net);
        net.retain(watcher, "will", "x", 0);
        let will = Will { retain: true, topic: "will".into(), ..Default::default() };
        let dying = net.join(Connect { will: Some(will), ..clean(version, "dying") });
        net.cut(dying);
        assert_eq!(net.messages(watcher), ["will=x", "will="]);
        assert!(net.broker.retained().is_empty());
    });
}

/// [5.0 MQTT-3.1.2-10] [3.1.1 MQTT-3.1.2-10] [3.1.1 MQTT-3.1.2-12]
#[test]
fn will_of_last_connection_is_published() {
    each(|net, version| {
        let watcher = watcher(net);
        for (payload, expected) in
            [(Some("1"), &["will=1"][..]), (Some("2"), &["will=2"]), (None, &[])]
        {
            let will = payload.map(|payload| Will {
                topic: "will".into(),
                payload: payload.as_bytes(),
                ..Default::default()
            });
            let dying = net.connect(Connect { will, ..kept(version, "dying") });
            net.cut(dying);
            assert_eq!(net.messages(watcher), expected);
        }
    });
}

/// [5.0 MQTT-4.5.0-1] [3.1.1 MQTT-4.5.0-1]
#[test]
fn will_waits_in_the_sessions_of_its_subscribers() {
    each(|net, version| {
        let will = Will { qos: qos(1), topic: "will".into(), payload: b"x", ..Default::default() };
        let connect = Connect { will: Some(will), ..kept(version, "dying") };
        let dying = net.join(connect);
        net.subscribe(dying, "will", 2);
        net.cut(dying);
        let back = net.resume(connect);
        assert_eq!(net.messages(back), ["will=x q1"]);
        net.leave(back);
    });
}

/// [3.1.1 MQTT-3.1.2-8] [5.0 MQTT-3.1.4-2]
#[test]
fn refused_client_leaves_no_will_and_takes_nothing_over() {
    each(|net, version| {
        let watcher = watcher(net);
        let first = net.join(kept(version, "same"));
        *net.policy = |_| Some(ReasonCode::NOT_AUTHORIZED);
        let will = Will { topic: "will".into(), ..Default::default() };
        let second =
            net.connect(Connect { will: Some(will), clean_start: true, ..kept(version, "same") });
        assert!(net.is_open(first) && !net.is_open(second));
        assert_eq!(net.take(second), ["connack 87", "closed"]);
        net.send(first, Packet::Pingreq);
        assert_eq!((net.take(first), net.messages(watcher)), (vec!["pingresp".to_owned()], vec![]));
        net.cut(first);
        *net.policy = |_| Some(ReasonCode::SUCCESS);
        net.resume(kept(version, "same"));
    });
}
