//! A broker of your own, from `server` and `router`: an access list and shared subscriptions.
//!
//! Each connection is a `Server`. A `SubscriptionIndex` finds who receives a message: a client, or
//! a group of `ShareGroups`, of which one member receives it.
//!
//! Not shown are retained messages, wills, sessions of absent clients, and the take-over of a
//! client identifier. `broker::Broker` has all of that, and `hosts/broker` is a program around it.
//!
//! ```sh
//! cargo build -p mqtt-sansio-examples --example own_broker
//! target/debug/examples/own_broker 127.0.0.1:1883 &
//! sleep 1
//! mosquitto_sub -V 5 -u ann -P a -t '$share/workers/jobs/#' &
//! sleep 1
//! mosquitto_pub -V 5 -u bob -P b -t jobs/1 -m clean
//! ```

use mqtt_sansio::codec::{ConnackProperties, Connect, Expiry, Filter, Message, QoS, ReasonCode};
use mqtt_sansio::codec::{Subscription, Version};
use mqtt_sansio::router::{GroupId, ShareGroups, SubscriptionIndex};
use mqtt_sansio::server::{Action, Server, ServerConfig};
use mqtt_sansio::session::Outgoing;
use mqtt_sansio::{Clock, Instant};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    serve(&TcpListener::bind(address)?)
}

const USERS: [(&str, &[u8]); 2] = [("ann", b"a"), ("bob", b"b")];

/// Whether a user can use a topic: those below `user/NAME/` are its own, those below `jobs/` are
/// shared by all.
///
/// A filter that begins with these levels matches no topic outside them.
fn is_allowed(user: &str, topic_or_filter: &str) -> bool {
    let own = topic_or_filter.strip_prefix("user/").and_then(|rest| rest.strip_prefix(user));
    topic_or_filter.starts_with("jobs/") || own.is_some_and(|rest| rest.starts_with('/'))
}

/// Looks at each socket once a millisecond. A real host waits for events of the system instead, and
/// for the first `poll_timeout`.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (clock, mut broker) = (Clock::new(), Broker::default());
    loop {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            broker.open(socket, clock.now());
        }
        let ids: Vec<u64> = broker.connections.keys().copied().collect();
        ids.into_iter().for_each(|id| broker.step(id, clock.now()));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Default)]
struct Broker {
    connections: BTreeMap<u64, Connection>,
    opened: u64,
    /// The targets of each filter, with the QoS that a client was granted.
    index: SubscriptionIndex<Target, QoS>,
    groups: ShareGroups<u64, QoS>,
}

struct Connection {
    server: Server,
    socket: TcpStream,
    user: String,
    received: Vec<u8>,
}

/// The receivers of the messages of a filter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Client(u64),
    Group(GroupId),
}

impl Broker {
    fn open(&mut self, socket: TcpStream, now: Instant) {
        // Only a manual acknowledgement can refuse a message.
        let config = ServerConfig::new().manual_acknowledgement(true).retain_available(false);
        let server = Server::new(config.maximum_session_expiry(Expiry::AT_DISCONNECT), now);
        let (user, received) = Default::default();
        self.opened += 1;
        self.connections.insert(self.opened, Connection { server, socket, user, received });
    }

