//! Questions to the host, and the grants that spare them.

use super::*;
use core::num::NonZeroU32;
use mqtt_sansio::broker::{Access, CloseCause, Grants, Question, Rates};
use mqtt_sansio::codec::Filter;

const PUBLISH: &[Access] = &[Access::Publish];
const SUBSCRIBE: &[Access] = &[Access::Subscribe];
const RECEIVE: &[Access] = &[Access::Receive];
const ALL: &[Access] = &[Access::Publish, Access::Subscribe, Access::Receive];

fn filter(text: &str) -> Filter {
    Filter::new(text, V5_0).unwrap()
}

/// Connects a client with these grants, and lets later ones do everything.
fn granted(net: &mut Net, connect: Connect<'_>, grants: Grants) -> C {
    *net.admission = Admission { grants, ..Admission::default() };
    let client = net.join(connect);
    *net.admission = Admission::default();
    client
}

/// [5.0 §3.4.2.1] [5.0 §3.9.3] [3.1.1 MQTT-3.3.5-2] [3.1.1 §3.9.3]
#[test]
fn denied_message_and_subscription_are_refused() {
    each(|net, version| {
        let watcher = watcher(net);
        let grants = Grants::none().allow(ALL, &filter("mine/#")).deny(ALL, &filter("mine/not"));
        let client = granted(net, clean(version, "client"), grants);
        let refused = if version == V5_0 { 0x87 } else { 0 };
        for (topic, code) in [("mine/a", 0), ("mine/not", refused), ("other", refused)] {
            for level in 1..=2 {
                assert_eq!(net.put(client, message(topic, "x", level)), code, "{topic}");
            }
            net.put(client, message(topic, "x", 0));
        }
        assert_eq!(net.messages(watcher), ["mine/a=x q1", "mine/a=x q2", "mine/a=x"]);
        assert_eq!(net.broker.stats().dropped.not_authorized, 6);
        let codes = net.subscribe_all(
            client,
            None,
            &[("mine/#", at(1)), ("#", at(1)), ("mine/not", at(1)), ("mine/+", at(0))],
        );
        let refused = [0, 0x80, 0x87][usize::from(version.level() - 3)];
        if version == V3_1 {
            assert_eq!((codes.len(), codes[0], codes[3]), (4, 1, 0));
        } else {
            assert_eq!(codes, [1, refused, refused, 0]);
        }
        // A granted filter can match a topic that the client must not receive.
        net.publish(watcher, "mine/not", "x", 1);
        net.publish(watcher, "mine/yes", "x", 1);
        net.publish(watcher, "other", "x", 1);
        assert_eq!(net.messages(client), ["mine/yes=x q1"]);
        net.messages(watcher);
    });
}

/// [5.0 MQTT-4.6.0-5]
#[test]
fn retained_message_that_must_not_be_received_is_passed_over() {
    play(|net| {
        let sender = helper(net, "sender");
        for topic in ["a/1", "a/2", "a/3"] {
            net.retain(sender, topic, "old", 0);
        }
        let grants = Grants::all().deny(RECEIVE, &filter("a/2"));
        let client = granted(net, clean(V5_0, "client"), grants);
        net.subscribe(client, "a/#", 0);
        assert_eq!(net.messages(client), ["a/1=old R", "a/3=old R"]);
    });
}

#[test]
fn host_decides_about_what_no_grant_covers() {
    each(|net, version| {
        let watcher = watcher(net);
        let grants = Grants::asked().allow(ALL, &filter("free/#"));
        let client = granted(net, clean(version, "client"), grants);
        net.publish(client, "free/a", "x", 1);
        assert!(net.asked.is_empty() && net.messages(watcher).len() == 1);
        // Nothing further of this client is read meanwhile. Others do not wait.
        let publish = |number| {
            let packet_identifier = Some(identifier(number));
            encoded(Publish { packet_identifier, ..message("a", "x", 1) }, version)
        };
        let bytes = [publish(100), publish(101), encoded(Packet::Pingreq, version)].concat();
        net.raw(client, &bytes);
        net.publish(watcher, "b", "x", 0);
        assert_eq!((net.take(client), net.messages(watcher)), (vec![], vec!["b=x".to_owned()]));
        let (question, content) = net.asked.pop().unwrap();
        assert_eq!(net.broker.question(net.id(client)), Some((question, &content)));
        let Question::Publish(asked) = content else { panic!("{content:?}") };
        assert_eq!((asked.topic_name().to_str(), asked.payload()), ("a", &b"x"[..]));
        net.allow(question);
        assert_eq!(net.take(client), ["puback #100 00"]);
        assert_eq!(net.messages(watcher), ["a=x q1"]);
        let (question, _) = net.asked.pop().unwrap();
        net.refuse(question, ReasonCode::TOPIC_NAME_INVALID);
        let code = if version == V5_0 { "90" } else { "00" };
        assert_eq!(net.take(client), [format!("puback #101 {code}"), "pingresp".to_owned()]);
        assert_eq!(net.messages(watcher), NONE);
        let again = net.broker.allow(question, None, Instant::from_millis(net.now));
        assert_eq!(again, Err(AnswerError::NotOpen));
    });
}

