//! Users and rights.

use crate::client::{Client, connect, packet, publish, text};
use crate::{Broker, Directory, has, run};
use std::time::{Duration, Instant};

const LISTEN: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

/// Returns a file with the users `old` ($6$) and `new` ($7$), whose passwords are `OLD` and `NEW`.
fn password_file(directory: &Directory) -> Option<String> {
    has("mosquitto_passwd").then(|| {
        let file = directory.write("passwords", "");
        assert!(run("mosquitto_passwd", &["-H", "sha512", "-b", &file, "old", "OLD"]));
        assert!(run("mosquitto_passwd", &["-b", &file, "new", "NEW"]));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("old:$6$") && text.contains("new:$7$"), "{text}");
        file
    })
}

#[test]
fn password_file_of_mosquitto_decides_who_connects() {
    let directory = Directory::new();
    let Some(file) = password_file(&directory) else { return };
    let mut broker = Broker::start(&[&LISTEN[..], &["--password-file", &file]].concat());
    for (user, before_5_0, in_5_0) in [
        (None, 0x05, 0x87),
        (Some(("old", "OLD")), 0, 0),
        (Some(("new", "NEW")), 0, 0),
        (Some(("new", "OLD")), 0x04, 0x86),
        (Some(("nobody", "")), 0x04, 0x86),
    ] {
        for (version, expected) in [(4, before_5_0), (5, in_5_0)] {
            let mut client = Client::tcp(&broker.address("tcp"));
            assert_eq!(client.connect(version, "a", user), expected, "{user:?} {version}");
        }
    }
    let refused = "client=\"a\" user=\"nobody\" version=5.0 reason=\"Bad User Name or Password\"";
    broker.wait(|log| log.contains(refused));
    let log = broker.log();
    assert_eq!(log.matches("client connected").count(), 4, "{log}");
    assert_eq!(log.matches("client refused address=127.0.0.1:").count(), 6, "{log}");
    assert!(!log.contains("OLD"), "no password is logged: {log}");
}

#[test]
fn anonymous_clients_can_be_allowed_beside_users() {
    let directory = Directory::new();
    let Some(file) = password_file(&directory) else { return };
    let flags = ["--password-file", &file, "--allow-anonymous", "true"];
    let broker = Broker::start(&[&LISTEN[..], &flags].concat());
    Client::connected(&broker.address("tcp"), "a", None);
    assert_eq!(Client::tcp(&broker.address("tcp")).connect(4, "b", Some(("new", ""))), 4);
}

