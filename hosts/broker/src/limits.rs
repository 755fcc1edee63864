//! How many connections can be open, and how fast new ones can come: in all, and from one address.

use crate::flags::ListenerArguments;
use crate::lock::Lock;
use mqtt_sansio::codec::ReasonCode;
use mqtt_sansio_sn_gateway::network;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The connections beyond a limit that are open at a time, to be refused with a CONNACK. Further
/// ones are closed without an answer.
pub(crate) const REFUSABLE: usize = 100;

/// The number of addresses from which on those without a connection are forgotten.
const SWEEP: usize = 1024;

/// All open transports.
#[derive(Debug, Default)]
pub(crate) struct Places {
    maximum: usize,
    /// How many are open, by the thread that serves them.
    open: Box<[AtomicUsize]>,
    /// The transports that are open only to be refused.
    refused: AtomicUsize,
    /// A transport was closed.
    ended: Notify,
}

impl Places {
    pub(crate) fn new(maximum_connections: usize, threads: usize) -> Self {
        let maximum = maximum_connections.saturating_add(REFUSABLE);
        let open = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        Self { maximum, open, ..Self::default() }
    }

    /// Returns how many transports are open.
    pub(crate) fn open(&self) -> usize {
        self.open.iter().map(|open| open.load(Ordering::Relaxed)).sum()
    }

    /// Waits until no transport is open.
    pub(crate) async fn all_ended(&self) {
        while self.open() > 0 {
            self.ended.notified().await;
        }
    }

    /// Returns a place for a transport on the thread that serves the fewest, if there is one. Only
    /// the first thread takes places, so that their number stays within the limit.
    pub(crate) fn take(self: &Arc<Self>, address: Address) -> Option<Place> {
        let threads = (0..).zip(&self.open);
        let (thread, _) = threads.min_by_key(|(_, open)| open.load(Ordering::Relaxed))?;
        self.take_on(thread, address)
    }

    /// Returns a place for a transport on a thread, if there is one.
    pub(crate) fn take_on(self: &Arc<Self>, thread: u16, address: Address) -> Option<Place> {
        (self.open() < self.maximum).then(|| {
            if let Some(open) = self.open.get(usize::from(thread)) {
                open.fetch_add(1, Ordering::Relaxed);
            }
            let places = self.clone();
            Place { places, address, thread, counted: [None, None], is_refused: false }
        })
    }
}

/// The place of an open transport.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    pub(crate) address: Address,
    /// The thread that serves the transport.
    pub(crate) thread: u16,
    /// The limits that the transport counts towards: of the program, and of its listener.
    counted: [Option<Arc<Limit>>; 2],
    is_refused: bool,
}

impl Place {
    /// Counts the transport towards the limits. If one forbids it, its client must be refused with
    /// the reason code.
    pub(crate) fn count(&mut self, limits: [Option<&Arc<Limit>>; 2]) -> Result<(), ReasonCode> {
        for (limit, counted) in limits.into_iter().zip(&mut self.counted) {
            if let Some(limit) = limit {
                limit.add(self.address.network(), Instant::now())?;
                *counted = Some(limit.clone());
            }
        }
        Ok(())
    }

    /// Keeps the transport open to refuse it, unless too many others are. Returns whether it is.
    pub(crate) fn keep_to_refuse(&mut self) -> bool {
        let one_more = |refused: usize| (refused < REFUSABLE).then_some(refused + 1);
        let refused = &self.places.refused;
        let added = refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        self.is_refused = added.is_ok();
        self.is_refused
    }

    /// Counts the transport towards the limits no more.
    pub(crate) fn leave_limits(&mut self) {
        for limit in self.counted.iter_mut().filter_map(Option::take) {
            limit.remove(self.address.network());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave_limits();
        let Self { places, thread, is_refused, .. } = self;
        places.refused.fetch_sub(usize::from(*is_refused), Ordering::Relaxed);
        if let Some(open) = places.open.get(usize::from(*thread)) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
        places.ended.notify_one();
    }
}

/// The origin of a transport.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Ip(SocketAddr),
    /// A program of this machine, through this unix socket.
    Unix(Arc<str>),
    /// The bridge of that name, in this program.
    Bridge(Arc<str>),
    /// A client of MQTT-SN, through the gateway of this program.
    Sn,
}

impl Address {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) | Self::Bridge(_) | Self::Sn => None,
        }
    }

    fn network(&self) -> Option<IpAddr> {
        self.ip().map(network)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(name) => name.fmt(f),
            Self::Bridge(name) => write!(f, "bridge {name}"),
            Self::Sn => f.write_str("MQTT-SN"),
        }
    }
}

