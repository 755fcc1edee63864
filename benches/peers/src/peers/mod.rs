//! One file for each codec, and the columns of the table.

mod floor;
mod flowsdk;
mod mqtt5_protocol;
mod mqtt_codec_kit;
mod mqtt_format;
mod mqtt_proto;
mod mqtt_protocol_core;
mod mqttrs;
mod mqute_codec;
mod ntex_mqtt;
mod ours;
mod rmqtt_codec;
mod rumqttc;

use crate::codec::Codec;
use crate::measure::Measured;
use mqtt_sansio::codec::{Rules, Version};

/// The relation of a decoded packet to the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The packet borrows from the buffer.
    Borrowed,
    /// The packet can outlive the buffer.
    Owned,
    /// The packet can outlive the buffer, and its fields have been read; only this crate needs a
    /// step for that.
    OwnedAndRead,
}

/// A crate.
pub struct Column {
    pub name: &'static str,
    /// Whether the crate only encodes.
    pub only_encodes: bool,
    codecs: Vec<(Version, Form, &'static dyn Measured)>,
}

impl Column {
    fn new(name: &'static str) -> Self {
        Self { name, only_encodes: false, codecs: Vec::new() }
    }

    fn with<C: Codec + 'static>(
        mut self,
        version: Version,
        form: Form,
        codec: impl Fn() -> C + 'static,
    ) -> Self {
        self.codecs.push((version, form, Box::leak(Box::new(codec))));
        self
    }

    /// Returns a crate with owned packets.
    fn owned<A: Codec + 'static, B: Codec + 'static>(
        name: &'static str,
        v4: impl Fn() -> A + 'static,
        v5: impl Fn() -> B + 'static,
    ) -> Self {
        Self::new(name).with(Version::V3_1_1, Form::Owned, v4).with(Version::V5_0, Form::Owned, v5)
    }

    /// Returns the codec of a version, of any form or of the requested one.
    pub fn codec(&self, version: Version, form: Option<Form>) -> Option<&'static dyn Measured> {
        let find = |form: Option<Form>| {
            self.codecs
                .iter()
                .find(|(v, f, _)| *v == version && form.is_none_or(|form| form == *f))
                .map(|(_, _, codec)| *codec)
        };
        let readable_as_it_is =
            || if form == Some(Form::OwnedAndRead) { find(Some(Form::Owned)) } else { None };
        find(form).or_else(readable_as_it_is)
    }
}

/// The column that is not a codec.
pub const FLOOR: &str = "floor";

/// Returns the columns: two of this crate, the floor, and the peers.
pub fn columns() -> Vec<Column> {
    use Form::{Borrowed, Owned, OwnedAndRead};
    let mut us = Column::new("mqtt-sansio");
    for version in [Version::V3_1_1, Version::V5_0] {
        us = us
            .with(version, Borrowed, move || ours::Borrowed(Rules::new(version)))
            .with(version, Owned, move || ours::Owned::<false>(Rules::new(version)))
            .with(version, OwnedAndRead, move || ours::Owned::<true>(Rules::new(version)));
    }
    let checked = Column { only_encodes: true, ..Column::new("mqtt-sansio, checked") };
    vec![
        us,
        checked.with(Version::V3_1_1, Borrowed, || ours::Checked::<false>).with(
            Version::V5_0,
            Borrowed,
            || ours::Checked::<true>,
        ),
        Column::new(FLOOR).with(Version::V3_1_1, Borrowed, || floor::Floor::<false>).with(
            Version::V5_0,
            Borrowed,
            || floor::Floor::<true>,
        ),
        Column::new("mqttrs 0.4.1").with(Version::V3_1_1, Borrowed, || mqttrs::V4),
        Column::new("mqtt-format 0.4.0").with(Version::V3_1_1, Borrowed, || mqtt_format::V4),
        Column::owned("rumqttc 0.25.1", || rumqttc::RumqttcV4, || rumqttc::RumqttcV5),
        Column::owned("mqttbytes 0.6.0", || rumqttc::MqttbytesV4, || rumqttc::MqttbytesV5),
        Column::owned("rmqtt-codec 0.3.1", rmqtt_codec::V4::default, rmqtt_codec::V5::default),
        Column::owned("mqtt-codec-kit 1.0.5", || mqtt_codec_kit::V4, || mqtt_codec_kit::V5),
        Column::owned("ntex-mqtt 9.0.0", ntex_mqtt::v4::Codec::new, ntex_mqtt::v5::Codec::new),
        Column::owned("flowsdk 0.7.0", || flowsdk::Level(4), || flowsdk::Level(5)),
        Column::owned("mqute-codec 0.4.2", mqute_codec::V4::new, mqute_codec::V5::new),
        Column::owned(
            "mqtt5-protocol 0.16.2",
            || mqtt5_protocol::Level(4),
            || mqtt5_protocol::Level(5),
        ),
        Column::owned(
            "mqtt-protocol-core 0.7.9",
            || mqtt_protocol_core::V4,
            || mqtt_protocol_core::V5,
        ),
        Column::owned("mqtt-proto 0.4.0", || mqtt_proto::V4, || mqtt_proto::V5),
    ]
}
