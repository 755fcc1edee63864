//! Losses of power: `power.c` logs what the broker writes, and when it syncs. The log is cut
//! anywhere; what was synced before the cut is kept, and of the rest some sectors. A broker that is
//! started on such files has lost no acknowledged message, doubled none with QoS 2, and keeps their
//! order.

use crate::store::{Flow, Publisher, Subscriber, free_address, play};
use crate::{Broker, Directory, has, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, create_dir_all};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

const SECTOR: usize = 512;

/// `CUTS=100` cuts more often.
#[test]
fn power_loss_under_load_loses_and_doubles_nothing() {
    if !has("cc") {
        return;
    }
    let cuts = std::env::var("CUTS").map_or(4, |cuts| cuts.parse().unwrap());
    let recording = Recording::of_load();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut controls, mut noticed) = (0, 0);
    for number in 0..cuts {
        let cut = recording.choose_cut(&mut random);
        let sectors = [Sectors::None, Sectors::Half, Sectors::All][random.below(3)];
        let problem = recording.problem_after(cut, sectors, true, &mut random);
        assert_eq!(problem, None, "cut {number}, after {cut} records, {sectors:?}");
        if number % 2 == 0 {
            // A store that does not sync.
            let problem = recording.problem_after(cut, Sectors::None, false, &mut random);
            controls += 1;
            noticed += u32::from(problem.is_some());
        }
    }
    println!("{cuts} cuts; {noticed} of {controls} losses were noticed without syncs");
    assert!(2 * noticed > controls);
}

/// The sectors that were written and not synced, and are there after the loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sectors {
    None,
    Half,
    All,
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

struct Record {
    kind: u8,
    id: u64,
    offset: u64,
    data: Vec<u8>,
}

/// The log of a broker under load.
struct Recording {
    directory: Directory,
    records: Vec<Record>,
    sent: [u32; 2],
}

