//! MQTT against scripted peers.

use dps_emulator::pki::EXPIRED;

use super::*;
use crate::transport::mqtt::{Session, open};

const REGISTER: &[u8] = br#"{"registrationId":"gw-0001"}"#;
const SUBSCRIBE: &[u8] = b"\x82\x1d\x00\x01\x00\x18$dps/registrations/res/#\x01";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const SUBACK: &[u8] = &[0x90, 3, 0, 1, 1];

fn hello(password: Option<&str>) -> Hello {
    Hello {
        client_id: "gw-0001".to_owned(),
        user_name: "scope/registrations/gw-0001/api-version=2021-06-01".to_owned(),
        password: password.map(|text| Secret::new(text.to_owned())),
        clean_session: true,
    }
}

async fn connect(dialer: &Dialer, port: u16, limit: Duration) -> Result<Session, Failure> {
    let host = localhost();
    let address = Address { via: Via::Mqtt, host: &host, port };
    open(dialer, address, hello(Some("token")), within(limit), &Transcript::log_only()).await
}

async fn register(port: u16, limit: Duration) -> Result<Answer, Failure> {
    let mut session = connect(&dialer(), port, PATIENT).await?;
    session.subscribe(within(limit)).await?;
    session.ask(&Request::Register, REGISTER, within(limit)).await
}

/// One packet, first byte and all.
async fn packet(stream: &mut Tls) -> Vec<u8> {
    let mut packet = vec![stream.read_u8().await.unwrap()];
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.unwrap();
        packet.push(byte);
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let start = packet.len();
    packet.resize(start + length, 0);
    stream.read_exact(&mut packet[start..]).await.unwrap();
    packet
}

fn message(topic: &str, body: &[u8]) -> Vec<u8> {
    let mut length = 2 + topic.len() + 2 + body.len();
    let mut bytes = vec![0x32];
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend([0, 77]);
    bytes.extend(body);
    bytes
}

/// Accepts CONNECT and SUBSCRIBE, takes the register call, and tells its `$rid`.
async fn welcome(stream: &mut Tls) -> String {
    packet(stream).await;
    stream.write_all(CONNACK).await.unwrap();
    packet(stream).await;
    stream.write_all(SUBACK).await.unwrap();
    rid(stream).await
}

async fn rid(stream: &mut Tls) -> String {
    let publish = String::from_utf8_lossy(&packet(stream).await).into_owned();
    // 16 hexadecimal digits, a dash, and a count of one digit.
    publish.split_once("$rid=").unwrap().1[..18].to_owned()
}

