//! The messages, their types and their header. [SN §5.2]

use super::body::{
    Advertise, Connect, GwInfo, Puback, Publish, Regack, Register, SearchGw, Suback, Subscribe,
    Unsubscribe, WillTopic, check_client_id,
};
use super::error::{DecodeError, EncodeError};
use super::forwarder;
use super::types::ReturnCode;
use super::wire::{Field, Reader, Sink, Size, Writer};
use crate::codec::{Output, PacketIdentifier, Text};

/// Declares the messages by Table 3: number, name, variable part, and what the message is.
macro_rules! messages {
    ($($number:literal $name:ident $(($Body:ty))? $wire:literal $doc:literal;)*) => {
        /// The type of a message. [SN §5.2.2]
        #[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum MessageType {
            $(
                #[doc = $wire]
                $name = $number,
            )*
        }

        impl MessageType {
            /// Returns the type with this number. Other numbers are reserved; 0xFE is a message
            /// that a forwarder has [encapsulated](super::Encapsulated).
            #[must_use]
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Returns the name in capitals, as the specification writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                }
            }
        }

        /// A message. [SN §5.4]
        #[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
        pub enum Message<'a> {
            $(
                #[doc = $doc]
                $name $(($Body))?,
            )*
        }

        impl<'a> Message<'a> {
            /// Returns the type.
            #[must_use]
            pub const fn message_type(&self) -> MessageType {
                match self {
                    $(Self::$name { .. } => MessageType::$name,)*
                }
            }

            fn read(message_type: MessageType, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
                Ok(match message_type {
                    $(MessageType::$name => Self::$name $((<$Body as Field<'a>>::read(r)?))?,)*
                })
            }

            fn write(&self, sink: &mut impl Sink) {
                match self {
                    $(Self::$name $((bind!(body, $Body)))? => {
                        $(<$Body as Field<'a>>::write(body, sink);)?
                    })*
                }
            }

            fn check_fields(&self) -> Result<(), DecodeError> {
                match self {
                    $(Self::$name $((bind!(body, $Body)))? => {
                        $(<$Body as Field<'a>>::check(body)?;)?
                    })*
                }
                Ok(())
            }
        }
    };
}

/// Binds the variable part in a pattern, if the message has one.
macro_rules! bind {
    ($body:ident, $Body:ty) => {
        $body
    };
}

messages! {
    0x00 Advertise(Advertise) "ADVERTISE" "A gateway announces itself. [SN §5.4.1]";
    0x01 SearchGw(SearchGw) "SEARCHGW" "A client looks for a gateway. [SN §5.4.2]";
    0x02 GwInfo(GwInfo<'a>) "GWINFO" "The answer to SEARCHGW. [SN §5.4.3]";
    0x04 Connect(Connect<'a>) "CONNECT" "A client sets up a connection. [SN §5.4.4]";
    0x05 Connack(ReturnCode) "CONNACK" "The outcome of CONNECT. [SN §5.4.5]";
    0x06 WillTopicReq "WILLTOPICREQ" "The gateway asks for the Will topic. [SN §5.4.6]";
    0x07 WillTopic(Option<WillTopic<'a>>) "WILLTOPIC" "The Will topic; `None` deletes the Will. [SN §5.4.7]";
    0x08 WillMsgReq "WILLMSGREQ" "The gateway asks for the Will message. [SN §5.4.8]";
    0x09 WillMsg(&'a [u8]) "WILLMSG" "The Will message. [SN §5.4.9]";
    0x0A Register(Register<'a>) "REGISTER" "A topic name that a topic id will stand for. [SN §5.4.10]";
    0x0B Regack(Regack) "REGACK" "The answer to REGISTER. [SN §5.4.11]";
    0x0C Publish(Publish<'a>) "PUBLISH" "A message. [SN §5.4.12]";
    0x0D Puback(Puback) "PUBACK" "The answer to PUBLISH. [SN §5.4.13]";
    0x0E Pubcomp(PacketIdentifier) "PUBCOMP" "The answer to PUBREL. [SN §5.4.14]";
    0x0F Pubrec(PacketIdentifier) "PUBREC" "The answer to a PUBLISH with QoS 2. [SN §5.4.14]";
    0x10 Pubrel(PacketIdentifier) "PUBREL" "The answer to PUBREC. [SN §5.4.14]";
    0x12 Subscribe(Subscribe<'a>) "SUBSCRIBE" "A client subscribes. [SN §5.4.15]";
    0x13 Suback(Suback) "SUBACK" "The answer to SUBSCRIBE. [SN §5.4.16]";
    0x14 Unsubscribe(Unsubscribe<'a>) "UNSUBSCRIBE" "A client ends a subscription. [SN §5.4.17]";
    0x15 Unsuback(u16) "UNSUBACK" "The answer to UNSUBSCRIBE, with its message id. [SN §5.4.18]";
    0x16 Pingreq(Option<Text<'a>>) "PINGREQ" "A probe; with a client identifier, the wake-up of a sleeping client. [SN §5.4.19]";
    0x17 Pingresp "PINGRESP" "The answer to PINGREQ; nothing more is buffered. [SN §5.4.20]";
    0x18 Disconnect(Option<u16>) "DISCONNECT" "The end of the connection, or sleep for some seconds. [SN §5.4.21]";
    0x1A WillTopicUpd(Option<WillTopic<'a>>) "WILLTOPICUPD" "A new Will topic; `None` deletes the Will. [SN §5.4.22]";
    0x1B WillTopicResp(ReturnCode) "WILLTOPICRESP" "The answer to WILLTOPICUPD. [SN §5.4.24]";
    0x1C WillMsgUpd(&'a [u8]) "WILLMSGUPD" "A new Will message. [SN §5.4.23]";
    0x1D WillMsgResp(ReturnCode) "WILLMSGRESP" "The answer to WILLMSGUPD. [SN §5.4.25]";
}

impl Message<'_> {
    /// Refuses a message that breaks a rule, as [`decode`] and [`encode`] do.
    pub fn check(&self) -> Result<(), DecodeError> {
        self.check_fields()?;
        if let Self::Pingreq(Some(client_id)) = self {
            check_client_id(*client_id)?;
        }
        Ok(())
    }
}

/// Reads the message that a datagram consists of.
pub fn decode(datagram: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut r = Reader(datagram);
    let length = match u8::read(&mut r)? {
        // [SN §5.2.1]
        1 => match u16::read(&mut r)? {
            length @ 4.. => length.into(),
            0..4 => return Err(DecodeError::InvalidLength),
        },
        length @ 2.. => usize::from(length),
        0 => return Err(DecodeError::InvalidLength),
    };
    let number = u8::read(&mut r)?;
    let Some(message_type) = MessageType::from_u8(number) else {
        return Err(match number {
            forwarder::MESSAGE_TYPE => DecodeError::Encapsulated,
            number => DecodeError::ReservedMessageType(number),
        });
    };
    if datagram.len() != length {
        let is_short = datagram.len() < length;
        return Err(if is_short { DecodeError::Truncated } else { DecodeError::TrailingBytes });
    }
    let message = Message::read(message_type, &mut r)?;
    r.end()?;
    message.check()?;
    Ok(message)
}

/// Appends a message to an output. A length below 256 is written in one octet. [SN §5.2.1]
pub fn encode(message: &Message<'_>, out: &mut impl Output) -> Result<(), EncodeError> {
    let mut size = Size(1);
    message.write(&mut size);
    let (header, size) = match size.0 + 1 {
        short @ ..256 => (1, short),
        long => (3, long + 2),
    };
    let length = u16::try_from(size).map_err(|_| EncodeError::TooLong(size))?;
    message.check()?;
    let room = out.append_room(size, 0).map_err(|_| EncodeError::NoRoom(size))?;
    let mut writer = Writer(room);
    let [high, low] = length.to_be_bytes();
    let octets = if header == 1 { &[low][..] } else { &[1, high, low][..] };
    writer.put(octets);
    writer.put(&[message.message_type() as u8]);
    message.write(&mut writer);
    Ok(())
}
