//! Identifiers that cannot be wrong: parsed once, where they come in (DPS device API §2).

use std::fmt;
use std::str::FromStr;

/// The name under which a device registers, or of an enrollment group, which follows the same rule: 1 to 128 characters of
/// `A-Z a-z 0-9 - . _ :`, the last one alphanumeric or a dash. The service compares without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentId(String);

impl EnrollmentId {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// By this the service tells two of them apart.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for EnrollmentId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        if text.is_empty() || text.len() > 128 {
            return Err(format!("registration ID {shown:?}: it has 1 to 128 characters"));
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c)) {
            return Err(format!("registration ID {shown:?}: it consists of letters, digits and '-', '.', '_', ':'"));
        }
        if text.ends_with(['.', '_', ':']) {
            return Err(format!("registration ID {shown:?}: its last character is a letter, a digit or a dash"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EnrollmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a device at its hub: 1 to 128 letters, digits and `- : . + % _ # * ? ! ( ) , = @ $ '`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceId(String);

impl DeviceId {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@$'".contains(c);
        if text.is_empty() || text.len() > 128 || !text.chars().all(legal) {
            let shown: String = text.chars().take(80).collect();
            return Err(format!("device ID {shown:?}: it is 1 to 128 letters, digits and - : . + % _ # * ? ! ( ) , = @ $ '"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_the_documented_rule() {
        for good in ["a", "gw-0001", "e0:12:34", "a-", ".dev", "sn_1.2", &"x".repeat(128)] {
            assert_eq!(good.parse::<EnrollmentId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "a.", "a_", "a:", "ä", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<EnrollmentId>().is_err(), "{bad:?}");
        }
        assert_eq!("Gw-1".parse::<EnrollmentId>().unwrap().folded(), "gw-1");
    }

    #[test]
    fn a_device_id_cannot_break_out_of_a_text() {
        for bad in ["", "a/b", "a b", "a\"b", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?}");
        }
        assert!("gw#1@line".parse::<DeviceId>().is_ok());
    }
}
