//! Clients of MQTT-SN over UDP. The library's gateway makes each of them a connection of the
//! broker, through a pipe in memory.

use crate::connection::serve;
use crate::host::{Host, Link};
use crate::limits::Address;
use crate::settings::Settings;
use anyhow::Context as _;
use mqtt_sansio::sn::Gateway;
use mqtt_sansio_sn_gateway::GatewayArguments;
use std::future::{pending, ready};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::duplex;
use tokio::net::UdpSocket;
use tokio::task::spawn_local;
use tracing::{error, info};

/// The bytes of the pipe to the broker.
const PIPE: usize = 16 * 1024;

/// Opens the socket.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await.with_context(|| format!("--sn {address}"))?;
    info!("listening on udp://{}", socket.local_addr()?);
    Ok(socket)
}

/// Serves clients until the socket fails. `settings` are those of their connections.
pub(crate) async fn run(
    host: Rc<Host>,
    socket: UdpSocket,
    arguments: GatewayArguments,
    settings: Arc<Settings>,
) {
    let gateway = Gateway::new(arguments.config());
    let open = || {
        let place = host.take_place(Address::Sn);
        ready(place.ok_or_else(|| io::Error::other("too many connections are open")).map(|place| {
            let link = Link::new(place, None, settings.clone(), None);
            let (ours, theirs) = duplex(PIPE);
            spawn_local(serve(host.clone(), Box::new(link), theirs));
            ours
        }))
    };
    let (broadcast, now) = (arguments.sn_broadcast, || host.now());
    let run = mqtt_sansio_sn_gateway::run(socket, gateway, broadcast, now, open, pending());
    if let Err(error) = run.await {
        error!(%error, "the socket of MQTT-SN has failed");
    }
}
