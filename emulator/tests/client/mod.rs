//! A raw client for the tests: bytes over rustls, so that nothing in it knows what a well-behaved client would do.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

pub mod api;
pub mod tpm;

use base64::{Engine, engine::general_purpose::STANDARD};
use dps_emulator::{Config, Emulator, pki::Leaf};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub const SCOPE: &str = "0ne00000000";
pub const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
pub const FILTER: &str = "$dps/registrations/res/#";
pub const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?$rid=1";
/// Longer than any answer takes, on any machine that still works.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to say that nothing was said.
pub const WHILE: Duration = Duration::from_millis(300);

/// An emulator with `[service]` extended by `service`, and these tables.
pub fn emulator(service: &str, tables: &str) -> Emulator {
    let text = format!("[service]\nid_scope = \"{SCOPE}\"\n{service}\n{tables}");
    Emulator::start(Config::from_toml(&text).unwrap()).unwrap()
}

/// An enrollment `gw` with [`KEY`], extended by `more`.
pub fn symmetric(more: &str) -> String {
    format!("[[enrollment]]\nregistration_id = \"gw\"\nprimary_key = \"{}\"\n{more}\n", STANDARD.encode(KEY))
}

pub fn user_name(registration_id: &str) -> String {
    format!("{SCOPE}/registrations/{registration_id}/api-version=2021-06-01")
}

#[expect(clippy::disallowed_methods, reason = "tokens are made for the time of day")]
pub fn in_one_hour() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600
}

