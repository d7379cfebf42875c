//! Names as they stand on the wire: registration IDs, MQTT user names and percent-encoding.

/// Tells whether `text` is a legal registration ID (DPS device API §2, the documented rule): 1 to 128 of
/// `A-Z a-z 0-9 - . _ :`, the last one alphanumeric or a dash.
pub fn is_registration_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    (1..=128).contains(&text.len())
        && text.bytes().all(legal)
        && text
            .bytes()
            .last()
            .is_some_and(|last| last.is_ascii_alphanumeric() || last == b'-')
}

/// What the user name of an MQTT CONNECT asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserName {
    /// `{scope}/registrations/{registrationId}/api-version=…[&ClientVersion=…]` (DPS device API §5.1).
    Dps {
        /// The ID scope.
        scope: String,
        /// The registration ID, as spelled by the client.
        registration_id: String,
        /// The value of `api-version`.
        api_version: String,
    },
    /// `{hub}/{deviceId}/?api-version=…` (hub connection §2). Modules have no identity here.
    Hub {
        /// The hub's host name, as spelled by the client.
        hub: String,
        /// The device ID.
        device_id: String,
        /// The value of `api-version`, never empty.
        api_version: String,
    },
}

impl UserName {
    /// Reads a user name; `None` when it has neither form.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [scope, "registrations", id, query] => Self::dps(scope, id, query),
            [hub, device, query] => Self::hub(hub, device, query.strip_prefix('?')?),
            _ => None,
        }
    }

    fn dps(scope: &str, id: &str, query: &str) -> Option<Self> {
        let api_version = match query.split_once('&') {
            None => query.strip_prefix("api-version=")?,
            Some((first, rest)) => {
                let agent = rest.strip_prefix("ClientVersion=")?;
                percent_decode(agent).filter(|_| !agent.contains('&'))?;
                first.strip_prefix("api-version=")?
            }
        };
        Some(Self::Dps {
            scope: scope.to_owned(),
            registration_id: id.to_owned(),
            api_version: api_version.to_owned(),
        })
    }

    fn hub(hub: &str, device: &str, query: &str) -> Option<Self> {
        let api_version = parameter(query, "api-version").filter(|version| !version.is_empty())?;
        let named = !hub.is_empty() && !device.is_empty();
        named.then(|| Self::Hub {
            hub: hub.to_owned(),
            device_id: device.to_owned(),
            api_version,
        })
    }
}

/// The decoded value of the first parameter called `name` in `a=b&c=d`.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| percent_decode(value))?
    })
}

/// Encodes everything but the unreserved characters of RFC 3986, with upper-case digits.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Decodes `%XX` in either case; `+` stays a plus. `None` for a broken escape or text that is no UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            hex(bytes.next()?)? << 4 | hex(bytes.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
