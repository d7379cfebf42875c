//! MQTT 3.1.1 packets as a server reads and writes them, refusing whatever the standard calls malformed.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest packet that is read: an IoT Hub message may have 256 KiB (hub connection §2).
const LARGEST: usize = 256 * 1024 + 1024;

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    Publish(Publish),
    PubAck,
    Subscribe { id: u16, filters: Vec<(String, u8)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect,
}

/// CONNECT, MQTT 3.1.1 §3.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) level: u8,
    pub(crate) clean_session: bool,
    pub(crate) keep_alive: u16,
    pub(crate) client_id: String,
    pub(crate) has_will: bool,
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<String>,
}

/// PUBLISH, MQTT 3.1.1 §3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) id: u16,
    pub(crate) payload: Vec<u8>,
}

/// Why reading from a client ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the client closed the connection")]
    Closed,
    #[error("no packet within one and a half keep-alive times")]
    KeepAlive,
    #[error("malformed MQTT packet: {0}")]
    Malformed(&'static str),
}

/// A connection that carries MQTT packets.
pub(crate) struct Wire<S> {
    stream: S,
    received: Vec<u8>,
    patience: Option<std::time::Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: Vec::new(), patience: None }
    }

    /// From now on a client is silent too long after 1.5 times `keep_alive` seconds; 0 is for ever.
    pub(crate) fn set_keep_alive(&mut self, keep_alive: u16) {
        let patience = std::time::Duration::from_millis(u64::from(keep_alive) * 1500);
        self.patience = (keep_alive > 0).then_some(patience);
    }

    /// The next packet. Safe to drop while it waits: what was read stays.
    pub(crate) async fn next(&mut self) -> Result<Packet, ReadError> {
        let Some(patience) = self.patience else {
            return self.read().await;
        };
        tokio::time::timeout(patience, self.read()).await.unwrap_or(Err(ReadError::KeepAlive))
    }

    async fn read(&mut self) -> Result<Packet, ReadError> {
        loop {
            if let Some(packet) = decode(&mut self.received)? {
                return Ok(packet);
            }
            self.received.reserve(8 * 1024);
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return Err(ReadError::Closed),
                Ok(_) => {}
            }
        }
    }

    /// Whether the client has already begun another PUBLISH.
    pub(crate) fn has_more_publish(&self) -> bool {
        let mut rest = self.received.as_slice();
        while let Ok(Some((header, size))) = frame(rest) {
            if rest[0] >> 4 == 3 {
                return true;
            }
            rest = &rest[header + size..];
        }
        rest.first().is_some_and(|first| first >> 4 == 3)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Keeps the connection open and says nothing until the client goes.
    pub(crate) async fn hold(&mut self) {
        let mut sink = [0; 1024];
        while matches!(self.stream.read(&mut sink).await, Ok(read) if read > 0) {}
    }
}

/// CONNACK, §3.2; a session is never present.
pub(crate) fn connack(code: u8) -> Vec<u8> {
    vec![0x20, 2, 0, code]
}

/// PUBLISH, §3.3, with the identifier `id` when `qos` is 1.
pub(crate) fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    let mut packet = vec![0x30 | qos << 1];
    packet.extend(length(body.len()));
    packet.extend(body);
    packet
}

/// PUBACK, §3.4.
pub(crate) fn puback(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0x40, 2, high, low]
}

/// SUBACK, §3.9.
pub(crate) fn suback(id: u16, codes: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90];
    packet.extend(length(2 + codes.len()));
    packet.extend(id.to_be_bytes());
    packet.extend(codes);
    packet
}

/// UNSUBACK, §3.11.
pub(crate) fn unsuback(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0xb0, 2, high, low]
}

/// PINGRESP, §3.13.
pub(crate) const PINGRESP: [u8; 2] = [0xd0, 0];

fn string(text: &str) -> Vec<u8> {
    let size = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend(text.bytes().take(usize::from(size)));
    bytes
}

fn length(mut size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = u8::try_from(size % 128).unwrap_or(0);
        size /= 128;
        bytes.push(if size > 0 { digit | 0x80 } else { digit });
        if size == 0 {
            return bytes;
        }
    }
}

/// Takes one packet off the front of `received`, if it is all there.
fn decode(received: &mut Vec<u8>) -> Result<Option<Packet>, ReadError> {
    let Some((header, size)) = frame(received)? else {
        return Ok(None);
    };
    let rest = received.split_off(header + size);
    let packet = std::mem::replace(received, rest);
    packet_from(packet[0], Fields(&packet[header..])).map(Some).map_err(ReadError::Malformed)
}

/// The lengths of fixed header and body of the first packet, once both are there.
fn frame(received: &[u8]) -> Result<Option<(usize, usize)>, ReadError> {
    let mut size = 0;
    for (position, byte) in received.iter().skip(1).take(4).enumerate() {
        size |= usize::from(byte & 0x7f) << (7 * position);
        if size > LARGEST {
            return Err(ReadError::Malformed("packet above 257 KiB"));
        }
        if byte & 0x80 == 0 {
            let header = position + 2;
            return Ok((received.len() >= header + size).then_some((header, size)));
        }
    }
    if received.len() > 4 { Err(ReadError::Malformed("remaining length of five bytes")) } else { Ok(None) }
}

