//! MQTT.js in a real browser.

use crate::listeners::Certificates;
use crate::{Broker, Directory, has, run, skip};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Connects with each address and version, receives what it publishes, and reports the first
/// problem or `ok`.
const PAGE: &str = r#"<script src="mqtt.js"></script><script>
const large = "x".repeat(100000);
function play(url, protocolVersion) {
  return new Promise((resolve, reject) => {
    const client = mqtt.connect(url, { protocolVersion, reconnectPeriod: 0 });
    const expected = ["small", large];
    client.on("error", reject);
    client.on("close", () => reject("closed"));
    client.on("connect", () => client.subscribe("a/#", { qos: 2 }, () => {
      client.publish("a/b", "small", { qos: 1 });
      client.publish("a/b", large, { qos: 2 });
    }));
    client.on("message", (topic, payload) => {
      if (payload.toString() !== expected.shift()) reject("wrong payload");
      if (expected.length === 0) resolve();
    });
  });
}
(async () => {
  for (const url of URLS) for (const version of [4, 5]) await play(url, version);
})().then(() => "ok", String).then(body => fetch("result", { method: "POST", body }));
</script>"#;

/// Returns the bundle of MQTT.js for browsers, which npm installs below `target`.
fn bundle() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let bundle = directory.join("node_modules/mqtt/dist/mqtt.min.js");
    if !bundle.exists() && has("npm") {
        let path = directory.to_str()?;
        run("npm", &["install", "--silent", "--no-audit", "--prefix", path, "mqtt@5"]);
    }
    let found = bundle.exists();
    if !found {
        skip("npm has not installed MQTT.js");
    }
    found.then_some(bundle)
}

/// Serves the page until it reports a result.
fn serve(listener: &TcpListener, page: &str, script: &[u8]) -> Option<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    listener.set_nonblocking(true).unwrap();
    while Instant::now() < deadline {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut request, mut line, mut length) = (String::new(), String::new(), 0);
        // A browser opens connections in advance.
        while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
            request = if request.is_empty() { line.clone() } else { request };
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        let _ = reader.read_exact(&mut body);
        let (kind, answer) = match request.split(' ').nth(1) {
            Some("/") => ("text/html", page.as_bytes()),
            Some("/mqtt.js") => ("text/javascript", script),
            _ => ("text/plain", &[][..]),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            answer.len()
        );
        let _ = stream.write_all(&[head.as_bytes(), answer].concat());
        if request.starts_with("POST") {
            return Some(String::from_utf8(body).unwrap());
        }
    }
    None
}

#[test]
fn browser_publishes_and_receives_over_websocket_and_tls() {
    if !has("chromium") {
        return;
    }
    let Some(bundle) = bundle() else { return };
    let certificates = Certificates::new();
    let (cert, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let mut flags = vec!["--cert", &cert, "--key", &key];
    flags.extend(["--listen", "ws://127.0.0.1:0", "--listen", "wss://127.0.0.1:0"]);
    let broker = Broker::start(&flags);
    let urls = ["ws", "wss"].map(|scheme| format!("{scheme}://{}/mqtt", broker.address(scheme)));
    let page = PAGE.replace("URLS", &format!("{urls:?}"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = Directory::new();
    let mut browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"])
        .arg(format!("--user-data-dir={}", directory.path("profile")))
        .arg(format!("http://{}/", listener.local_addr().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let result = serve(&listener, &page, &std::fs::read(bundle).unwrap());
    let _ = browser.kill();
    let _ = browser.wait();
    assert_eq!(result.as_deref(), Some("ok"), "{}", broker.log());
}
