//! A Sparkplug Aware MQTT Server. (Sparkplug 3.0 §10.1.3, §10.1.4) The tests of QoS, wills and
//! retained messages show that it is a Sparkplug Conformant one.

use super::*;

fn play_aware(scenario: impl Fn(&mut Net)) {
    play_with(&BrokerConfig::default().sparkplug_aware(true), scenario);
}

/// tck-id-conformance-mqtt-aware-store, -nbirth-mqtt-topic, -nbirth-mqtt-retain,
/// -dbirth-mqtt-topic, -dbirth-mqtt-retain
#[test]
fn births_are_certified() {
    play_aware(|net| {
        let (node, watcher) = (helper(net, "node"), helper(net, "watcher"));
        net.subscribe_all(watcher, None, &[("spBv1.0/#", at(0)), ("$sparkplug/#", at(0))]);
        net.publish(node, "spBv1.0/group/NBIRTH/node", "old", 0);
        net.publish(node, "spBv1.0/group/NBIRTH/node", "new", 0);
        net.publish(node, "spBv1.0/group/DBIRTH/node/device", "device", 1);
        let mut got = net.messages(watcher);
        got.sort();
        assert_eq!(
            got,
            [
                "$sparkplug/certificates/spBv1.0/group/DBIRTH/node/device=device",
                "$sparkplug/certificates/spBv1.0/group/NBIRTH/node=new",
                "$sparkplug/certificates/spBv1.0/group/NBIRTH/node=old",
                "spBv1.0/group/DBIRTH/node/device=device",
                "spBv1.0/group/NBIRTH/node=new",
                "spBv1.0/group/NBIRTH/node=old",
            ]
        );
        let late = helper(net, "late");
        net.subscribe(late, "$sparkplug/certificates/#", 1);
        let mut got = net.messages(late);
        got.sort();
        assert_eq!(
            got,
            [
                "$sparkplug/certificates/spBv1.0/group/DBIRTH/node/device=device q1 R",
                "$sparkplug/certificates/spBv1.0/group/NBIRTH/node=new R",
            ]
        );
    });
}

/// An aware broker is a compliant one as well. (tck-id-conformance-mqtt-aware-basic)
#[test]
fn aware_broker_supports_what_a_compliant_one_does() {
    play_aware(|net| {
        let state = "spBv1.0/STATE/host";
        let will = Will { qos: qos(1), retain: true, ..Will::new(state, b"offline") };
        let host = net.join(Connect { will: Some(will), ..clean(V5_0, "host") });
        net.retain(host, state, "online", 1);
        let node = helper(net, "node");
        net.subscribe(node, state, 1);
        assert_eq!(net.messages(node), ["spBv1.0/STATE/host=online q1 R"]);
        net.subscribe(host, "spBv1.0/#", 1);
        assert_eq!(net.messages(host), ["spBv1.0/STATE/host=online q1 R"]);
        for number in 0..=1 {
            net.publish(node, "spBv1.0/group/NDATA/node", "data", number);
        }
        assert_eq!(
            net.messages(host),
            ["spBv1.0/group/NDATA/node=data", "spBv1.0/group/NDATA/node=data q1"]
        );
        net.cut(host);
        assert_eq!(net.messages(node), ["spBv1.0/STATE/host=offline q1"]);
        let late = helper(net, "late");
        net.subscribe(late, state, 1);
        assert_eq!(net.messages(late), ["spBv1.0/STATE/host=offline q1 R"]);
    });
}

/// The broker does not replace the timestamp. (tck-id-conformance-mqtt-aware-ndeath-timestamp)
#[test]
fn deaths_are_forwarded_unaltered() {
    play_aware(|net| {
        let topic = "spBv1.0/group/NDEATH/node";
        let will = Will { qos: qos(1), ..Will::new(topic, b"\x08\x01 payload") };
        let node = net.join(Connect { will: Some(will), ..clean(V5_0, "node") });
        let watcher = helper(net, "watcher");
        net.subscribe(watcher, "spBv1.0/#", 1);
        net.cut(node);
        assert_eq!(net.messages(watcher), ["spBv1.0/group/NDEATH/node=\u{8}\u{1} payload q1"]);
        assert!(net.broker.retained().is_empty());
    });
}

#[test]
fn other_messages_are_not_certified() {
    let topics = [
        "spBv1.0/group/NDATA/node",
        "spBv1.0/group/NBIRTH",
        "spBv1.0/group/NBIRTH/node/device",
        "spBv1.0/group/DBIRTH/node",
        "other/group/NBIRTH/node",
    ];
    play_aware(|net| {
        let node = helper(net, "node");
        topics.iter().for_each(|topic| net.publish(node, topic, "x", 0));
        let forged = "$sparkplug/certificates/spBv1.0/group/NBIRTH/node";
        assert_eq!(net.put(node, Publish { retain: true, ..message(forged, "x", 1) }), 0x87);
        assert!(net.broker.retained().is_empty());
    });
    play(|net| {
        let node = helper(net, "node");
        net.publish(node, "spBv1.0/group/NBIRTH/node", "x", 0);
        assert!(net.broker.retained().is_empty(), "the broker is not aware by default");
    });
}