#[test]
fn each_filter_of_a_subscribe_is_a_question() {
    each(|net, version| {
        let sender = helper(net, "sender");
        let grants = Grants::asked().allow(ALL, &filter("free"));
        let client = granted(net, clean(version, "client"), grants);
        let filters = [("a", at(1)), ("free", at(2)), ("b", at(0)), ("c", at(1))];
        let number = net.ask_for(client, None, &filters);
        let mut asked = Vec::new();
        while let Some((question, content)) = net.asked.pop() {
            assert_eq!(net.take(client), NONE);
            let Question::Subscribe(filter, options) = content else { panic!("{content:?}") };
            let text = filter.as_topic_filter().as_text().to_str().to_owned();
            asked.push((text.clone(), options.maximum_qos.as_u8()));
            let wrong =
                net.broker.accept(question, Admission::default(), Instant::from_millis(net.now));
            assert_eq!(wrong, Err(AnswerError::WrongKind));
            match &*text {
                "b" => net.refuse(question, ReasonCode::NOT_AUTHORIZED),
                _ => net.allow(question),
            }
        }
        assert_eq!(asked, [("a", 1), ("b", 0), ("c", 1)].map(|(a, b)| (a.to_owned(), b)));
        let refused = [0, 0x80, 0x87][usize::from(version.level() - 3)];
        assert_eq!(net.suback(client, number), [1, 2, refused, 1]);
        net.publish(sender, "free", "x", 2);
        net.publish(sender, "b", "x", 1);
        assert_eq!(net.messages(client), ["free=x q2"]);
    });
}

#[test]
fn answer_can_spare_later_questions() {
    play(|net| {
        let client = granted(net, clean(V5_0, "client"), Grants::asked());
        for topic in ["a/1", "a/2", "b"] {
            net.send(client, message(topic, "x", 0).into());
            if let Some((question, _)) = net.asked.pop() {
                let all = filter("a/#");
                net.broker.allow(question, Some(&all), Instant::from_millis(net.now)).unwrap();
                assert_ne!(topic, "a/2");
            }
        }
        assert_eq!(net.asked.len(), 0);
    });
}

#[test]
fn question_that_is_not_answered_is_refused_in_time() {
    play_on(ServerConfig::new().answer_timeout(Duration::from_secs(5)), |net| {
        let grants = Grants::asked();
        let connect = Connect { keep_alive: 2, ..clean(V5_0, "client") };
        let client = granted(net, connect, grants);
        let publish = Publish { packet_identifier: Some(identifier(1)), ..message("a", "x", 1) };
        net.send(client, publish.into());
        // The client is not silent: the broker does not read.
        net.advance(4_999);
        assert_eq!(net.take(client), NONE);
        net.advance(1);
        assert_eq!(net.take(client), ["puback #1 87"]);
        net.ask_for(client, None, &[("a", at(0)), ("b", at(0))]);
        net.advance(10_000);
        assert_eq!(net.take(client), ["suback #1 87 87"]);
        net.advance(3_000);
        assert_eq!(net.take(client), ["disconnect 8d", "closed"]);
    });
}

/// [5.0 §3.1.2.5] [3.1.1 §3.1.2.5]
#[test]
fn will_that_is_denied_refuses_the_client() {
    each(|net, version| {
        let watcher = watcher(net);
        let grants = Grants::asked().deny(PUBLISH, &filter("no"));
        for (topic, is_accepted) in [("no", false), ("yes", true), ("$SYS/x", false)] {
            *net.admission = Admission { grants: grants.clone(), ..Admission::default() };
            let will = Some(Will::new(topic, b"will"));
            let client = net.connect(Connect { will, ..clean(version, "client") });
            if is_accepted {
                assert_eq!(net.take(client), ["connack 00"]);
                net.cut(client);
                assert_eq!(net.messages(watcher), ["yes=will"]);
            } else {
                assert_eq!(net.take(client), ["connack 87", "closed"]);
            }
        }
    });
}