/// The limits of the program, or those of a listener.
#[derive(Debug)]
pub(crate) struct Limit {
    maximum: usize,
    maximum_per_address: Option<NonZeroUsize>,
    rate: Option<NonZeroU32>,
    rate_per_address: Option<NonZeroU32>,
    counts: Lock<Counts>,
}

/// The connections that count towards a limit.
#[derive(Debug, Default)]
struct Counts {
    open: usize,
    bucket: Bucket,
    addresses: HashMap<IpAddr, Recent>,
    sweep_at: usize,
}

/// An address with connections, now or a moment ago.
#[derive(Debug)]
struct Recent {
    open: usize,
    bucket: Bucket,
}

impl Limit {
    pub(crate) fn new(arguments: &ListenerArguments) -> Self {
        Self {
            maximum: arguments.max_connections,
            maximum_per_address: arguments.max_connections_per_address,
            rate: arguments.max_connection_rate,
            rate_per_address: arguments.max_connection_rate_per_address,
            counts: Lock::new(Counts { sweep_at: SWEEP, ..Counts::default() }),
        }
    }

    fn add(&self, address: Option<IpAddr>, now: Instant) -> Result<(), ReasonCode> {
        let Counts { open, bucket, addresses, sweep_at } = &mut *self.counts.lock();
        if *open >= self.maximum {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        if addresses.len() >= *sweep_at {
            addresses.retain(|_, one| one.open > 0 || one.bucket.is_recent(now));
            *sweep_at = SWEEP.max(2 * addresses.len());
        }
        let is_limited = self.maximum_per_address.is_some() || self.rate_per_address.is_some();
        let mut one = address.filter(|_| is_limited).map(|address| {
            addresses.entry(address).or_insert(Recent { open: 0, bucket: Bucket::default() })
        });
        let maximum = self.maximum_per_address.map_or(usize::MAX, NonZeroUsize::get);
        if one.as_ref().is_some_and(|one| one.open >= maximum) {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        let is_fast = one.as_mut().is_some_and(|one| !one.bucket.take(self.rate_per_address, now))
            || !bucket.take(self.rate, now);
        if is_fast {
            return Err(ReasonCode::CONNECTION_RATE_EXCEEDED);
        }
        *open += 1;
        if let Some(one) = one {
            one.open += 1;
        }
        Ok(())
    }

    fn remove(&self, address: Option<IpAddr>) {
        let Counts { open, addresses, .. } = &mut *self.counts.lock();
        *open -= 1;
        if let Some(one) = address.and_then(|address| addresses.get_mut(&address)) {
            one.open -= 1;
        }
    }
}

/// Connections of the last second. After a quiet second, as many can come at once.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The time at which the connections that have come are paid for at the rate. `None` at first.
    paid_at: Option<Instant>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Bucket {
    /// Counts a connection, unless it exceeds the rate. Returns whether it does not.
    fn take(&mut self, rate: Option<NonZeroU32>, now: Instant) -> bool {
        let Some(rate) = rate else { return true };
        let paid_at = self.paid_at.map_or(now, |paid_at| paid_at.max(now)) + SECOND / rate.get();
        let is_within = paid_at <= now + SECOND;
        if is_within {
            self.paid_at = Some(paid_at);
        }
        is_within
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.paid_at.is_some_and(|paid_at| paid_at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn bucket_keeps_the_rate_after_a_burst() {
        let (start, rate) = (Instant::now(), NonZeroU32::new(10));
        let mut bucket = Bucket::default();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let taken = (0..=3_000).filter(|time| bucket.take(rate, at(*time))).count();
        assert_eq!(taken, 10 + 30);
        assert!(bucket.is_recent(at(3_900)) && !bucket.is_recent(at(4_001)));
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let flags = ["broker", "--max-connection-rate-per-address", "1"];
        let arguments: crate::flags::Arguments = clap::Parser::parse_from(flags);
        let (limit, now) = (Limit::new(&arguments.listener), Instant::now());
        let address = |number: u128| Some(network(Ipv6Addr::from_bits(number << 64).into()));
        for number in 0..10_000 {
            let later = now + Duration::from_millis(number);
            limit.add(address(number.into()), later).unwrap();
            assert!(limit.add(address(number.into()), later).is_err());
            limit.remove(address(number.into()));
        }
        assert!(limit.counts.lock().addresses.len() <= 2 * SWEEP);
    }
}