fn packet_from(first: u8, mut body: Fields<'_>) -> Result<Packet, &'static str> {
    let packet = match (first >> 4, first & 0x0f) {
        (1, 0) => Packet::Connect(connect(&mut body)?),
        (3, flags) => Packet::Publish(publish_from(flags, &mut body)?),
        (4, 0) => {
            body.number()?;
            Packet::PubAck
        }
        (8, 2) => {
            let id = body.identifier()?;
            Packet::Subscribe { id, filters: body.list(|body| Ok((body.text()?, body.qos()?)))? }
        }
        (10, 2) => {
            let id = body.identifier()?;
            Packet::Unsubscribe { id, filters: body.list(Fields::text)? }
        }
        (12, 0) => Packet::PingReq,
        (14, 0) => Packet::Disconnect,
        _ => return Err("packet type or flags that a client may not send"),
    };
    if body.0.is_empty() { Ok(packet) } else { Err("bytes left over at the end") }
}

fn connect(body: &mut Fields<'_>) -> Result<Connect, &'static str> {
    if body.text()? != "MQTT" {
        return Err("protocol name is not MQTT");
    }
    let level = body.byte()?;
    let flags = body.byte()?;
    let keep_alive = body.number()?;
    if flags & 1 != 0 || (flags & 0x40 != 0 && flags & 0x80 == 0) || flags & 0x18 == 0x18 {
        return Err("CONNECT flags that exclude one another");
    }
    let client_id = body.text()?;
    let has_will = flags & 4 != 0;
    if has_will {
        body.text()?;
        body.bytes()?;
    }
    let user_name = (flags & 0x80 != 0).then(|| body.text()).transpose()?;
    let password = (flags & 0x40 != 0).then(|| body.text()).transpose()?;
    Ok(Connect { level, clean_session: flags & 2 != 0, keep_alive, client_id, has_will, user_name, password })
}

fn publish_from(flags: u8, body: &mut Fields<'_>) -> Result<Publish, &'static str> {
    let qos = flags >> 1 & 3;
    if qos == 3 || (qos == 0 && flags & 8 != 0) {
        return Err("QoS and DUP flags of PUBLISH");
    }
    let topic = body.text()?;
    if topic.is_empty() || topic.contains(['#', '+']) {
        return Err("topic name that is empty or has a wildcard");
    }
    let id = if qos > 0 { body.identifier()? } else { 0 };
    Ok(Publish { topic, qos, retain: flags & 1 != 0, id, payload: std::mem::take(&mut body.0).to_vec() })
}

/// What is left of a packet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let (first, rest) = self.0.split_first().ok_or("packet too short")?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u16, &'static str> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn identifier(&mut self) -> Result<u16, &'static str> {
        self.number().and_then(|id| if id == 0 { Err("packet identifier 0") } else { Ok(id) })
    }

    fn qos(&mut self) -> Result<u8, &'static str> {
        self.byte().and_then(|qos| if qos > 2 { Err("QoS above 2") } else { Ok(qos) })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, &'static str> {
        let size = usize::from(self.number()?);
        let (bytes, rest) = self.0.split_at_checked(size).ok_or("packet too short")?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    fn text(&mut self) -> Result<String, &'static str> {
        let text = String::from_utf8(self.bytes()?).map_err(|_| "string that is not UTF-8")?;
        if text.contains('\0') { Err("string with a null character") } else { Ok(text) }
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Result<T, &'static str>) -> Result<Vec<T>, &'static str> {
        let mut items = Vec::new();
        while !self.0.is_empty() {
            items.push(one(self)?);
        }
        if items.is_empty() { Err("SUBSCRIBE or UNSUBSCRIBE without a filter") } else { Ok(items) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_byte_by_byte() {
        let packet = b"\x10\x16\x00\x04MQTT\x04\xc2\x00\x3c\x00\x02gw\x00\x02us\x00\x02pw";
        let mut received = Vec::new();
        for byte in &packet[..packet.len() - 1] {
            received.push(*byte);
            assert!(decode(&mut received).unwrap().is_none());
        }
        received.extend([packet[packet.len() - 1], 0xc0]);
        let connect = Connect {
            level: 4,
            clean_session: true,
            keep_alive: 60,
            client_id: "gw".to_owned(),
            has_will: false,
            user_name: Some("us".to_owned()),
            password: Some("pw".to_owned()),
        };
        assert_eq!(decode(&mut received).unwrap(), Some(Packet::Connect(connect)));
        assert_eq!(received, [0xc0]);
    }

    #[test]
    fn malformed_packets_are_refused() {
        let cases: [&[u8]; 14] = [
            b"\x00\x00",
            b"\xf0\x00",
            b"\x20\x02\x00\x00",
            b"\xc1\x00",
            b"\xc0\x01\x00",
            b"\x10\x04\x00\x02MQ",
            b"\x10\x0c\x00\x04MQTT\x04\x01\x00\x00\x00\x00",
            b"\x10\x0c\x00\x04MQTT\x04\x40\x00\x00\x00\x00",
            b"\x36\x05\x00\x01a\x00\x01",
            b"\x32\x05\x00\x01a\x00\x00",
            b"\x30\x03\x00\x01#",
            b"\x82\x02\x00\x01",
            b"\x80\x06\x00\x01\x00\x01a\x01",
            b"\xff\xff\xff\xff\xff\x00",
        ];
        for case in cases {
            assert!(decode(&mut case.to_vec()).is_err(), "{case:x?}");
        }
    }

    #[test]
    fn lengths_of_one_to_three_bytes() {
        for size in [0, 127, 128, 16_383, 16_384, 200_000] {
            let packet = publish("t", 0, 0, &vec![7; size]);
            let Ok(Some(Packet::Publish(read))) = decode(&mut packet.clone()) else { panic!("{size}") };
            assert_eq!((read.topic.as_str(), read.payload.len()), ("t", size));
        }
    }
}