#[test]
fn changed_grants_end_what_they_deny() {
    play(|net| {
        let sender = helper(net, "sender");
        let will = Some(Will::new("will", b"x"));
        let client = net.join(Connect { will, ..clean(V5_0, "client") });
        net.subscribe_all(client, None, &[("a", at(0)), ("b", at(0)), ("c", at(0))]);
        let (id, now) = (net.id(client), net.instant());
        let grants = Grants::none()
            .allow(SUBSCRIBE, &filter("a"))
            .allow(SUBSCRIBE, &filter("b"))
            .allow(RECEIVE, &filter("a"));
        net.broker.set_grants(id, grants, now);
        ["a", "b", "c"].iter().for_each(|topic| net.publish(sender, topic, "x", 0));
        assert_eq!(net.messages(client), ["a=x"]);
        assert_eq!(net.put(client, message("a", "x", 1)), 0x87);
        // A subscription that was taken away does not come back, one that was only silent does.
        net.broker.set_grants(id, Grants::all(), now);
        ["a", "b", "c"].iter().for_each(|topic| net.publish(sender, topic, "y", 0));
        assert_eq!(net.messages(client), ["a=y", "b=y"]);
        let watcher = watcher(net);
        net.cut(client);
        assert_eq!(net.messages(watcher), NONE, "the will was denied once");
    });
}

/// [5.0 §4.12] [5.0 §4.12.1] [5.0 MQTT-4.12.0-2] [5.0 MQTT-4.12.0-3]
#[test]
fn client_authenticates_by_steps_and_again() {
    play(|net| {
        let method = Some("SCRAM".into());
        let auth = |reason_code, data: &'static [u8]| Auth {
            reason_code,
            properties: AuthProperties {
                authentication_method: Some("SCRAM".into()),
                authentication_data: Some(data),
                ..AuthProperties::default()
            },
        };
        *net.policy = |_| None;
        let properties = ConnectProperties { authentication_method: method, ..Default::default() };
        let client = net.connect(Connect { properties, ..clean(V5_0, "client") });
        let (question, content) = net.asked.pop().unwrap();
        assert!(matches!(content, Question::Connect(_)));
        let step = auth(ReasonCode::CONTINUE_AUTHENTICATION, b"1");
        let challenge = |net: &mut Net, question, auth: &Auth<'_>| {
            let now = net.instant();
            net.broker.challenge(question, auth, now)
        };
        let other = Auth { properties: AuthProperties::default(), ..step };
        assert_eq!(challenge(net, question, &other), Err(AnswerError::Authentication));
        assert_eq!(challenge(net, question, &step), Ok(()));
        net.send(client, auth(ReasonCode::CONTINUE_AUTHENTICATION, b"2").into());
        assert_eq!(net.take(client), ["auth 18"]);
        let (question, content) = net.asked.pop().unwrap();
        assert!(matches!(content, Question::Authenticate(_)), "{content:?}");
        let properties =
            ConnackProperties { authentication_method: method, ..ConnackProperties::default() };
        *net.admission = Admission { properties, ..Admission::default() };
        net.accept(question);
        assert_eq!(net.take(client), ["connack 00"]);
        for (code, expected) in [
            (ReasonCode::SUCCESS, &["auth 00"][..]),
            (ReasonCode::NOT_AUTHORIZED, &["disconnect 87", "closed"]),
        ] {
            net.send(client, auth(ReasonCode::RE_AUTHENTICATE, b"3").into());
            let (question, _) = net.asked.pop().unwrap();
            if code == ReasonCode::SUCCESS {
                assert_eq!(challenge(net, question, &auth(code, b"4")), Ok(()));
                net.transmit_once(client);
            } else {
                net.refuse(question, code);
            }
            assert_eq!(net.take(client), expected);
        }
    });
}

#[test]
fn client_that_exceeds_its_rate_is_slowed_down() {
    play(|net| {
        let rates = Rates { messages_per_second: NonZeroU32::new(10), ..Rates::default() };
        *net.admission = Admission { rates, ..Admission::default() };
        let client = net.join(Connect { keep_alive: 1, ..clean(V5_0, "client") });
        *net.admission = Admission::default();
        let watcher = watcher(net);
        let bytes = encoded(message("t", "x", 0), V5_0).repeat(40);
        net.raw(client, &bytes);
        assert_eq!(net.messages(watcher).len(), 11);
        assert!(!net.broker.wants_input(net.id(client)));
        for second in 1..=2 {
            net.advance(1_000);
            assert_eq!(net.messages(watcher).len(), 10, "in second {second}");
        }
        net.advance(1_000);
        assert_eq!(net.messages(watcher).len(), 9);
        assert!(net.is_open(client));
    });
}

