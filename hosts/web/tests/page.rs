//! The page in a real browser, without a window. `hosts/web/build` must have built it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::{sleep, spawn};
use std::time::Duration;
use testkit::port::free_ports;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Serves the page, and the capture of mosquitto's traffic.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            // A browser opens connections in advance.
            spawn(|| answer(stream.unwrap()));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let request = lines.next()?;
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let page = Path::new(ROOT).join("target/web");
    let (kind, file) = match request.split(' ').nth(1)? {
        "/" => ("text/html", page.join("index.html")),
        "/mqtt_sansio_web.wasm" => ("application/wasm", page.join("mqtt_sansio_web.wasm")),
        "/phone" => return respond(stream, "text/html", PHONE.as_bytes()),
        "/mosquitto.pcap" => ("application/octet-stream", "tests/mosquitto.pcap".into()),
        _ => return stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n").ok(),
    };
    respond(stream, kind, &std::fs::read(file).unwrap())
}

fn respond(mut stream: TcpStream, kind: &str, content: &[u8]) -> Option<()> {
    let length = content.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), content].concat()).ok()
}

/// The page in the width of a phone. The title counts the names of fields, and those that are
/// broken over two lines, and says whether the page is as wide as its window. Chromium has no
/// window of this width.
const PHONE: &str = r#"<!doctype html><title></title>
<iframe src="/#file=mosquitto.pcap" style="width: 390px; height: 800px; border: 0"></iframe>
<script>
setInterval(() => {
  const page = document.querySelector("iframe").contentDocument;
  const names = [...page.querySelectorAll(".name")];
  const broken = names.filter(name => name.getClientRects().length > 1);
  const { scrollWidth, clientWidth } = page.documentElement;
  const fits = scrollWidth > clientWidth ? "too wide" : "fits";
  document.title = `${names.length} names, ${broken.length} broken, ${fits}`;
}, 100);
</script>"#;

/// Returns the document after the page has run, and keeps an image of it in `target/web`.
fn open(address: SocketAddr, name: &str, path: &str) -> String {
    let image = Path::new(ROOT).join(format!("target/web/{name}.png"));
    let profile = std::env::temp_dir().join(format!("page-{name}-{}", std::process::id()));
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"])
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", image.display()))
        .arg(format!("http://{address}/{path}"))
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(profile);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the text of a document without its elements.
fn text(page: &str) -> String {
    let parts = page.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    parts.collect::<String>().replace("&nbsp;", " ")
}

/// The commands of the README. CI runs the first and the last.
#[test]
#[ignore = "needs hosts/web/build and Python"]
fn page_is_served_by_the_command_of_the_readme() {
    let readme = include_str!("../README.md");
    let commands: Vec<_> = readme.lines().filter(|line| line.contains(" # ")).collect();
    assert_eq!(commands.len(), 3);
    let ci = std::fs::read_to_string(format!("{ROOT}/.ci/run")).unwrap();
    for command in [commands[0], commands[2]] {
        let command = command.split(" # ").next().unwrap().trim();
        assert!(ci.contains(command), "{command} is not in .ci/run");
    }
    let port = free_ports(1);
    let command = commands[1].split(" # ").next().unwrap().replace("http.server", "http.server {}");
    let command = format!("exec {}", command.replace("{}", &port.to_string()));
    let mut server = Command::new("sh").args(["-c", &command]).current_dir(ROOT).spawn().unwrap();
    let mut attempts = (0..200).map(|_| {
        sleep(Duration::from_millis(50));
        TcpStream::connect(("127.0.0.1", port))
    });
    let mut stream = attempts.find_map(Result::ok).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let page = std::io::read_to_string(stream).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(page.contains("<title>MQTT packets, explained</title>"), "{page}");
}

#[test]
#[ignore = "needs hosts/web/build and Chromium"]
fn page_explains_what_is_pasted() {
    let page =
        open(serve(), "hex", "#hex=10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61 36 03 00 01 61");
    for expected in [
        "2 packets · 1 broken",
        "client-identifier=a",
        "PUBLISH has QoS 3, expected 0, 1 or 2",
        "citationMQTT-3.3.1-4",
    ] {
        assert!(text(&page).contains(expected), "{expected} is not in {page}");
    }
}

#[test]
#[ignore = "needs hosts/web/build and Chromium"]
fn page_explains_a_capture_of_mosquitto() {
    let page = open(serve(), "capture", "#file=mosquitto.pcap");
    for expected in [
        "35 packets · 1 broken",
        "topic=room/4 · packet-identifier=1 · qos=2 · retain=true",
        "content-type=application/json",
        "(for room/4 after 0.1 ms)",
        "subscription-identifiers=7 · payload=21.6",
    ] {
        assert!(text(&page).contains(expected), "{expected} is not in {page}");
    }
    assert!(!page.contains("secret"), "the page shows a password");
}

#[test]
#[ignore = "needs hosts/web/build and Chromium"]
fn page_reports_input_that_is_not_hex() {
    let page = open(serve(), "problem", "#hex=<b>zzz");
    assert!(page.contains("expected hex digits, got &lt;b"), "{page}");
}

#[test]
#[ignore = "needs hosts/web/build and Chromium"]
fn page_breaks_no_name_on_a_phone() {
    let page = open(serve(), "phone", "phone");
    let title = page.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
    assert_eq!(title, "83 names, 0 broken, fits");
}
