//! Enhanced authentication, against a server of this test: it asks for the double of a number.

use crate::connection::LONG;
use mqtt_sansio_client::codec::{
    Auth, AuthProperties, Connack, ConnackProperties, Connect, ConnectProperties, OwnedPacket,
    Packet, ReasonCode, Version, encode,
};
use mqtt_sansio_client::{Ended, Options, StartError};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex,
};
use tokio::time::timeout;

/// Reads a packet of 5.0. None: the connection has ended.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    received: &mut bytes::BytesMut,
) -> Option<OwnedPacket> {
    loop {
        let packet = OwnedPacket::split_from(received, u32::MAX, Version::V5_0).unwrap();
        if packet.is_some() || stream.read_buf(received).await.unwrap() == 0 {
            return packet;
        }
    }
}

/// Sends a packet of 5.0.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), packet: Packet<'_>) {
    let mut out = Vec::new();
    encode(&packet, Version::V5_0, &mut out).unwrap();
    stream.write_all(&out).await.unwrap();
}

fn auth(reason_code: ReasonCode, data: &[u8]) -> Auth<'_> {
    let properties = AuthProperties {
        authentication_method: Some("double".into()),
        authentication_data: Some(data),
        ..AuthProperties::default()
    };
    Auth { reason_code, properties }
}

async fn serve(mut stream: DuplexStream) {
    let received = &mut bytes::BytesMut::new();
    let challenge = auth(ReasonCode::CONTINUE_AUTHENTICATION, b"21");
    while let Some(packet) = read(&mut stream, received).await {
        match packet.decode() {
            Packet::Connect(connect) => {
                assert_eq!(connect.properties.authentication_data, Some(&b"hello"[..]));
                send(&mut stream, challenge.into()).await;
                let answer = read(&mut stream, received).await.unwrap();
                let Packet::Auth(answer) = answer.decode() else { panic!("{answer:?}") };
                let is_right = answer.properties.authentication_data == Some(b"42");
                let properties = ConnackProperties {
                    authentication_method: Some("double".into()).filter(|_| is_right),
                    ..ConnackProperties::default()
                };
                let code = ReasonCode::NOT_AUTHORIZED;
                let reason_code = if is_right { ReasonCode::SUCCESS } else { code };
                send(
                    &mut stream,
                    Connack { reason_code, session_present: false, properties }.into(),
                )
                .await;
            }
            // A re-authentication.
            Packet::Auth(Auth { reason_code: ReasonCode::RE_AUTHENTICATE, .. }) => {
                send(&mut stream, challenge.into()).await;
            }
            Packet::Auth(answer) => {
                assert_eq!(answer.properties.authentication_data, Some(&b"42"[..]));
                send(&mut stream, auth(ReasonCode::SUCCESS, b"").into()).await;
            }
            _ => {}
        }
    }
}

fn options(factor: u32) -> Options {
    let properties = ConnectProperties {
        authentication_method: Some("double".into()),
        ..ConnectProperties::default()
    };
    let connect = Connect { clean_start: true, properties, ..Connect::new(Version::V5_0, "a") };
    let options = Options::new("mqtt://test").unwrap().with(&connect).unwrap();
    let options = options.transport(|| async {
        let (near, far) = duplex(1000);
        tokio::spawn(serve(far));
        Ok(near)
    });
    options.authenticator(move |auth| {
        let Some(auth) = auth else { return Ok(b"hello".to_vec()) };
        let data = auth.properties.authentication_data.unwrap_or_default();
        let number: u32 = std::str::from_utf8(data)?.parse()?;
        Ok((number * factor).to_string().into_bytes())
    })
}

/// [5.0 §4.12]
#[tokio::test]
async fn authenticator_answers_challenges() {
    let client = timeout(LONG, options(2).connect()).await.unwrap().unwrap();
    timeout(LONG, client.reauthenticate()).await.unwrap().unwrap();
    client.disconnect().await;
    let refused = timeout(LONG, options(3).connect()).await.unwrap().unwrap_err();
    let StartError::Connect { cause, .. } = refused else { panic!("{refused}") };
    assert!(matches!(cause, Ended::Refused(_)), "{cause}");
    assert_eq!(cause.reason_code(), Some(ReasonCode::NOT_AUTHORIZED));
}
