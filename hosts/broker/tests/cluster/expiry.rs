//! The copies in `MQTT_RETAINED` of what has ended: NATS removes them.

use crate::programs::{self, Cluster, has};
use async_nats::HeaderMap;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, message::StreamMessage};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The log and the copies, and a runtime for their futures.
struct Streams {
    context: jetstream::Context,
    runtime: Runtime,
}

impl Streams {
    fn new(cluster: &Cluster) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = runtime
            .block_on(async_nats::connect(cluster.address_of_server(0).to_string()))
            .unwrap();
        let context = {
            let _guard = runtime.enter();
            jetstream::new(client)
        };
        Self { context, runtime }
    }

    /// Returns the last message of a subject, if the stream has one.
    fn last(&self, stream: &str, subject: &str) -> Option<StreamMessage> {
        self.runtime.block_on(async {
            let stream = self.context.get_stream_no_info(stream).await.unwrap();
            match stream.get_last_raw_message_by_subject(subject).await {
                Ok(message) => Some(message),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                Err(error) => panic!("{error}"),
            }
        })
    }

    /// Waits for a message of a subject in the copies.
    fn wait_for(&self, subject: &str, is_it: impl Fn(&StreamMessage) -> bool) -> StreamMessage {
        let start = Instant::now();
        loop {
            if let Some(message) = self.last("MQTT_RETAINED", subject).filter(&is_it) {
                return message;
            }
            let last = self.last("MQTT_RETAINED", subject);
            assert!(start.elapsed() < Duration::from_secs(10), "{subject} has {last:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Appends what the log has already, for a shorter time.
    fn append_for_two_seconds(&self, message: &StreamMessage) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", "2s");
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        self.runtime.block_on(async {
            let sent = self.context.publish_with_headers(subject, headers, payload).await;
            sent.unwrap().await.unwrap();
        });
    }
}

#[test]
fn ends_of_members_and_retained_messages_expire() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let cluster = Cluster::start();
    let ports = cluster.ports();
    // A member that leaves, and a retained message that is removed.
    programs::mosquitto_sub(ports[0], &["-V", "5", "-t", "$share/g/expiry", "-q", "1", "-W", "1"]);
    programs::mosquitto_pub(ports[1], &["-t", "expiry", "-m", "text", "-q", "1", "-r"]);
    programs::mosquitto_pub(ports[1], &["-t", "expiry", "-n", "-q", "1", "-r"]);
    let streams = Streams::new(&cluster);
    for subject in ["mqtt.retained.%%%.>", "mqtt.retained.expiry"] {
        let ttl = |message: &StreamMessage| {
            message.headers.get("Nats-TTL").map(|ttl| ttl.as_str().to_owned())
        };
        // The end is kept as long as the log keeps messages.
        let end = streams.wait_for(subject, |message| ttl(message).is_some());
        assert_eq!(ttl(&end).as_deref(), Some("168h"));
        streams.append_for_two_seconds(&end);
        let is_short = |message: &StreamMessage| ttl(message).as_deref() == Some("2s");
        let _ = streams.wait_for(subject, is_short);
        let start = Instant::now();
        while streams.last("MQTT_RETAINED", subject).is_some()
            || streams.last("MQTT_LOG", subject).is_some_and(|last| is_short(&last))
        {
            assert!(start.elapsed() < Duration::from_secs(20), "{subject} does not expire");
            sleep(Duration::from_millis(50));
        }
    }
}