#[test]
fn repeated_failures_slow_down_only_further_passwords() {
    let directory = Directory::new();
    let Some(file) = password_file(&directory) else { return };
    let flags = ["--password-file", &file, "--allow-anonymous", "true"];
    let broker = Broker::start(&[&LISTEN[..], &flags].concat());
    let attempt = || Client::tcp(&broker.address("tcp")).connect(4, "a", Some(("new", "wrong")));
    for _ in 0..6 {
        assert_eq!(attempt(), 4);
    }
    let start = Instant::now();
    assert_eq!(attempt(), 4);
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
    let start = Instant::now();
    Client::connected(&broker.address("tcp"), "a", None);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

/// The file of the manual of mosquitto, with other names.
const ACL: &str = "\
# This affects access control for clients with no username.
topic read $SYS/#
topic read news/#

# This only affects clients with username \"new\".
user new
topic house/#
topic deny house/safe

# This affects all clients.
pattern write $SYS/broker/connection/%c/state
pattern readwrite of/%u/#
";

#[test]
fn acl_file_of_mosquitto_decides_what_is_delivered() {
    let directory = Directory::new();
    let Some(file) = password_file(&directory) else { return };
    let acl = directory.write("acl", ACL);
    let flags = ["--password-file", &file, "--allow-anonymous", "true", "--acl-file", &acl];
    let broker = Broker::start(&[&LISTEN[..], &flags].concat());
    let address = broker.address("tcp");
    let mut user = Client::connected(&address, "a", Some(("new", "NEW")));
    let mut other = Client::connected(&address, "b", Some(("old", "OLD")));
    let mut anonymous = Client::connected(&address, "c", None);
    for client in [&mut user, &mut other, &mut anonymous] {
        assert_eq!(client.subscribe("#"), 0);
    }
    user.publish("house/door", "1");
    user.publish("house/safe", "2");
    user.publish("news/today", "3");
    user.publish("of/new/a", "4");
    user.publish("of/old/a", "5");
    other.publish("of/old/a", "6");
    anonymous.publish("house/door", "7");
    user.expect("house/door", "1");
    user.expect("of/new/a", "4");
    other.expect("of/old/a", "6");
    for client in [&mut user, &mut other, &mut anonymous] {
        client.ping();
    }
}

#[test]
fn reload_changes_rights_and_users_of_live_connections() {
    let directory = Directory::new();
    let Some(file) = password_file(&directory) else { return };
    let acl = directory.write("acl", "user new\ntopic a/#\nuser old\ntopic #\n");
    let flags = ["--password-file", &file, "--acl-file", &acl];
    let mut broker = Broker::start(&[&LISTEN[..], &flags].concat());
    let address = broker.address("tcp");
    let mut new = Client::connected(&address, "a", Some(("new", "NEW")));
    let mut old = Client::connected(&address, "b", Some(("old", "OLD")));
    assert_eq!(new.subscribe("#"), 0);
    old.publish("a/1", "x");
    old.publish("b/1", "y");
    new.expect("a/1", "x");

    // A bad file changes nothing.
    directory.write("acl", "user new\ntopic readd b/#\n");
    broker.signal("-HUP");
    let expected = "the rights stay as they were";
    broker.wait(|log| log.contains(expected));
    let reason = "acl: line 2: expected read, write, readwrite or deny, found \\\"readd\\\"";
    assert!(broker.log().contains(reason), "{}", broker.log());
    old.publish("a/1", "x");
    new.expect("a/1", "x");

    directory.write("acl", "user new\ntopic b/#\nuser old\ntopic #\n");
    broker.signal("-HUP");
    broker.wait(|log| log.contains("reloaded the rights"));
    old.publish("a/1", "x");
    old.publish("b/1", "y");
    new.expect("b/1", "y");

    assert!(run("mosquitto_passwd", &["-D", &file, "old"]));
    broker.signal("-HUP");
    old.expect_end();
    new.ping();
    assert_eq!(Client::tcp(&address).connect(4, "b", Some(("old", "OLD"))), 4);
}

/// A pipe is a file on a disk that is slow.
#[test]
fn slow_file_does_not_hold_clients_up() {
    let directory = Directory::new();
    let acl = directory.write("acl", "topic a/#\n");
    let mut broker = Broker::start(&[&LISTEN[..], &["--acl-file", &acl]].concat());
    let address = broker.address("tcp");
    let mut live = Client::connected(&address, "live", None);
    assert_eq!(live.subscribe("#"), 0);
    std::fs::remove_file(&acl).unwrap();
    assert!(run("mkfifo", &[&acl]));
    broker.signal("-HUP");
    std::thread::sleep(Duration::from_millis(200));
    let mut new = Client::connected(&address, "new", None);
    new.publish("a/1", "x");
    live.expect("a/1", "x");
    std::fs::write(&acl, "topic b/#\n").unwrap();
    broker.wait(|log| log.contains("reloaded the rights"));
    new.publish("a/1", "x");
    new.publish("b/1", "y");
    live.expect("b/1", "y");
}

#[test]
fn open_listener_for_the_network_must_be_asked_for() {
    let mut broker = Broker::start_without_waiting(&["--listen", "tcp://0.0.0.0:0"]);
    assert!(!broker.end());
    broker.wait(|log| log.contains("give --password-file, or --allow-anonymous true"));
    Broker::start(&["--listen", "tcp://0.0.0.0:0", "--allow-anonymous", "true"]);
    let mut broker = Broker::start(&LISTEN);
    broker.wait(|log| {
        log.contains("accepts each client of this machine, because there is no password file")
    });
}

#[test]
fn last_message_is_delivered_although_password_is_checked_after_the_close() {
    let directory = Directory::new();
    let Some(file) = password_file(&directory) else { return };
    let flags = ["--password-file", &file, "--allow-anonymous", "true"];
    let broker = Broker::start(&[&LISTEN[..], &flags].concat());
    let address = broker.address("tcp");
    let mut watcher = Client::connected(&address, "watcher", None);
    assert_eq!(watcher.subscribe("last"), 0);
    let mut client = Client::tcp(&address);
    let connect = connect(4, "client", Some(("new", "NEW")));
    client.send(&[&connect[..], &publish("last", "message"), &[0xE0, 0]].concat());
    drop(client);
    watcher.expect("last", "message");
}

/// [5.0 MQTT-4.12.0-1]
#[test]
fn enhanced_authentication_and_forbidden_will_are_refused_and_logged() {
    let directory = Directory::new();
    let acl = directory.write("acl", "topic read a\n");
    let mut broker = Broker::start(&[&LISTEN[..], &["--acl-file", &acl]].concat());
    let body = [&text("MQTT")[..], &[5, 2, 0, 0, 4, 0x15, 0, 1, b'X'], &text("one")].concat();
    let will = [&text("MQTT")[..], &[4, 6, 0, 0], &text("two"), &text("b"), &text("gone")].concat();
    for (body, reason_code) in [(body, 0x8C), (will, 0x05)] {
        let mut client = Client::tcp(&broker.address("tcp"));
        client.send(&packet(0x10, &body));
        assert_eq!(client.receive()[3], reason_code);
    }
    broker.wait(|log| {
        let is_refused = |client| log.contains(&format!("client={client:?} version="));
        log.matches("client refused").count() == 2 && is_refused("one") && is_refused("two")
    });
}
