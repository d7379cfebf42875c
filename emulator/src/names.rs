//! Names as they stand on the wire: registration IDs, MQTT user names and percent-encoding.

/// Tells whether `text` is a legal registration ID (DPS device API §2, the documented rule): 1 to 128 of
/// `A-Z a-z 0-9 - . _ :`, the last one alphanumeric or a dash.
pub fn is_registration_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    (1..=128).contains(&text.len())
        && text.bytes().all(legal)
        && text.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric() || last == b'-')
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
        Some(Self::Dps { scope: scope.to_owned(), registration_id: id.to_owned(), api_version: api_version.to_owned() })
    }

    fn hub(hub: &str, device: &str, query: &str) -> Option<Self> {
        let api_version = parameter(query, "api-version").filter(|version| !version.is_empty())?;
        let named = !hub.is_empty() && !device.is_empty();
        named.then(|| Self::Hub { hub: hub.to_owned(), device_id: device.to_owned(), api_version })
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
        decoded.push(if byte == b'%' { hex(bytes.next()?)? << 4 | hex(bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap()
    }

    #[test]
    fn the_documented_rule_for_registration_ids() {
        let rule = &vectors()["registration_id_rule"];
        for id in rule["accept"].as_array().unwrap() {
            assert!(is_registration_id(id.as_str().unwrap()), "{id}");
        }
        for id in rule["reject"].as_array().unwrap() {
            assert!(!is_registration_id(id.as_str().unwrap()), "{id}");
        }
        for case in rule["sources_disagree"].as_array().unwrap() {
            assert_eq!(is_registration_id(case["value"].as_str().unwrap()), case["docs_prose"], "{case}");
        }
    }

    #[test]
    fn percent_encoding_of_the_vectors() {
        for case in vectors()["url_encoding"]["cases"].as_array().unwrap() {
            let plain = case["registration_id"].as_str().unwrap();
            assert_eq!(percent_encode(plain), case["rfc3986_upper"], "{case}");
            for spelling in ["rfc3986_upper", "rfc3986_lower"] {
                assert_eq!(percent_decode(case[spelling].as_str().unwrap()).as_deref(), Some(plain), "{case}");
            }
        }
        for broken in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(percent_decode(broken), None, "{broken}");
        }
        assert_eq!(percent_decode("a+b").as_deref(), Some("a+b"));
    }

    #[test]
    fn user_names_of_the_vectors() {
        for case in vectors()["mqtt"]["connect"].as_array().unwrap() {
            let user = UserName::parse(case["username"].as_str().unwrap());
            let Some(UserName::Dps { scope, registration_id, api_version }) = user else { panic!("{case}") };
            assert_eq!(registration_id, case["client_id"], "{case}");
            let plain = format!("{scope}/registrations/{registration_id}/api-version={api_version}");
            assert!(case["username"].as_str().unwrap().starts_with(&plain), "{case}");
        }
        let device = vectors()["hub_mqtt"][0]["username"].as_str().map(UserName::parse);
        let hub = UserName::Hub {
            hub: "contoso.azure-devices.net".to_owned(),
            device_id: "my-device-01".to_owned(),
            api_version: "2021-04-12".to_owned(),
        };
        assert_eq!(device, Some(Some(hub)));
    }

    #[test]
    fn what_is_no_user_name() {
        for text in [
            "",
            "0ne/registrations/gw",
            "0ne/registrations/gw/?api-version=2021-06-01",
            "0ne/registrations/gw/api-version=2021-06-01&evil=1",
            "0ne/registrations/gw/api-version=2021-06-01&ClientVersion=%zz",
            "0ne/registrations/gw/api-version=2021-06-01&ClientVersion=a&b=c",
            "hub/gw/api-version=2021-04-12",
            "hub/gw/?x=1",
            "hub/gw/?api-version=",
            "/gw/?api-version=2021-04-12",
            "hub/gw/module/?api-version=2021-04-12",
        ] {
            assert_eq!(UserName::parse(text), None, "{text}");
        }
    }
}