/// A token for the encoded resource `sr`.
pub fn token(key: &[u8], sr: &str, expiry: u64) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let signature = STANDARD.encode(ring::hmac::sign(&key, format!("{sr}\n{expiry}").as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("SharedAccessSignature sr={sr}&sig={signature}&se={expiry}")
}

pub fn dps_token(registration_id: &str) -> String {
    token(KEY, &format!("{SCOPE}%2Fregistrations%2F{registration_id}"), in_one_hour())
}

pub fn hub_token(hub: &str, device: &str) -> String {
    token(KEY, &format!("{hub}%2Fdevices%2F{device}"), in_one_hour())
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    Silent,
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

pub fn tls_config(emulator: &Emulator, leaf: Option<&Leaf>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(leaf.key.pkcs8_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

pub fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn tls(emulator: &Emulator, port: u16, leaf: Option<&Leaf>) -> Tls {
    let connection = ClientConnection::new(Arc::new(tls_config(emulator, leaf)), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, tcp(port))
}

/// Reads what comes within `patience`, at most `size` bytes.
pub fn read_within(stream: &mut Tls, patience: Duration, size: usize) -> Result<Vec<u8>, End> {
    stream.sock.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = vec![0; size];
    let result = stream.read(&mut buffer);
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    match result {
        Ok(0) => Err(End::Closed),
        Ok(read) => Ok(buffer[..read].to_vec()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(End::Silent),
        Err(_) => Err(End::Closed),
    }
}

/// An MQTT client.
pub struct Mqtt {
    stream: Tls,
    received: Vec<u8>,
    packets: u16,
    websocket: bool,
    frames: Vec<u8>,
}

impl Mqtt {
    pub fn open(emulator: &Emulator, leaf: Option<&Leaf>) -> Self {
        Self::on(tls(emulator, emulator.mqtt_port(), leaf), false)
    }

    pub fn websocket(emulator: &Emulator, leaf: Option<&Leaf>) -> Self {
        let mut stream = tls(emulator, emulator.https_port(), leaf);
        let upgrade = "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(upgrade.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read_within(&mut stream, PATIENCE, 1).unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // RFC 6455 §1.3.
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{head}");
        Self::on(stream, true)
    }

    fn on(stream: Tls, websocket: bool) -> Self {
        Self { stream, received: Vec::new(), packets: 0, websocket, frames: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let result = if self.websocket {
            let size = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            let mask = [1, 2, 3, 4];
            let masked = bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            let head: Vec<u8> = [&[0x82, 0xfe], size.as_slice(), &mask].concat();
            let frame: Vec<u8> = head.into_iter().chain(masked).collect();
            self.stream.write_all(&frame)
        } else {
            self.stream.write_all(bytes)
        };
        // A connection that was closed meanwhile shows when the answer is read.
        let _ = result.and_then(|()| self.stream.flush());
    }

    fn fill(&mut self, patience: Duration) -> Result<(), End> {
        let bytes = read_within(&mut self.stream, patience, 65536)?;
        if !self.websocket {
            self.received.extend(bytes);
            return Ok(());
        }
        self.frames.extend(bytes);
        while let Some((head, size)) = frame(&self.frames) {
            if self.frames.len() < head + size {
                break;
            }
            assert_eq!(self.frames[0], 0x82, "a binary frame");
            self.received.extend(&self.frames[head..head + size]);
            self.frames.drain(..head + size);
        }
        Ok(())
    }

    /// The next packet: its first byte and its body.
    pub fn next(&mut self, patience: Duration) -> Result<(u8, Vec<u8>), End> {
        loop {
            let whole = packet(&self.received).filter(|(head, size)| self.received.len() >= head + size);
            if let Some((head, size)) = whole {
                let packet: Vec<u8> = self.received.drain(..head + size).collect();
                return Ok((packet[0], packet[head..].to_vec()));
            }
            self.fill(patience)?;
        }
    }

    /// Sends CONNECT; the return code.
    pub fn connect(&mut self, client_id: &str, user: &str, password: Option<&str>) -> Result<u8, End> {
        self.connect_raw(4, if password.is_some() { 0xc2 } else { 0x82 }, client_id, user, password)
    }

    pub fn connect_raw(&mut self, level: u8, flags: u8, client_id: &str, user: &str, password: Option<&str>) -> Result<u8, End> {
        self.send(&connect(level, flags, client_id, user, password));
        let (first, body) = self.next(PATIENCE)?;
        assert_eq!((first, body.len()), (0x20, 2));
        Ok(body[1])
    }

    /// Sends SUBSCRIBE; the granted QoS.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<u8, End> {
        self.send(&subscribe(filter, qos));
        let (first, body) = self.next(PATIENCE)?;
        assert_eq!((first, &body[..2]), (0x90, [0, 9].as_slice()));
        Ok(body[2])
    }

    pub fn publish(&mut self, topic: &str, qos: u8, payload: &str) {
        self.packets += 1;
        let packet = publish(topic, qos, self.packets, payload);
        self.send(&packet);
    }

    /// The next PUBLISH: topic and payload. PUBACKs are passed over, QoS 1 is acknowledged.
    pub fn message(&mut self, patience: Duration) -> Result<(String, Vec<u8>), End> {
        loop {
            let (first, body) = self.next(patience)?;
            if first == 0x40 {
                continue;
            }
            assert_eq!(first >> 4, 3, "PUBLISH");
            let size = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8(body[2..2 + size].to_vec()).unwrap();
            let mut payload = body[2 + size..].to_vec();
            if first & 6 == 2 {
                let id: Vec<u8> = payload.drain(..2).collect();
                self.send(&[0x40, 2, id[0], id[1]]);
            }
            return Ok((topic, payload));
        }
    }

    /// Connects as `gw` with a good token and subscribes.
    pub fn ready(emulator: &Emulator) -> Self {
        let mut client = Self::open(emulator, None);
        assert_eq!(client.connect("gw", &user_name("gw"), Some(&dps_token("gw"))), Ok(0));
        assert_eq!(client.subscribe(FILTER, 1), Ok(1));
        client
    }

    /// Registers; topic and JSON of the answer.
    pub fn register(&mut self) -> Result<(String, serde_json::Value), End> {
        self.publish(REGISTER, 1, "");
        self.answer()
    }

    pub fn query(&mut self, operation: &str) -> Result<(String, serde_json::Value), End> {
        let topic = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId={operation}");
        self.publish(&topic, 1, " ");
        self.answer()
    }

    pub fn answer(&mut self) -> Result<(String, serde_json::Value), End> {
        let (topic, payload) = self.message(PATIENCE)?;
        Ok((topic, serde_json::from_slice(&payload).unwrap_or_default()))
    }
}

pub fn connect(level: u8, flags: u8, client_id: &str, user: &str, password: Option<&str>) -> Vec<u8> {
    let mut body = [b"\x00\x04MQTT".as_slice(), &[level, flags, 0, 0]].concat();
    body.extend(string(client_id));
    if flags & 4 != 0 {
        body.extend([string("will"), string("gone")].concat());
    }
    body.extend(string(user));
    body.extend(password.map(string).unwrap_or_default());
    [vec![0x10], length(body.len()), body].concat()
}

pub fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let body = [vec![0, 9], string(filter), vec![qos]].concat();
    [vec![0x82], length(body.len()), body].concat()
}

pub fn publish(topic: &str, qos: u8, id: u16, payload: &str) -> Vec<u8> {
    let id = if qos > 0 { id.to_be_bytes().to_vec() } else { Vec::new() };
    let body = [string(topic), id, payload.as_bytes().to_vec()].concat();
    [vec![0x30 | qos << 1], length(body.len()), body].concat()
}

pub fn string(text: &str) -> Vec<u8> {
    [u16::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()].concat()
}

fn length(size: usize) -> Vec<u8> {
    assert!(size < 128 * 128);
    let (low, high) = (u8::try_from(size % 128).unwrap(), u8::try_from(size / 128).unwrap());
    if high == 0 { vec![low] } else { vec![low | 0x80, high] }
}

/// Header and body lengths of the first packet.
fn packet(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut size = 0;
    for (position, byte) in bytes.iter().skip(1).take(4).enumerate() {
        size |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((position + 2, size));
        }
    }
    None
}

/// Header and payload lengths of the first WebSocket frame from a server.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes {
        [_, 126, high, low, ..] => Some((4, usize::from(u16::from_be_bytes([*high, *low])))),
        [_, 127, ..] => {
            let size = bytes.get(2..10)?.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
            Some((10, size))
        }
        [_, size, ..] if *size < 126 => Some((2, usize::from(*size))),
        _ => None,
    }
}

/// One HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Sends one request on `stream` and reads one response.
pub fn exchange(stream: &mut Tls, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Result<Response, End> {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    response(stream)
}

pub fn response(stream: &mut Tls) -> Result<Response, End> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        bytes.extend(read_within(stream, PATIENCE, 1)?);
    };
    let mut response = Response { status: 0, head: String::from_utf8(bytes[..head].to_vec()).unwrap(), body: Vec::new() };
    response.status = response.head[9..12].parse().unwrap();
    let size = response.header("content-length").map_or(0, |size| size.parse().unwrap());
    while response.body.len() < size {
        let left = size - response.body.len();
        response.body.extend(read_within(stream, PATIENCE, left)?);
    }
    Ok(response)
}

/// The usual headers of a good request of `gw`.
pub fn https_register(emulator: &Emulator) -> Result<Response, End> {
    let mut stream = tls(emulator, emulator.https_port(), None);
    put(&mut stream, "gw", &dps_token("gw"))
}

pub fn put(stream: &mut Tls, registration_id: &str, token: &str) -> Result<Response, End> {
    let target = format!("/{SCOPE}/registrations/{registration_id}/register?api-version=2021-06-01");
    let body = format!("{{\"registrationId\":\"{registration_id}\"}}");
    exchange(stream, "PUT", &target, &[("Authorization", token), ("Content-Type", "application/json")], &body)
}
