//! A shared subscription with members at several nodes.

use crate::client::{Peer, Role};
use crate::programs::{self, Cluster, has};
use crate::rounds;
use mqtt_sansio::codec::QoS;
use std::collections::BTreeMap;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Publishes with QoS 1 and 2 for a while, and does something meanwhile. Returns how often each
/// message has come to the members, when all have come.
fn play(
    cluster: &mut Cluster,
    members: &[Peer; 3],
    round: usize,
    meanwhile: impl FnOnce(&mut Cluster),
) -> Vec<(String, [usize; 3])> {
    let nodes = cluster.nodes();
    let publishers = [(QoS::AtLeastOnce, "q1"), (QoS::ExactlyOnce, "q2")].map(|(qos, id)| {
        let topic = format!("jobs/{id}-{round}");
        Peer::start(&format!("{id}-{round}"), nodes, 2, Role::Publisher(topic, qos))
    });
    sleep(Duration::from_secs(1));
    meanwhile(cluster);
    sleep(Duration::from_secs(1));
    let published = publishers
        .map(|publisher| publisher.finish_publishing(Duration::from_secs(60), &|| cluster.logs()));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let inboxes = members.each_ref().map(Peer::inbox);
        let mut counts: BTreeMap<&String, [usize; 3]> =
            published.iter().flatten().map(|one| (one, [0; 3])).collect();
        for (index, inbox) in inboxes.iter().enumerate() {
            for one in inbox {
                counts.entry(one).and_modify(|counts| counts[index] += 1);
            }
        }
        let missing = counts.iter().find(|(_, counts)| counts.iter().all(|count| *count == 0));
        let Some((missing, _)) = missing else {
            return counts.into_iter().map(|(one, counts)| (one.clone(), counts)).collect();
        };
        if Instant::now() > deadline {
            cluster.keep_logs();
            panic!("{round}: {missing} has not arrived\n{}", cluster.logs());
        }
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn members_of_one_group_are_at_several_nodes() {
    if !has("nats-server") {
        return;
    }
    let mut cluster = Cluster::start();
    let nodes = cluster.nodes();
    let members = [0, 1, 2].map(|at| {
        let role = Role::Subscriber("$share/workers/jobs/#".into(), QoS::ExactlyOnce);
        Peer::start(&format!("worker{at}"), nodes, at, role)
    });
    members.iter().for_each(Peer::wait_for_subscription);
    // Without faults each message comes once, and the members share them.
    let all = play(&mut cluster, &members, 0, |_| sleep(Duration::from_secs(1)));
    for (one, counts) in &all {
        assert_eq!(counts.iter().sum::<usize>(), 1, "{one} {counts:?}");
    }
    for index in 0..3 {
        let count = all.iter().filter(|(_, counts)| counts[index] > 0).count();
        assert!(count * 5 > all.len(), "member {index} has {count} of {}", all.len());
    }
    for round in 1..=rounds(2) {
        let victim = round % 3;
        let all = play(&mut cluster, &members, round, |cluster| {
            cluster.kill_broker(victim);
            sleep(Duration::from_secs(2));
            cluster.start_broker(victim);
        });
        for (one, counts) in all {
            let sum: usize = counts.iter().sum();
            assert!(sum == 1 || one.starts_with("q1"), "{round}: {one} {counts:?}");
        }
        println!("{round}: ok");
    }
}

#[test]
fn members_share_messages_of_all_qos_between_nodes() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let cluster = Cluster::start();
    let ports = cluster.ports();
    let members = [0, 1].map(|at| {
        let arguments = ["-t", "$share/g/all/#", "-q", "2", "-W", "5", "-V", "5"];
        spawn(move || programs::mosquitto_sub(ports[at], &arguments))
    });
    sleep(Duration::from_secs(1));
    for index in 0..24 {
        let (text, qos) = (index.to_string(), (index % 3).to_string());
        programs::mosquitto_pub(ports[index / 3 % 3], &["-t", "all/x", "-m", &text, "-q", &qos]);
    }
    let inboxes = members.map(|member| member.join().unwrap());
    let mut all: Vec<usize> =
        inboxes.iter().flat_map(|inbox| inbox.lines().map(|one| one.parse().unwrap())).collect();
    all.sort_unstable();
    assert_eq!(all, (0..24).collect::<Vec<_>>(), "{inboxes:?}");
    assert!(inboxes.iter().all(|inbox| inbox.lines().count() > 4), "{inboxes:?}");
}