impl Recording {
    /// Lets a broker run under load.
    fn of_load() -> Self {
        let directory = Directory::new();
        let (library, data) = (directory.path("power.so"), directory.path("data"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/power.c");
        assert!(run("cc", &["-shared", "-fPIC", "-O1", "-o", &library, source]));
        let (address, log) = (free_address(), directory.path("log"));
        let variables =
            [("LD_PRELOAD", &*library), ("POWER_LOG", &log), ("POWER_DIRECTORY", &data)];
        let flags = ["--listen", &address, "--data-dir", &data];
        let mut broker = Broker::start_with(&flags, &variables);
        broker.wait(|log| log.contains("listening on"));
        let flows = play(&address, || sleep(Duration::from_millis(1_500)));
        assert!(flows.iter().all(|flow| flow.sent > 50 && flow.problem().is_none()));
        broker.signal("-TERM");
        assert!(broker.end());
        let records = read_log(&std::fs::read(log).unwrap());
        let recording = Self { directory, records, sent: flows.map(|flow| flow.sent) };
        recording.check_that_nothing_is_missing();
        recording
    }

    /// Checks that the log makes the files that are there.
    fn check_that_nothing_is_missing(&self) {
        let mut random = Random(1);
        let path = self.directory.path("all");
        self.write_files(&path, self.records.len(), Sectors::All, true, &mut random);
        for (id, name) in self.tree(self.records.len()) {
            if id != 0 {
                let read = |root: &str| std::fs::read(format!("{root}{name}")).unwrap();
                assert!(read(&path) == read(&self.directory.path("data")), "{name} is another");
            }
        }
        std::fs::remove_dir_all(path).unwrap();
    }

    /// Returns a number of records under load, often at a sync.
    fn choose_cut(&self, random: &mut Random) -> usize {
        let is_output = |record: &Record| record.kind == b'N' && record.data[0] & 0xF0 == 0x40;
        let start = self.records.iter().position(is_output).unwrap();
        let mut cut = start + random.below(self.records.len() - start);
        if random.below(5) < 2 {
            while cut < self.records.len() && self.records[cut].kind != b'S' {
                cut += 1;
            }
            cut = (cut + random.below(2)).min(self.records.len());
        }
        cut
    }

    /// Returns the files and directories at the last sync before a cut, below the data directory.
    fn tree(&self, cut: usize) -> Vec<(u64, String)> {
        let root = self.directory.path("data");
        let last = self.records[..cut].iter().rfind(|record| record.kind == b'S').unwrap();
        let lines = std::str::from_utf8(&last.data).unwrap().lines();
        let parsed = lines.map(|line| line.split_once(' ').unwrap());
        parsed.map(|(id, path)| (id.parse().unwrap(), path.replacen(&root, "", 1))).collect()
    }

    /// Writes the files that are there after a loss of power.
    fn write_files(
        &self,
        path: &str,
        cut: usize,
        sectors: Sectors,
        is_synced: bool,
        random: &mut Random,
    ) {
        let records = &self.records[..cut];
        let (mut begun, mut synced) = (BTreeMap::new(), BTreeMap::new());
        for (index, record) in records.iter().enumerate() {
            match record.kind {
                b'B' => _ = begun.insert(record.id, index),
                b'S' => _ = synced.insert(record.id, begun[&record.id]),
                _ => {}
            }
        }
        let mut files: BTreeMap<u64, File> = BTreeMap::new();
        for (id, name) in self.tree(cut) {
            let path = format!("{path}{name}");
            if id == 0 {
                create_dir_all(path).unwrap();
            } else {
                let mut options = OpenOptions::new();
                files.insert(id, options.write(true).create_new(true).open(path).unwrap());
            }
        }
        for (index, record) in records.iter().enumerate() {
            let Some(file) = files.get(&record.id) else { continue };
            let is_kept = is_synced && synced.get(&record.id).is_some_and(|until| index < *until);
            match record.kind {
                b'T' if is_kept || sectors != Sectors::None => file.set_len(record.offset).unwrap(),
                b'W' => {
                    let mut at = record.offset;
                    let mut rest = &record.data[..];
                    while !rest.is_empty() {
                        let size = (SECTOR - at as usize % SECTOR).min(rest.len());
                        let (sector, after) = rest.split_at(size);
                        let is_there = match sectors {
                            Sectors::None => false,
                            Sectors::Half => random.below(2) == 0,
                            Sectors::All => true,
                        };
                        if is_kept || is_there {
                            file.write_all_at(sector, at).unwrap();
                        }
                        (at, rest) = (at + size as u64, after);
                    }
                }
                _ => {}
            }
        }
    }

    /// Starts a broker after a loss of power, and lets the clients go on. Returns what is wrong.
    fn problem_after(
        &self,
        cut: usize,
        sectors: Sectors,
        is_synced: bool,
        random: &mut Random,
    ) -> Option<String> {
        let (publishers, subscriber) = self.clients(cut);
        let directory = Directory::new();
        let (data, address) = (directory.path("data"), free_address());
        self.write_files(&data, cut, sectors, is_synced, random);
        let mut broker =
            Broker::start_without_waiting(&["--listen", &address, "--data-dir", &data]);
        while !broker.log().contains("listening on") {
            if broker.process.try_wait().unwrap().is_some() {
                return Some(broker.log());
            }
            sleep(Duration::from_millis(5));
        }
        let (stop, done) = (AtomicBool::new(true), AtomicBool::new(false));
        let (sent, arrived) = scope(|scope| {
            let subscriber = scope.spawn(|| subscriber.run(&address, &done));
            let publishers =
                publishers.map(|publisher| scope.spawn(|| publisher.run(&address, &stop)));
            let sent = publishers.map(|publisher| publisher.join().unwrap());
            sleep(Duration::from_millis(700));
            done.store(true, Ordering::Relaxed);
            (sent, subscriber.join().unwrap())
        });
        let [once, twice] = arrived;
        let flows = [(1, sent[0], once), (2, sent[1], twice)];
        for (qos, sent, arrived) in flows {
            if let Some(problem) = (Flow { qos, sent, arrived }).problem() {
                return Some(problem);
            }
        }
        broker.log().contains("left out").then(|| broker.log())
    }

    /// Returns the clients as they are when they have received what was sent before a cut.
    fn clients(&self, cut: usize) -> ([Publisher; 2], Subscriber) {
        let mut subscriber = Subscriber::default();
        let mut answers: [Vec<(u8, u16)>; 2] = Default::default();
        let mut streams: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for record in self.records[..cut].iter().filter(|record| record.kind == b'N') {
            let stream = streams.entry(record.id).or_default();
            if record.data.starts_with(&[0x20, 2]) {
                // Another connection.
                stream.clear();
            }
            stream.extend_from_slice(&record.data);
            while stream.len() >= 2 && stream.len() >= 2 + usize::from(stream[1]) {
                let packet: Vec<u8> = stream.drain(..2 + usize::from(stream[1])).collect();
                match packet[0] >> 4 {
                    3 | 6 => _ = subscriber.receive(&packet),
                    kind @ (4 | 5 | 7) => {
                        let identifier = u16::from_be_bytes([packet[2], packet[3]]);
                        answers[usize::from(kind > 4)].push((kind, identifier));
                    }
                    _ => {}
                }
            }
        }
        let publishers = [1, 2].map(|qos| {
            let index = usize::from(qos) - 1;
            let is = |kind| {
                let of_kind = answers[index].iter().filter(move |(other, _)| *other == kind);
                of_kind.map(|(_, identifier)| *identifier).collect::<BTreeSet<_>>()
            };
            let (received, complete) = (is(5), is(if qos == 1 { 4 } else { 7 }));
            let sent = (complete.len() + Publisher::WINDOW).min(self.sent[index] as usize) as u32;
            let numbers = (0..sent).map(|number| Publisher::packet(qos, number));
            let open = numbers.filter(|(identifier, _)| !complete.contains(identifier));
            let in_flight = open.map(|(identifier, mut packet)| {
                packet[0] |= 8;
                if received.contains(&identifier) {
                    packet = [&[0x62, 2], &identifier.to_be_bytes()[..]].concat();
                }
                (identifier, packet)
            });
            Publisher { qos, sent, in_flight: in_flight.collect() }
        });
        (publishers, subscriber)
    }
}

fn read_log(mut log: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((header, rest)) = log.split_first_chunk::<21>() {
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
        let size = u32::from_le_bytes(header[17..].try_into().unwrap()) as usize;
        let data = rest[..size].to_vec();
        records.push(Record { kind: header[0], id: number(1), offset: number(9), data });
        log = &rest[size..];
    }
    records
}
