//! Name lookup, TCP, the proxy and certificates.

use std::os::unix::fs::PermissionsExt;

use dps_emulator::pki::{EXPIRED, NOT_YET_VALID};

use super::*;
use crate::config::ProxyCredentials;
use crate::transport::dial;

async fn dial(dialer: &Dialer, port: u16) -> Result<dial::Stream, Failure> {
    dialer.dial(&localhost(), port, within(PATIENT)).await
}

fn through(port: u16, credentials_file: Option<PathBuf>) -> Dialer {
    let proxy = Proxy {
        host: "127.0.0.1".parse().unwrap(),
        port,
        credentials: credentials_file.map(ProxyCredentials::File),
        except: Vec::new(),
    };
    Dialer { proxy: Some(proxy), ..dialer() }
}

async fn proxy_answering(header: &'static str) -> u16 {
    peer(move |mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(header.as_bytes()).await.unwrap();
        silence(stream).await;
    })
    .await
}

fn secret(text: &str, mode: u32) -> PathBuf {
    let path = scratch("proxy", text.as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[tokio::test]
async fn a_certificate_must_be_ours_to_trust_today_and_for_this_host() {
    let why = |name: &'static str, days| async move {
        let port = tls_peer_with(PKI.server(name, days), silence).await;
        lost(dial(&dialer(), port).await)
    };
    let Lost::Untrusted { host, why: words } = why("localhost", EXPIRED).await else { panic!() };
    assert_eq!(host, "localhost");
    assert!(words.starts_with("it expired on ") && words.contains("; our clock says "), "{words}");
    let Lost::Untrusted { why: words, .. } = why("other.example", VALID).await else { panic!() };
    assert_eq!(words, "it is for DnsName(\"other.example\"); check the host name, and who answers there");
    let Lost::NotYetValid { why: words, .. } = why("localhost", NOT_YET_VALID).await else { panic!() };
    assert!(words.starts_with("it begins on ") && words.contains("; our clock says "), "{words}");
}

#[tokio::test]
async fn the_issuer_that_nobody_vouches_for_is_named() {
    let stranger = Authority::root("Inspecting Firewall", Algorithm::EcP256).unwrap();
    let chain = stranger.server(&PKI.key, &["localhost".to_owned()], VALID).unwrap();
    let port = tls_peer_with(tls::tests::server(&chain, &PKI.key.pkcs8_pem(), None, &[&TLS12]), silence).await;
    let Lost::Untrusted { why, .. } = lost(dial(&dialer(), port).await) else { panic!() };
    assert_eq!(
        why,
        "its issuer \"CN=Inspecting Firewall\" is not trusted; if this network inspects TLS or the service is a private one, \
         put that CA into ca_file"
    );
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    let chain = PKI.root.server(&PKI.key, &["localhost".to_owned()], VALID).unwrap();
    for version in [&TLS12, &TLS13] {
        let port = tls_peer_with(tls::tests::server(&chain, &PKI.key.pkcs8_pem(), None, &[version]), silence).await;
        let stream = dial(&dialer(), port).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert!(stream.get_ref().0.nodelay().unwrap());
    }
}

#[tokio::test]
async fn what_speaks_no_tls_fails_the_handshake() {
    let port = peer(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        silence(stream).await;
    })
    .await;
    let (stage, why) = unreachable_at(dial(&dialer(), port).await);
    assert_eq!(stage, Stage::Tls);
    assert!(why.starts_with("the TLS handshake with localhost failed: "), "{why}");
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (stage, why) = unreachable_at(dial(&dialer(), free).await);
    assert_eq!(stage, Stage::Connect);
    assert!(why.starts_with(&format!("localhost:{free} cannot be reached: ")), "{why}");
    let unknown = "no-such-host.invalid".parse().unwrap();
    let (stage, why) = unreachable_at(dialer().dial(&unknown, 8883, within(PATIENT)).await);
    assert_eq!(stage, Stage::Resolve);
    assert!(why.starts_with("the name no-such-host.invalid cannot be looked up: "), "{why}");
}