    /// Handles what a client has sent and what is due.
    fn step(&mut self, id: u64, now: Instant) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        let (mut out, mut messages) = (Vec::new(), Vec::new());
        let is_open = connection.read();
        let received = std::mem::take(&mut connection.received);
        let mut input = received.as_slice();
        let ended = loop {
            let Connection { server, user, .. } = &mut connection;
            let action = server.handle_input(&mut input, now, &mut out);
            // An answer fails only if the connection has ended, which the next action reports.
            match action.or_else(|| server.handle_timeout(now, &mut out)) {
                Some(Action::Connect(connect)) => connection.answer(id, &connect, now, &mut out),
                Some(Action::Message(message)) => {
                    let mut code = ReasonCode::NOT_AUTHORIZED;
                    if is_allowed(user, message.topic_name.to_str()) {
                        messages.extend(Message::new(&message.to_publish()));
                        code = ReasonCode::SUCCESS;
                    }
                    if let Some(token) = message.token {
                        let _ = server.acknowledge(token, code, now, &mut out);
                    }
                }
                Some(Action::Subscribe(token, subscribe)) => {
                    let version = server.version();
                    let add = |one| self.subscribe(id, user, &one, version);
                    let codes: Vec<_> = subscribe.subscriptions.iter().map(add).collect();
                    let _ = server.suback(token, &codes, Default::default(), now, &mut out);
                }
                Some(Action::Unsubscribe(token, unsubscribe)) => {
                    let version = server.version();
                    let filters = unsubscribe.topic_filters.iter();
                    let filters = filters.flat_map(|filter| Filter::new(filter, version));
                    let codes: Vec<_> =
                        filters.map(|filter| self.unsubscribe(id, &filter)).collect();
                    let _ = server.unsuback(token, &codes, Default::default(), now, &mut out);
                }
                Some(Action::Closed { .. }) => break true,
                Some(_) => {}
                None => break !is_open,
            }
        };
        connection.received = input.to_vec();
        if connection.socket.write_all(&out).is_ok() && !ended {
            self.connections.insert(id, connection);
        } else {
            self.index.remove_subscriber(&Target::Client(id));
            let shared: Vec<_> = self.groups.iter().map(|(filter, _)| filter.clone()).collect();
            for filter in &shared {
                self.unsubscribe(id, filter);
            }
        }
        messages.iter().for_each(|message| self.route(message, now));
    }

    fn subscribe(
        &mut self,
        id: u64,
        user: &str,
        subscription: &Subscription<'_>,
        version: Version,
    ) -> ReasonCode {
        let Ok(filter) = Filter::new(subscription.topic_filter, version) else {
            return ReasonCode::TOPIC_FILTER_INVALID;
        };
        // The rest after `$share/NAME/` is checked, so that a group cannot bypass the list.
        if !is_allowed(user, filter.as_topic_filter().filter().to_str()) {
            return ReasonCode::NOT_AUTHORIZED;
        }
        let qos = subscription.options.maximum_qos;
        let target = match filter.as_topic_filter().share_name() {
            Some(_) => Target::Group(self.groups.insert(&filter, id, qos).group),
            None => Target::Client(id),
        };
        self.index.insert(&filter, target, qos);
        ReasonCode::from(qos.as_u8())
    }

    fn unsubscribe(&mut self, id: u64, filter: &Filter) -> ReasonCode {
        let removed = match filter.as_topic_filter().share_name() {
            None => self.index.remove(filter, &Target::Client(id)).is_some(),
            Some(_) => {
                let changed = self.groups.remove(filter, &id);
                // The group ends with its last member.
                let ended = changed.as_ref().filter(|changed| changed.members == 0);
                ended.map(|changed| self.index.remove(filter, &Target::Group(changed.group)));
                changed.is_some()
            }
        };
        if removed { ReasonCode::SUCCESS } else { ReasonCode::NO_SUBSCRIPTION_EXISTED }
    }

    /// Sends a message to each client that has a matching filter, and to one member of each group.
    fn route(&mut self, message: &Message, now: Instant) {
        let Self { connections, index, groups, .. } = self;
        index.matches(message.topic_name(), |target, qos| {
            let receiver = match target {
                Target::Client(id) => Some((id, qos)),
                Target::Group(group) => {
                    groups.pick(*group, None, |id, _| connections.contains_key(id))
                }
            };
            let Some((id, qos)) = receiver else { return };
            let Some(Connection { server, socket, .. }) = connections.get_mut(id) else { return };
            let copy = message.with(message.qos().min(*qos), false);
            // If the queue is full, the message is lost.
            let _ = server.deliver(Outgoing::new(None, copy), now);
            let (mut out, mut has_more) = (Vec::new(), true);
            while has_more {
                out.clear();
                has_more = server.flush(now, &mut out);
                if socket.write_all(&out).is_err() {
                    // The client does not read. The next step handles the end of the connection.
                    let _ = socket.shutdown(Shutdown::Both);
                    return;
                }
            }
        });
    }
}

