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
