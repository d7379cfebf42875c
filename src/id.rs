//! Identifiers that cannot be wrong: each is parsed at the edge, once, or does not exist.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// Why a text is not the identifier it was meant to be. The message names the rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {text:?}: {rule}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    rule: String,
}

impl InvalidId {
    fn new(what: &'static str, text: &str, rule: impl Into<String>) -> Self {
        // A peer may send megabytes where a name should be; the message stays readable.
        let text = text.chars().take(80).collect();
        Self { what, text, rule: rule.into() }
    }

    /// The rule that was broken, in words.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The identifier as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The tenant at the global endpoint, such as `0ne00000000`. Opaque: only its characters are checked (DPS device API, identifiers).
    IdScope
}

text_id! {
    /// The name under which a device registers (DPS device API, identifiers).
    ///
    /// 1 to 128 characters of `A-Z a-z 0-9 - . _ :`, the last one alphanumeric or a dash. The service compares without
    /// regard to case, but a key derived from a group key depends on the exact spelling, so the spelling is kept.
    RegistrationId
}

text_id! {
    /// The service's name for a registration in progress. Opaque, never empty.
    OperationId
}

text_id! {
    /// The name of a device at its IoT Hub: 1 to 128 characters of ASCII letters, digits and `- : . + % _ # * ? ! ( ) , = @ $ '`.
    DeviceId
}

text_id! {
    /// A host name or an IP literal, without port, path or user. Case is kept: the hub's name goes into tokens as it was received.
    HostName
}

impl FromStr for IdScope {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 128 || !text.chars().all(legal) {
            let rule = "an ID scope is 1 to 128 letters, digits, '-', '_' or '.', as the DPS overview page shows it (such as 0ne00000000)";
            return Err(InvalidId::new("ID scope", text, rule));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for RegistrationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = |rule: &str| Err(InvalidId::new("registration ID", text, rule));
        if text.is_empty() || text.len() > 128 {
            return invalid("a registration ID has 1 to 128 characters");
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c)) {
            return invalid("a registration ID consists of letters, digits and '-', '.', '_', ':'");
        }
        if text.ends_with(['.', '_', ':']) {
            return invalid("the last character of a registration ID is a letter, a digit or a dash");
        }
        Ok(Self(text.to_owned()))
    }
}

impl RegistrationId {
    /// True where the documents disagree whether the service takes this ID: it leaves `^[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?$`.
    pub fn is_disputed(&self) -> bool {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !self.0.chars().all(plain) || self.0.starts_with('-') || self.0.ends_with('-')
    }

    /// Whether the service would take both for the same registration.
    pub fn same_as(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl FromStr for OperationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // It goes into a topic and a path, so nothing that could end either.
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._:~".contains(c);
        if text.is_empty() || text.len() > 256 || !text.chars().all(legal) {
            let rule = "an operation ID is 1 to 256 letters, digits and '-', '.', '_', ':', '~'";
            return Err(InvalidId::new("operation ID", text, rule));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for DeviceId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@$'".contains(c);
        if text.is_empty() || text.len() > 128 || !text.chars().all(legal) {
            let rule = "a device ID is 1 to 128 letters, digits and - : . + % _ # * ? ! ( ) , = @ $ '";
            return Err(InvalidId::new("device ID", text, rule));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for HostName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let literal = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if text.len() > 253 || !text.split('.').all(label) {
            let rule =
                "a host name is labels of letters, digits and '-' joined by dots, or an IP address; without scheme, port or path";
            return Err(InvalidId::new("host name", text, rule));
        }
        Ok(Self(text.to_owned()))
    }
}

impl HostName {
    /// The name as a URL or an `authority` has it: an IPv6 address in brackets.
    pub fn in_url(&self) -> String {
        if self.0.contains(':') { format!("[{}]", self.0) } else { self.0.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_id_follows_the_documented_rule() {
        for good in ["a", "A", "gw-0001", "e0:12:34", "a-", "-dev", ".dev", "sn_1.2", &"x".repeat(128)] {
            assert_eq!(good.parse::<RegistrationId>().unwrap().as_str(), good);
        }
        for (bad, rule) in [
            ("", "a registration ID has 1 to 128 characters"),
            (&*"x".repeat(129), "a registration ID has 1 to 128 characters"),
            ("dev 01", "a registration ID consists of letters, digits and '-', '.', '_', ':'"),
            ("dév", "a registration ID consists of letters, digits and '-', '.', '_', ':'"),
            ("dev.", "the last character of a registration ID is a letter, a digit or a dash"),
        ] {
            assert_eq!(bad.parse::<RegistrationId>().unwrap_err().rule(), rule, "{bad:?}");
        }
    }

    #[test]
    fn ids_about_which_the_documents_disagree_are_known() {
        let disputed = |text: &str| text.parse::<RegistrationId>().unwrap().is_disputed();
        for plain in ["a", "gw-0001", "0"] {
            assert!(!disputed(plain), "{plain}");
        }
        for odd in ["A", "a-", "-a", "a:b", "a.b", "a_b"] {
            assert!(disputed(odd), "{odd}");
        }
    }

    #[test]
    fn a_hub_name_is_a_host_name_and_nothing_more() {
        for good in ["contoso.azure-devices.net", "MyHub.azure-devices.net", "localhost", "127.0.0.1", "h_1"] {
            assert_eq!(good.parse::<HostName>().unwrap().as_str(), good);
        }
        assert_eq!("[::1]".parse::<HostName>().unwrap().as_str(), "::1");
        assert_eq!("::1".parse::<HostName>().unwrap().in_url(), "[::1]");
        for bad in ["", "hub:8883", "hub/path", "hub\r\nX: y", "https://hub", "a..b", "-a", "u@hub", ".", "hub.", &"a".repeat(64)]
        {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_quotes_what_was_given() {
        assert_eq!(
            "0ne 1".parse::<IdScope>().unwrap_err().to_string(),
            "ID scope \"0ne 1\": an ID scope is 1 to 128 letters, digits, '-', '_' or '.', as the DPS overview page shows it (such as 0ne00000000)"
        );
    }

    #[test]
    fn device_and_operation_ids_cannot_break_out_of_a_topic_or_path() {
        for bad in ["", "a/b", "a b", "a\n", "a\"b", "a;b"] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", "a&b", "a?b", "a#b", "a+b", "../x/"] {
            assert!(bad.parse::<OperationId>().is_err(), "{bad:?}");
        }
        assert!("4.d0a671905ea5b2c8.42d78160-4c78-479e-8be7-61d5e55dac0d".parse::<OperationId>().is_ok());
    }
}
