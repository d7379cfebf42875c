//! The WebSocket under MQTT, against scripted peers.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Upgrade, Response};

use super::*;
use crate::transport::mqtt::{Session, open};

async fn connect(dialer: &Dialer, port: u16, limit: Duration) -> Result<Session, Failure> {
    let host = localhost();
    let address = Address { via: Via::MqttWs, host: &host, port };
    let hello = Hello { client_id: "d".to_owned(), user_name: "u".to_owned(), password: None, clean_session: false };
    open(dialer, address, hello, within(limit), &Transcript::log_only()).await
}

/// Refuses the upgrade with this text.
async fn answering(response: &'static str) -> u16 {
    tls_peer(move |mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(response.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await
}

/// Opens the WebSocket, takes CONNECT, and sends these messages.
async fn sending(messages: Vec<Message>) -> u16 {
    tls_peer(move |stream| {
        let messages = messages.clone();
        async move {
            #[expect(clippy::result_large_err, reason = "the library's signature")]
            let accept = |request: &Upgrade, mut response: Response| {
                assert_eq!(request.uri().path(), "/$iothub/websocket");
                assert_eq!(request.headers()["user-agent"], AGENT);
                let protocol = request.headers()["sec-websocket-protocol"].clone();
                assert_eq!(protocol, "mqtt");
                response.headers_mut().insert("sec-websocket-protocol", protocol);
                Ok(response)
            };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, accept).await.unwrap();
            let connect = socket.next().await.unwrap().unwrap().into_data();
            assert_eq!(connect[..], b"\x10\x10\x00\x04MQTT\x04\x80\x00\x00\x00\x01d\x00\x01u"[..]);
            for message in messages {
                socket.send(message).await.unwrap();
            }
            while socket.next().await.is_some() {}
        }
    })
    .await
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(bytes.into())
}

#[tokio::test]
async fn packets_may_be_cut_anywhere_between_messages() {
    let whole = sending(vec![binary(&[0x20, 2, 0, 0])]).await;
    let cut = sending(vec![binary(&[0x20]), Message::Ping("p".into()), binary(&[2, 0]), binary(&[]), binary(&[0])]).await;
    for port in [whole, cut] {
        connect(&dialer(), port, PATIENT).await.map_err(|failure| format!("{failure:?}")).unwrap().disconnect().await;
    }
}

#[tokio::test]
async fn connack_refuses_over_websocket_too() {
    let port = sending(vec![binary(&[0x20, 2, 0, 5])]).await;
    assert_eq!(refused(connect(&dialer(), port, PATIENT).await), Answer::refused_connect(5));
}

#[tokio::test]
async fn text_instead_of_packets_makes_no_sense() {
    let port = sending(vec![Message::Text("hello".into())]).await;
    assert_eq!(lost(connect(&dialer(), port, PATIENT).await), Lost::Nonsense("text on an MQTT WebSocket".to_owned()));
}

#[tokio::test]
async fn silence_after_the_upgrade_ends_with_the_deadline() {
    let port = sending(Vec::new()).await;
    let told = unreachable_at(connect(&dialer(), port, BRIEF).await);
    assert_eq!(told, (Stage::Open, format!("no answer within 0.7 s from localhost:{port}")));
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer_where_the_service_would_say_so() {
    let port = answering("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 9\r\nDate: today\r\n\r\n").await;
    let expected = Answer { status: 429, retry_after: Some("9".to_owned()), date: Some("today".to_owned()), ..Answer::default() };
    assert_eq!(refused(connect(&dialer(), port, PATIENT).await), expected);
    for (response, status) in [
        ("HTTP/1.1 401 Unauthorized\r\n\r\n", 401),
        ("HTTP/1.1 403 Ip Forbidden\r\n\r\n", 403),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", 503),
    ] {
        let port = answering(response).await;
        assert_eq!(refused(connect(&dialer(), port, PATIENT).await).status, status);
    }
    let port = answering("HTTP/1.1 404 Not Found\r\n\r\n").await;
    let (stage, why) = unreachable_at(connect(&dialer(), port, PATIENT).await);
    assert_eq!(stage, Stage::Open);
    assert_eq!(
        why,
        format!("localhost:{port} answers the WebSocket upgrade with 404: something on the way takes it for plain HTTP")
    );
}

#[tokio::test]
async fn a_hang_up_before_connack_is_told_and_with_a_client_certificate_suspected() {
    let port = answering("").await;
    assert_eq!(unreachable_at(connect(&dialer(), port, PATIENT).await).0, Stage::Open);
    let certified = with_certificate(&PKI.root, VALID);
    assert_eq!(unreachable_at(connect(&certified, port, PATIENT).await).0, Stage::Certificate);
    let port = sending(vec![Message::Close(None)]).await;
    assert_eq!(unreachable_at(connect(&dialer(), port, PATIENT).await).0, Stage::Open);
    assert_eq!(unreachable_at(connect(&certified, port, PATIENT).await).0, Stage::Certificate);
}

#[tokio::test]
async fn a_bad_certificate_is_one_here_too() {
    let port = tls_peer_with(PKI.server("other.example", VALID), silence).await;
    assert!(matches!(lost(connect(&dialer(), port, PATIENT).await), Lost::Untrusted { .. }));
}
