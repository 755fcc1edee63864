//! Clients of MQTT-SN over UDP. The library's gateway makes each of them a connection of the
//! broker, through a pipe in memory.

use crate::connection::serve;
use crate::flags::Arguments;
use crate::host::{Host, Link};
use crate::limits::Address;
use crate::settings::Settings;
use anyhow::{Context as _, bail};
use mqtt_sansio::sn::{Gateway, GatewayConfig};
use mqtt_sansio_sn_gateway::PredefinedTopic;
use std::future::ready;
use std::io;
use std::rc::Rc;
use tokio::io::duplex;
use tokio::net::UdpSocket;
use tokio::task::spawn_local;
use tracing::{error, info};

/// The bytes of the pipe to the broker.
const PIPE: usize = 16 * 1024;

/// Opens the socket, if a flag asks for it.
pub(crate) async fn bind(arguments: &Arguments) -> anyhow::Result<Option<UdpSocket>> {
    let Some(address) = arguments.sn else { return Ok(None) };
    let (listener, is_local) = (&arguments.listener, address.ip().is_loopback());
    let is_allowed = listener.allow_anonymous;
    if is_allowed == Some(false) || is_allowed.is_none() && !is_local {
        bail!("--sn {address} has no passwords: give --allow-anonymous true if that is wanted");
    }
    if is_allowed.is_none() && listener.password_file.is_some() {
        bail!("--sn has no passwords: give --allow-anonymous true, and limit it by --acl-file");
    }
    let socket = UdpSocket::bind(address).await.with_context(|| format!("--sn {address}"))?;
    info!("listening on udp://{}", socket.local_addr()?);
    Ok(Some(socket))
}

/// Serves clients until the socket fails. `settings` are those of their connections.
pub(crate) async fn run(
    host: Rc<Host>,
    socket: UdpSocket,
    topics: Vec<PredefinedTopic>,
    settings: Rc<Settings>,
) {
    let config = GatewayConfig::new(1);
    let gateway = Gateway::new(PredefinedTopic::add_all(&topics, config));
    let open = || {
        let place = host.places.take(Address::Sn);
        ready(place.ok_or_else(|| io::Error::other("too many connections are open")).map(|place| {
            let link = Link::new(place, None, settings.clone(), None);
            let (ours, theirs) = duplex(PIPE);
            spawn_local(serve(host.clone(), Box::new(link), theirs));
            ours
        }))
    };
    let error = mqtt_sansio_sn_gateway::run(socket, gateway, None, || host.now(), open).await;
    error!(%error, "the socket of MQTT-SN has failed");
}
