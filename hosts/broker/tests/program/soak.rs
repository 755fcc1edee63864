//! A long run with all at once.

use crate::client::{Client, open};
use crate::listeners::{Certificates, Stream, tls};
use crate::store::{free_address, play};
use crate::{Broker, Directory};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

/// Publishers and a subscriber with QoS 1 and 2, clients that come and go over TCP, TLS and
/// WebSocket, and a kill of the broker after each quarter of the time:
///
/// ```sh
/// MINUTES=60 cargo test -p mqtt-sansio-broker --test program soak -- --ignored --nocapture
/// ```
#[test]
#[ignore = "runs for MINUTES, 1 if not set"]
fn soak_loses_nothing_and_keeps_memory_flat() {
    const LIVES: usize = 4;
    /// The looks at the memory in each life.
    const LOOKS: usize = 12;
    let minutes = std::env::var("MINUTES").map_or(1, |minutes| minutes.parse().unwrap());
    let pause = Duration::from_secs(60 * minutes).div_f64((LIVES * LOOKS) as f64);
    let (directory, certificates) = (Directory::new(), Certificates::new());
    let (cert, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let [plain, secure, web] = [(); 3].map(|()| free_address());
    let urls = [format!("tls://{secure}"), format!("ws://{web}")];
    let data = directory.path("data");
    let mut flags = vec!["--listen", &plain, "--data-dir", &data, "--cert", &cert, "--key", &key];
    urls.iter().for_each(|url| flags.extend(["--listen", url]));
    // On a busy machine the subscriber can be late. Then messages are dropped, but not lost.
    flags.extend(["--max-queued-messages", "1000000", "--max-queued-bytes", "1000000000"]);
    let mut broker = Broker::start(&flags);
    // Clients that come and go do not see the kills.
    let (alive, stop, visits) = (RwLock::new(()), AtomicBool::new(false), AtomicU32::new(0));
    let mut memory = [[0; LOOKS]; LIVES];
    let flows = scope(|scope| {
        for kind in 0..3 {
            let (alive, stop, visits, certificates) = (&alive, &stop, &visits, &certificates);
            let (plain, secure, web) = (&plain, &secure, &web);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let alive = alive.read().unwrap();
                    let mut client = match kind {
                        0 => Client::tcp(plain),
                        1 => Client::new(tls(secure, certificates)),
                        _ => Client::new(Stream::new(open(web))),
                    };
                    let number = visits.fetch_add(1, Ordering::Relaxed);
                    let topic = format!("visit/{kind}");
                    assert_eq!(client.connect(4, &format!("visitor-{number}"), None), 0);
                    assert_eq!(client.subscribe(&topic), 0);
                    client.publish(&topic, &number.to_string());
                    client.expect(&topic, &number.to_string());
                    drop(alive);
                    sleep(Duration::from_millis(5));
                }
            });
        }
        let flows = play(&plain, || {
            for life in &mut memory {
                for look in life {
                    sleep(pause);
                    *look = broker.resident_bytes() / 1024;
                }
                let _dead = alive.write().unwrap();
                let _ = broker.process.kill();
                let _ = broker.process.wait();
                broker = Broker::start(&flags);
            }
        });
        stop.store(true, Ordering::Relaxed);
        flows
    });
    println!("resident KiB in each life: {memory:?}");
    println!(
        "{} visits, messages: {:?}",
        visits.into_inner(),
        flows.each_ref().map(|flow| flow.sent)
    );
    assert_eq!(flows.map(|flow| flow.problem()), [None, None]);
    for life in memory {
        let (early, late) = life.split_at(LOOKS / 3);
        assert!(late.iter().max() < early.iter().map(|early| early * 2).max().as_ref(), "{life:?}");
    }
}