/// [5.0 §4.7.2] [3.1.1 §4.7.2]
#[test]
fn topics_of_the_broker_are_not_published_by_clients() {
    each(|net, version| {
        let (client, receiver) = (net.join(clean(version, "client")), helper(net, "receiver"));
        net.subscribe_all(receiver, None, &[("$SYS/#", at(2)), ("$other", at(2))]);
        let refused = if version == V5_0 { 0x87 } else { 0 };
        for (topic, code) in [("$SYS/x", refused), ("$SYS", refused), ("$other", 0)] {
            assert_eq!(net.put(client, message(topic, "x", 1)), code);
            net.send(client, Publish { retain: true, ..message(topic, "y", 0) }.into());
        }
        assert_eq!(net.messages(receiver), ["$other=x q1", "$other=y"]);
        assert_eq!(
            (net.broker.retained().len(), net.broker.stats().dropped.reserved_topic),
            (1, 4)
        );
    });
}

#[test]
fn end_of_a_connection_has_a_cause_and_a_name() {
    play(|net| {
        let name = |net: &Net| {
            let closed = net.closed.last().unwrap();
            (closed.client_identifier.as_deref().map(ToOwned::to_owned), closed.cause.clone())
        };
        let ended = |net: &mut Net, cause| {
            assert_eq!(name(net), (Some("client".to_owned()), cause));
            net.join(clean(V5_0, "client"))
        };
        let mut client = net.join(clean(V5_0, "client"));
        net.leave(client);
        let cause =
            CloseCause::Disconnected { reason_code: ReasonCode::SUCCESS, reason_string: None };
        client = ended(net, cause);
        net.cut(client);
        client = ended(net, CloseCause::ConnectionLost);
        net.disconnect(client, ReasonCode::SERVER_BUSY);
        ended(net, CloseCause::Ended(ReasonCode::SERVER_BUSY));
        let next = net.join(clean(V5_0, "client"));
        assert_eq!(name(net), (Some("client".to_owned()), CloseCause::TakenOver));
        net.raw(next, &[0x30, 0]);
        let (who, cause) = name(net);
        assert!(matches!(cause, CloseCause::Violation(_)), "{cause:?}");
        assert_eq!(who.as_deref(), Some("client"));
        *net.policy = |_| Some(ReasonCode::BANNED);
        net.connect(clean(V5_0, "client"));
        assert_eq!(name(net), (None, CloseCause::Refused(ReasonCode::BANNED)));
        net.open(V5_0);
        net.advance(10_000);
        assert_eq!(name(net), (None, CloseCause::ConnectTimeout));
        let shown = net.closed.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(shown[4].starts_with("client \"client\": client broke a rule: "), "{}", shown[4]);
        assert_eq!(shown[1], "client \"client\": transport was closed without DISCONNECT");
    });
}

#[test]
fn refusal_with_any_code_is_an_answer() {
    play(|net| {
        let client = granted(net, clean(V5_0, "client"), Grants::asked());
        for code in [ReasonCode::BANNED, ReasonCode::SUCCESS, ReasonCode::SERVER_BUSY] {
            let publish =
                Publish { packet_identifier: Some(identifier(9)), ..message("a", "x", 1) };
            net.send(client, publish.into());
            let (question, _) = net.asked.pop().unwrap();
            net.refuse(question, code);
            assert_eq!(net.take(client), ["puback #9 87"]);
            let number = net.ask_for(client, None, &[("a", at(1))]);
            let (question, _) = net.asked.pop().unwrap();
            net.refuse(question, code);
            assert_eq!(net.suback(client, number), [0x87]);
        }
    });
}

#[test]
fn answer_does_not_override_newer_grants() {
    play(|net| {
        let watcher = watcher(net);
        let client = granted(net, clean(V5_0, "client"), Grants::asked());
        let number = net.ask_for(client, None, &[("a", at(1))]);
        let (question, _) = net.asked.pop().unwrap();
        let (id, now) = (net.id(client), net.instant());
        net.broker.set_grants(id, Grants::none(), now);
        net.broker.allow(question, Some(&filter("a")), now).unwrap();
        // The host looks after its connections again.
        net.publish(watcher, "other", "x", 0);
        assert_eq!(net.messages(watcher), ["other=x"]);
        assert_eq!(net.suback(client, number), [0x87]);
        assert_eq!(net.put(client, message("a", "x", 1)), 0x87);
        assert_eq!(net.messages(watcher), NONE);
    });
}
