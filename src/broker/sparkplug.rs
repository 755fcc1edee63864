//! Certificates of birth: the part of Sparkplug 3.0 that concerns a server.

use super::Broker;
use super::flow::publish;
use crate::codec::{Publish, TopicName};
use crate::session::Message;
use crate::time::Instant;
use alloc::string::String;

/// The topics of the certificates begin with this level.
const CERTIFICATES: &str = "$sparkplug/certificates/";

/// Publishes a copy of a message, retained, if it is the birth of an edge node or a device.
/// (Sparkplug 3.0 §10.1.4)
pub(super) fn certify(broker: &mut Broker, message: &Message, now: Instant) {
    let Some(topic_name) = certificate(message.topic_name().to_str()) else { return };
    let publish =
        Publish { retain: true, topic_name: (&*topic_name).into(), ..message.to_publish() };
    // A topic that is too long with the certificate's levels has none.
    if let Ok(certificate) = Message::new(&publish) {
        publish::publish_own(broker, certificate, now);
    }
}

/// Whether a topic is that of a certificate, which only the broker publishes.
pub(super) fn is_certificate(topic_name: &TopicName<'_>) -> bool {
    topic_name.as_text().as_bytes().starts_with(CERTIFICATES.as_bytes())
}

/// Returns the topic of the certificate of a birth: `spBv1.0/GROUP/NBIRTH/NODE`, or
/// `spBv1.0/GROUP/DBIRTH/NODE/DEVICE`.
fn certificate(topic_name: &str) -> Option<String> {
    let mut levels = topic_name.split('/');
    let (namespace, _group, birth) = (levels.next()?, levels.next()?, levels.next()?);
    let names = match birth {
        "NBIRTH" => 1,
        "DBIRTH" => 2,
        _ => return None,
    };
    let is_birth = namespace == "spBv1.0" && levels.count() == names;
    is_birth.then(|| String::from(CERTIFICATES) + topic_name)
}