impl Connection {
    /// Reads the bytes that have arrived. Returns whether the connection is open.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match self.socket.read(&mut chunk) {
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                count > 0
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Accepts users with the right password.
    fn answer(&mut self, id: u64, connect: &Connect<'_>, now: Instant, out: &mut Vec<u8>) {
        self.user = connect.user_name.map(|name| name.to_string()).unwrap_or_default();
        let password = connect.password.unwrap_or_default();
        let mut properties = ConnackProperties::default();
        if !USERS.contains(&(&self.user, password)) {
            let code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
            let _ = self.server.refuse(code, properties, now, out);
            return;
        }
        let name = format!("client-{id}");
        if connect.client_identifier.is_empty() {
            properties.assigned_client_identifier = Some(name.as_str().into());
        }
        let _ = self.server.accept(None, properties, now, out);
    }
}

#[cfg(test)]
#[path = "blocking_client.rs"]
#[expect(dead_code, reason = "its `main` is not used")]
mod blocking_client;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking_client::Connection;
    use mqtt_sansio::client;
    use mqtt_sansio::codec::Publish;
    use mqtt_sansio::session::Outcome;

    /// Subscribes, and returns the code of the answer.
    fn subscribe(connection: &mut Connection, filter: &str) -> ReasonCode {
        let filters = [Subscription::new(filter, QoS::AtLeastOnce)];
        let now = connection.now();
        connection
            .client
            .subscribe(1, &filters, Default::default(), now, &mut connection.out)
            .unwrap();
        let code = |action: client::Action<'_>| match action {
            client::Action::Subscribed(_, suback) => suback.reason_codes.iter().next(),
            _ => None,
        };
        connection.wait_for(code).unwrap()
    }

    /// Publishes, and returns the code of the answer.
    fn publish(connection: &mut Connection, topic: &str) -> ReasonCode {
        let publish = Publish { qos: QoS::AtLeastOnce, ..Publish::new(topic, b"clean") };
        let now = connection.now();
        connection.client.publish(1, &publish, now, &mut connection.out).unwrap();
        let code = |action: client::Action<'_>| match action {
            client::Action::Published(published) => match published.outcome {
                Outcome::Acknowledged { reason_code, .. } => Some(reason_code),
                _ => None,
            },
            _ => None,
        };
        connection.wait_for(code).unwrap()
    }

    fn receive(connection: &mut Connection) -> String {
        let topic = |action: client::Action<'_>| match action {
            client::Action::Message(message) => Some(message.topic_name.to_string()),
            _ => None,
        };
        connection.wait_for(topic).unwrap()
    }

    #[test]
    fn broker_obeys_its_access_list_and_shares_jobs() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || serve(&listener));
        assert!(Connection::open(&address, Some(("ann", "wrong"))).is_err());
        let open = |user, password| Connection::open(&address, Some((user, password))).unwrap();
        let (mut ann, mut bob, mut boss) = (open("ann", "a"), open("bob", "b"), open("bob", "b"));

        assert_eq!(subscribe(&mut ann, "user/ann/#"), ReasonCode::GRANTED_QOS_1);
        for filter in ["user/bob/#", "$share/x/user/bob/#", "#", "user/+/door"] {
            assert_eq!(subscribe(&mut ann, filter), ReasonCode::NOT_AUTHORIZED, "{filter}");
        }
        assert_eq!(publish(&mut bob, "user/ann/door"), ReasonCode::NOT_AUTHORIZED);
        assert_eq!(publish(&mut ann, "user/ann/door"), ReasonCode::SUCCESS);

        for worker in [&mut ann, &mut bob] {
            assert_eq!(subscribe(worker, "$share/workers/jobs/#"), ReasonCode::GRANTED_QOS_1);
        }
        for job in ["jobs/1", "jobs/2", "jobs/3"] {
            assert_eq!(publish(&mut boss, job), ReasonCode::SUCCESS);
        }
        assert_eq!(
            [receive(&mut ann), receive(&mut bob), receive(&mut ann)],
            ["jobs/1", "jobs/2", "jobs/3"]
        );
        // The group continues without a member that has left.
        drop(ann);
        while publish(&mut boss, "jobs/4") == ReasonCode::SUCCESS && receive(&mut bob) != "jobs/4" {
        }
    }
}