#[tokio::test]
async fn addresses_that_are_closed_or_dead_do_not_keep_the_next_one_waiting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    // TEST-NET-1: packets to it vanish, or the kernel knows no way; either must do.
    let dead: SocketAddr = "192.0.2.1:8883".parse().unwrap();
    let raced = tokio::time::timeout(PATIENT, dial::race([dead, closed, good].into())).await.unwrap();
    assert_eq!(raced.unwrap().peer_addr().unwrap(), good);
    assert!(dial::race([closed].into()).await.is_err());
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_host_and_shown_the_credentials() {
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = TlsAcceptor::from(PKI.server("localhost", VALID));
    let port = peer(move |mut stream| {
        let (send, server) = (send.clone(), server.clone());
        async move {
            send.send(String::from_utf8(read_until(&mut stream, b"\r\n\r\n").await).unwrap()).unwrap();
            let fields: String = (0..40).map(|number| format!("X-Field-{number}: value\r\n")).collect();
            stream.write_all(format!("HTTP/1.0 200 Connection established\r\n{fields}\r\n").as_bytes()).await.unwrap();
            silence(server.accept(stream).await.unwrap()).await;
        }
    })
    .await;
    dial(&through(port, Some(secret("user:pass word\n", 0o640))), 8883).await.unwrap();
    assert_eq!(
        seen.recv().await.unwrap(),
        format!(
            "CONNECT localhost:8883 HTTP/1.1\r\nHost: localhost:8883\r\nUser-Agent: {AGENT}\r\n\
             Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n"
        )
    );
    dial(&through(port, None), 443).await.unwrap();
    assert!(!seen.recv().await.unwrap().contains("Proxy-Authorization"));
}

#[tokio::test]
async fn what_a_proxy_says_instead_is_told_with_the_cure() {
    let long: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000)).into_boxed_str());
    for (header, words) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "answered CONNECT localhost:8883 with 407: it wants credentials, or other ones: proxy_credentials_file names a file with user:password",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
            "answered CONNECT localhost:8883 with 403: it does not allow this host or port; many proxies allow port 443 only, which transport = \"mqtt-ws\" and \"https\" use",
        ),
        ("HTTP/1.1 503 Busy\r\n\r\n", "answered CONNECT localhost:8883 with 503: it cannot reach the host"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "does not answer CONNECT in HTTP (invalid HTTP version): is it an HTTP proxy?"),
        ("HTTP/1.1 200 OK\r\n\r\nHello", "sent data of its own into the tunnel"),
        (long, "answers CONNECT with an endless header"),
    ] {
        let port = proxy_answering(header).await;
        let (stage, why) = unreachable_at(dial(&through(port, None), 8883).await);
        assert_eq!((stage, why), (Stage::Proxy, format!("the proxy 127.0.0.1:{port} {words}")));
    }
}

#[tokio::test]
async fn a_silent_proxy_and_one_that_hangs_up_are_told() {
    let port = peer(silence).await;
    let dialer = through(port, None);
    let (stage, why) = unreachable_at(dialer.dial(&localhost(), 8883, within(BRIEF)).await);
    assert_eq!((stage, why), (Stage::Proxy, format!("no answer within 0.7 s from the proxy 127.0.0.1:{port}")));
    let port = peer(|mut stream| async move { drop(read_until(&mut stream, b"\r\n\r\n").await) }).await;
    let (stage, why) = unreachable_at(dial(&through(port, None), 8883).await);
    assert_eq!(
        (stage, why),
        (Stage::Proxy, format!("the proxy 127.0.0.1:{port} hung up instead of answering CONNECT localhost:8883"))
    );
}

#[tokio::test]
async fn proxy_credentials_are_for_few_eyes_and_in_one_form() {
    for (text, mode) in
        [("user:password", 0o644), ("user:password", 0o602), ("password", 0o600), ("user:one\ntwo", 0o600), ("", 0o600)]
    {
        let path = secret(text, mode);
        let Lost::Credential(words) = lost(dial(&through(9, Some(path.clone())), 8883).await) else { panic!("{text:?}") };
        assert!(words.contains(path.to_str().unwrap()) && !words.contains("password\n"), "{words}");
    }
}

#[tokio::test]
async fn what_the_proxy_does_not_serve_is_reached_without_it() {
    let port = tls_peer(silence).await;
    let proxy = Proxy { host: localhost(), port: 1, credentials: None, except: vec!["localhost".to_owned()] };
    assert!(dial(&Dialer { proxy: Some(proxy), ..dialer() }, port).await.is_ok());
}
