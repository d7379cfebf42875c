//! HTTPS against scripted peers.

use super::*;
use crate::transport::https::{Call, Session, Verb, open};

fn register() -> Call {
    Call { path: "/scope/registrations/gw%3A1/register?api-version=2021-06-01".to_owned(), verb: Verb::Put(b"{}".to_vec()) }
}

fn query() -> Call {
    Call { path: "/scope/registrations/gw%3A1/operations/4.x?api-version=2021-06-01".to_owned(), verb: Verb::Get }
}

async fn connect(dialer: &Dialer, port: u16) -> Session {
    open(dialer, &localhost(), port, within(PATIENT)).await.map_err(|failure| format!("{failure:?}")).unwrap()
}

async fn ask(port: u16, limit: Duration) -> Result<Answer, Failure> {
    connect(&dialer(), port).await.ask(query(), None, within(limit)).await
}

/// Answers each request on each connection with these bytes.
async fn answering(response: impl Into<Vec<u8>>) -> u16 {
    let response: Vec<u8> = response.into();
    tls_peer(move |mut stream| {
        let response = response.clone();
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            // The client may hang up while it is still being written.
            let _ = stream.write_all(&response).await;
            silence(stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn the_requests_are_the_documented_ones_on_one_connection() {
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let port = tls_peer(move |mut stream| {
        let send = send.clone();
        async move {
            let mut register = read_until(&mut stream, b"\r\n\r\n").await;
            register.extend([stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap()]);
            send.send(String::from_utf8(register).unwrap()).unwrap();
            let head = "HTTP/1.1 202 Accepted\r\nRetry-After: 3\r\nDate: Mon, 23 Nov 2026 21:00:00 GMT\r\n";
            stream.write_all(format!("{head}Content-Length: 5\r\n\r\nfirst").as_bytes()).await.unwrap();
            send.send(String::from_utf8(read_until(&mut stream, b"\r\n\r\n").await).unwrap()).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
            silence(stream).await;
        }
    })
    .await;
    let mut session = connect(&dialer(), port).await;
    let token = Secret::new("SharedAccessSignature sr=x".to_owned());
    let first = session.ask(register(), Some(&token), within(PATIENT)).await.unwrap();
    let date = Some("Mon, 23 Nov 2026 21:00:00 GMT".to_owned());
    assert_eq!(first, Answer { status: 202, connack: None, retry_after: Some("3".to_owned()), date, body: b"first".to_vec() });
    assert!(!session.has_ended());
    let second = session.ask(query(), None, within(PATIENT)).await.unwrap();
    assert_eq!(second, Answer { status: 200, body: b"second".to_vec(), ..Answer::default() });
    session.close().await;
    let register = format!(
        "PUT /scope/registrations/gw%3A1/register?api-version=2021-06-01 HTTP/1.1\r\nhost: localhost:{port}\r\n\
         user-agent: {AGENT}\r\naccept: application/json\r\ncontent-type: application/json; charset=utf-8\r\n\
         authorization: SharedAccessSignature sr=x\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    assert_eq!(seen.recv().await.unwrap(), register);
    let query = format!(
        "GET /scope/registrations/gw%3A1/operations/4.x?api-version=2021-06-01 HTTP/1.1\r\nhost: localhost:{port}\r\n\
         user-agent: {AGENT}\r\naccept: application/json\r\n\r\n"
    );
    assert_eq!(seen.recv().await.unwrap(), query);
}

#[tokio::test]
async fn a_body_may_have_131072_bytes_and_no_more() {
    let too_large = Lost::Nonsense("it is larger than 131072 bytes".to_owned());
    for (length, fits) in [(131_072, true), (131_073, false)] {
        let body = "x".repeat(length);
        for response in [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ] {
            let result = ask(answering(response).await, PATIENT).await;
            match fits {
                true => assert_eq!(result.unwrap().body.len(), length),
                false => assert_eq!(lost(result), too_large),
            }
        }
    }
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let port = tls_peer(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    assert_eq!(lost(ask(port, PATIENT).await), Lost::Nonsense("it is larger than 131072 bytes".to_owned()));
}

#[tokio::test]
async fn a_redirection_makes_no_sense_and_is_told_with_its_host() {
    let port = answering("HTTP/1.1 302 Found\r\nLocation: https://login.example/portal?x\r\nContent-Length: 0\r\n\r\n").await;
    let expected = "the answer makes no sense: a redirection to login.example: something answers in the service's place, such as a captive portal";
    assert_eq!(lost(ask(port, PATIENT).await).to_string(), expected);
}

#[tokio::test]
async fn silence_ends_with_the_deadline_wherever_it_begins() {
    for response in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"] {
        let port = answering(response).await;
        let told = unreachable_at(ask(port, BRIEF).await);
        assert_eq!(told, (Stage::Reply, format!("no answer within 0.7 s from localhost:{port}")), "{response:?}");
    }
}

#[tokio::test]
async fn a_hang_up_is_told_and_with_a_client_certificate_suspected() {
    for response in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"] {
        let port = tls_peer(move |mut stream| async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            stream.write_all(response.as_bytes()).await.unwrap();
        })
        .await;
        assert_eq!(unreachable_at(ask(port, PATIENT).await).0, Stage::Reply, "{response:?}");
        let mut session = connect(&with_certificate(&PKI.root, VALID), port).await;
        let (stage, why) = unreachable_at(session.ask(query(), None, within(PATIENT)).await);
        assert_eq!(stage, Stage::Certificate);
        assert!(why.starts_with(&format!("localhost:{port} hung up before its first answer (")), "{why}");
        assert!(why.contains("use transport = \"mqtt\""), "{why}");
    }
}

#[tokio::test]
async fn after_a_first_answer_a_hang_up_is_the_networks_fault() {
    let port = tls_peer(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        read_until(&mut stream, b"\r\n\r\n").await;
    })
    .await;
    let mut session = connect(&with_certificate(&PKI.root, VALID), port).await;
    session.ask(query(), None, within(PATIENT)).await.unwrap();
    assert_eq!(unreachable_at(session.ask(query(), None, within(PATIENT)).await).0, Stage::Reply);
}

#[tokio::test]
async fn what_is_no_http_makes_no_sense() {
    let port = answering("\x20\x02\x00\x00 this is MQTT, or what it may be\r\n\r\n").await;
    assert!(matches!(lost(ask(port, PATIENT).await), Lost::Nonsense(_)));
}

#[tokio::test]
async fn an_idle_connection_that_the_service_ended_is_noticed() {
    let port = tls_peer(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let mut session = connect(&dialer(), port).await;
    session.ask(query(), None, within(PATIENT)).await.unwrap();
    let noticed = async {
        while !session.has_ended() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENT, noticed).await.unwrap();
}

#[tokio::test]
async fn a_refused_client_certificate_is_a_401() {
    let stranger = Authority::root("Stranger", Algorithm::EcP256).unwrap();
    let chain = PKI.root.server(&PKI.key, &["localhost".to_owned()], VALID).unwrap();
    // With TLS 1.3 the alert comes in place of the answer.
    let config = tls::tests::server(&chain, &PKI.key.pkcs8_pem(), Some(PKI.root.certificate_pem()), &[&TLS13]);
    let port = tls_peer_with(config, silence).await;
    let mut session = connect(&with_certificate(&stranger, VALID), port).await;
    let answer = refused(session.ask(query(), None, within(PATIENT)).await);
    assert_eq!(answer.status, 401);
    assert!(String::from_utf8(answer.body).unwrap().contains("UnknownCA"));
}