/// Answers the register call with these bytes, made from the `$rid`.
async fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + Clone + 'static) -> u16 {
    tls_peer(move |mut stream| {
        let answer = answer.clone();
        async move {
            let rid = welcome(&mut stream).await;
            // The client may hang up while it is still being written.
            let _ = stream.write_all(&answer(&rid)).await;
            silence(stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn the_packets_are_the_documented_ones() {
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let port = tls_peer(move |mut stream| {
        let send = send.clone();
        async move {
            send.send(packet(&mut stream).await).unwrap();
            stream.write_all(CONNACK).await.unwrap();
            send.send(packet(&mut stream).await).unwrap();
            stream.write_all(SUBACK).await.unwrap();
            let publish = packet(&mut stream).await;
            let text = String::from_utf8_lossy(&publish).into_owned();
            let rid = text.split_once("$rid=").unwrap().1[..18].to_owned();
            send.send(text.replace(&rid, "RID").into_bytes()).unwrap();
            let topic = format!("$dps/registrations/res/202/?$rid={rid}&retry-after=3");
            stream.write_all(&[&[0x40, 2, 0, 2][..], &message(&topic, b"{}")].concat()).await.unwrap();
            send.send(packet(&mut stream).await).unwrap();
            send.send(packet(&mut stream).await).unwrap();
        }
    })
    .await;
    let mut session = connect(&dialer(), port, PATIENT).await.unwrap();
    session.subscribe(within(PATIENT)).await.unwrap();
    let answer = session.ask(&Request::Register, REGISTER, within(PATIENT)).await.unwrap();
    assert_eq!(answer, Answer { status: 202, retry_after: Some("3".to_owned()), body: b"{}".to_vec(), ..Answer::default() });
    session.disconnect().await;
    let connect = b"\x10\x4e\x00\x04MQTT\x04\xc2\x00\x00\x00\x07gw-0001\x00\x32scope/registrations/gw-0001/api-version=2021-06-01\x00\x05token";
    assert_eq!(String::from_utf8_lossy(&seen.recv().await.unwrap()), String::from_utf8_lossy(connect));
    assert_eq!(seen.recv().await.unwrap(), SUBSCRIBE);
    let publish = [&b"\x32\x5f\x00\x3f$dps/registrations/PUT/iotdps-register/?$rid=RID"[..], &[0, 2], REGISTER].concat();
    assert_eq!(String::from_utf8_lossy(&seen.recv().await.unwrap()), String::from_utf8_lossy(&publish));
    assert_eq!(seen.recv().await.unwrap(), [0x40, 2, 0, 77]);
    assert_eq!(seen.recv().await.unwrap(), [0xe0, 0]);
}

#[tokio::test]
async fn without_a_token_there_is_a_user_name_and_no_password() {
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let port = tls_peer(move |mut stream| {
        let send = send.clone();
        async move { send.send(packet(&mut stream).await).unwrap() }
    })
    .await;
    let host = localhost();
    let address = Address { via: Via::Mqtt, host: &host, port };
    let _ = open(&dialer(), address, hello(None), within(PATIENT), &Transcript::log_only()).await;
    let connect = seen.recv().await.unwrap();
    assert_eq!(connect[9], 0x82, "user name and clean session, no password");
    assert!(connect.ends_with(b"2021-06-01"));
}

#[tokio::test]
async fn silence_is_told_with_its_stage() {
    for step in 0..4 {
        let port = peer(move |stream| async move {
            if step == 0 {
                return silence(stream).await;
            }
            let acceptor = TlsAcceptor::from(PKI.server("localhost", VALID));
            let mut stream = acceptor.accept(stream).await.unwrap();
            let answers = [CONNACK, SUBACK, &[]];
            for answer in &answers[..step - 1] {
                packet(&mut stream).await;
                stream.write_all(answer).await.unwrap();
            }
            silence(stream).await;
        })
        .await;
        let (stage, why) = match step {
            0 | 1 => unreachable_at(connect(&dialer(), port, BRIEF).await),
            _ => unreachable_at(register(port, BRIEF).await),
        };
        let (expected, whom) = match step {
            0 => (Stage::Tls, format!("localhost:{port}")),
            1 => (Stage::Open, format!("localhost:{port}")),
            2 => (Stage::Reply, format!("localhost:{port} to SUBSCRIBE")),
            _ => (Stage::Reply, format!("localhost:{port}")),
        };
        assert_eq!((stage, why), (expected, format!("no answer within 0.7 s from {whom}")), "step {step}");
    }
}

#[tokio::test]
async fn a_hang_up_is_told_with_its_stage() {
    for (step, expected) in [(0, Stage::Tls), (1, Stage::Open), (2, Stage::Reply), (3, Stage::Reply)] {
        let port = peer(move |stream| async move {
            if step == 0 {
                return;
            }
            let acceptor = TlsAcceptor::from(PKI.server("localhost", VALID));
            let mut stream = acceptor.accept(stream).await.unwrap();
            for answer in &[CONNACK, SUBACK][..step - 1] {
                packet(&mut stream).await;
                stream.write_all(answer).await.unwrap();
            }
            packet(&mut stream).await;
        })
        .await;
        assert_eq!(unreachable_at(register(port, PATIENT).await).0, expected, "step {step}");
    }
}

#[tokio::test]
async fn a_refused_connect_is_an_answer() {
    for (code, status) in [(1, 400), (2, 400), (3, 503), (4, 401), (5, 401), (6, 400), (255, 400)] {
        let port = tls_peer(move |mut stream| async move {
            packet(&mut stream).await;
            stream.write_all(&[0x20, 2, 0, code]).await.unwrap();
            silence(stream).await;
        })
        .await;
        let answer = refused(connect(&dialer(), port, PATIENT).await);
        assert_eq!((answer.status, answer.connack), (status, Some(code)));
    }
}

#[tokio::test]
async fn a_session_that_the_service_says_it_kept_does_not_matter() {
    let port = tls_peer(move |mut stream| async move {
        packet(&mut stream).await;
        stream.write_all(&[0x20, 2, 1, 0]).await.unwrap();
        silence(stream).await;
    })
    .await;
    assert!(connect(&dialer(), port, PATIENT).await.is_ok());
}

#[tokio::test]
async fn what_is_no_mqtt_makes_no_sense() {
    for (garbage, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 40\r\n\r\n<html>This is not an MQTT server.</html>"[..],
            "the answer makes no sense: PUBACK instead of CONNACK",
        ),
        (&[0x20, 2, 0][..], ""),
        (SUBACK, "the answer makes no sense: SUBACK instead of CONNACK"),
        (&[0x20, 0xff, 0xff, 0xff, 0xff, 0x7f], "the answer makes no sense: no MQTT 3.1.1 packet: Malformed remaining length"),
    ] {
        let port = tls_peer(move |mut stream| async move {
            packet(&mut stream).await;
            stream.write_all(garbage).await.unwrap();
        })
        .await;
        let lost = lost(connect(&dialer(), port, PATIENT).await);
        assert!(lost.to_string().starts_with(words), "{lost}");
        assert_eq!(matches!(lost, Lost::Nonsense(_)), !words.is_empty(), "{lost:?}");
    }
}

#[tokio::test]
async fn a_refused_subscription_makes_no_sense() {
    let port = tls_peer(move |mut stream| async move {
        packet(&mut stream).await;
        stream.write_all(CONNACK).await.unwrap();
        packet(&mut stream).await;
        stream.write_all(&[0x90, 3, 0, 1, 0x80]).await.unwrap();
        silence(stream).await;
    })
    .await;
    let lost = lost(register(port, PATIENT).await);
    assert_eq!(lost, Lost::Nonsense("the subscription to $dps/registrations/res/# was refused".to_owned()));
}

#[tokio::test]
async fn only_the_response_to_this_request_counts() {
    let port = answering(|rid| {
        let stale = message("$dps/registrations/res/500/?$rid=stale", b"stale");
        [stale, message(&format!("$dps/registrations/res/429/?retry-after=7&$rid={rid}"), b"mine")].concat()
    })
    .await;
    let answer = register(port, PATIENT).await.unwrap();
    assert_eq!(answer, Answer { status: 429, retry_after: Some("7".to_owned()), body: b"mine".to_vec(), ..Answer::default() });
}

#[tokio::test]
async fn a_flood_of_other_responses_ends_with_the_deadline() {
    let port = tls_peer(|mut stream| async move {
        welcome(&mut stream).await;
        while stream.write_all(&message("$dps/registrations/res/200/?$rid=stale", b"{}")).await.is_ok() {}
    })
    .await;
    assert_eq!(unreachable_at(register(port, BRIEF).await).0, Stage::Reply);
}

#[tokio::test]
async fn a_body_may_have_131072_bytes_and_no_more() {
    let port = answering(|rid| message(&format!("$dps/registrations/res/200/?$rid={rid}"), &vec![b' '; 131_072])).await;
    assert_eq!(register(port, PATIENT).await.unwrap().body.len(), 131_072);
    let too_large = Lost::Nonsense("it is larger than 131072 bytes".to_owned());
    let port = answering(|rid| message(&format!("$dps/registrations/res/200/?$rid={rid}"), &vec![b' '; 131_073])).await;
    assert_eq!(lost(register(port, PATIENT).await), too_large);
    // The announced length is enough: what it announces is not waited for.
    let port = answering(|_| vec![0x32, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(lost(register(port, PATIENT).await), too_large);
}

#[tokio::test]
async fn a_message_that_is_no_response_makes_no_sense() {
    for (topic, words) in [
        ("devices/gw-0001", "no DPS response in the topic \"devices/gw-0001\""),
        ("$dps/registrations/res/abc/?$rid=1", "no status in the topic \"$dps/registrations/res/abc/?$rid=1\""),
    ] {
        let port = answering(move |_| message(topic, b"{}")).await;
        assert_eq!(lost(register(port, PATIENT).await), Lost::Nonsense(words.to_owned()));
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_service_ended_is_noticed() {
    let (send, ended) = tokio::sync::oneshot::channel();
    let send = Arc::new(std::sync::Mutex::new(Some(send)));
    let port = tls_peer(move |mut stream| {
        let send = Arc::clone(&send);
        async move {
            packet(&mut stream).await;
            stream.write_all(CONNACK).await.unwrap();
            packet(&mut stream).await;
            stream.write_all(SUBACK).await.unwrap();
            stream.shutdown().await.unwrap();
            send.lock().unwrap().take().unwrap().send(()).unwrap();
        }
    })
    .await;
    let mut session = connect(&dialer(), port, PATIENT).await.unwrap();
    session.subscribe(within(PATIENT)).await.unwrap();
    ended.await.unwrap();
    let noticed = async {
        while !session.has_ended() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENT, noticed).await.unwrap();
}

#[tokio::test]
async fn a_refused_client_certificate_is_a_401_whenever_the_alert_comes() {
    let stranger = Authority::root("Stranger", Algorithm::EcP256).unwrap();
    for version in [&TLS12, &TLS13] {
        let chain = PKI.root.server(&PKI.key, &["localhost".to_owned()], VALID).unwrap();
        let config = tls::tests::server(&chain, &PKI.key.pkcs8_pem(), Some(PKI.root.certificate_pem()), &[version]);
        let port = tls_peer_with(config, silence).await;
        for (dialer, about) in [
            (
                with_certificate(&stranger, VALID),
                "its issuer is not known there, or the chain is incomplete (TLS alert UnknownCA)",
            ),
            (with_certificate(&PKI.root, EXPIRED), "it has expired (TLS alert CertificateExpired)"),
        ] {
            let answer = refused(connect(&dialer, port, PATIENT).await);
            let body = format!("{{\"message\":\"the peer refuses our client certificate: {about}\"}}");
            assert_eq!(
                (answer.status, answer.connack, String::from_utf8(answer.body).unwrap()),
                (401, None, body),
                "{version:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_sent() {
    let chain = PKI.root.server(&PKI.key, &["localhost".to_owned()], VALID).unwrap();
    let config = tls::tests::server(&chain, &PKI.key.pkcs8_pem(), Some(PKI.root.certificate_pem()), &[&TLS12]);
    let port = tls_peer_with(config, |mut stream| async move {
        packet(&mut stream).await;
        stream.write_all(CONNACK).await.unwrap();
        silence(stream).await;
    })
    .await;
    assert!(connect(&with_certificate(&PKI.root, VALID), port, PATIENT).await.is_ok());
}
