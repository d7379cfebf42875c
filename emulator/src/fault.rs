//! Faults that the emulator plays on request: their notation, and the queues they are taken from.

use std::time::Duration;

/// Where in a conversation a fault is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Tcp,
    Tls,
    Connect,
    Subscribe,
    /// A call without a token that shows a TPM's keys.
    Challenge,
    Register,
    Query,
    /// The registration status lookup.
    Lookup,
    Hub,
    /// A call of the service API.
    ServiceApi,
    /// A call of the identity provider.
    Entra,
}

impl Stage {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "connect" => Self::Connect,
            "subscribe" => Self::Subscribe,
            "challenge" => Self::Challenge,
            "register" => Self::Register,
            "query" => Self::Query,
            "lookup" => Self::Lookup,
            "hub" => Self::Hub,
            "service-api" => Self::ServiceApi,
            "entra" => Self::Entra,
            _ => return None,
        })
    }

    /// Whether a fault of this kind can be played here at all.
    fn admits(self, misdeed: &Misdeed) -> bool {
        match (self, misdeed) {
            (
                Self::Register | Self::Query | Self::Challenge | Self::Lookup | Self::ServiceApi | Self::Entra,
                Misdeed::Connack(_),
            ) => false,
            (
                Self::Challenge | Self::Lookup | Self::ServiceApi | Self::Entra,
                Misdeed::Delivery(Delivery::StaleRid | Delivery::OnlyStaleRid),
            ) => false,
            (Self::Challenge | Self::Lookup | Self::ServiceApi | Self::Entra, Misdeed::Delivery(_)) => true,
            (Self::Lookup | Self::ServiceApi | Self::Entra, Misdeed::Answer(lie)) => {
                lie.stands_alone() || matches!(lie, Lie::Big(_) | Lie::Dated(_))
            }
            (Self::Challenge, Misdeed::Answer(lie)) => {
                lie.stands_alone() || matches!(lie, Lie::Big(_) | Lie::Dated(_) | Lie::Blob(_))
            }
            (Self::Register | Self::Query, _) | (_, Misdeed::Plain(_)) => true,
            (Self::Connect | Self::Hub, Misdeed::Connack(_)) => true,
            (Self::Connect, Misdeed::Answer(answer)) => answer.stands_alone(),
            (Self::Tcp | Self::Tls | Self::Connect | Self::Subscribe | Self::Hub, _) => false,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// Possible wherever there is a connection.
    Plain(Plain),
    /// The return code of CONNACK.
    Connack(u8),
    /// How a true answer is delivered.
    Delivery(Delivery),
    /// What stands in an answer.
    Answer(Lie),
}

/// Faults of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    Drop,
    Silence,
    Garbage,
    Slow(Duration),
}

impl Plain {
    /// Its name in transcripts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Silence => "silence",
            Self::Garbage => "garbage",
            Self::Slow(_) => "slow",
        }
    }
}

/// Faults of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Truncate,
    Duplicate,
    StaleRid,
    OnlyStaleRid,
    /// All is decided and done, but the answer never sent.
    LateDrop,
}

impl Delivery {
    /// Its name in transcripts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Truncate => "truncate",
            Self::Duplicate => "duplicate",
            Self::StaleRid => "stale-rid",
            Self::OnlyStaleRid => "only-stale-rid",
            Self::LateDrop => "late-drop",
        }
    }
}

/// Faults of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lie {
    Status {
        status: u16,
        code: Option<u32>,
        retry_after: Option<String>,
    },
    Body {
        status: u16,
        text: String,
    },
    Html(u16),
    Redirect(String),
    /// The true answer, on HTTPS with a `Date` so many seconds later than it is.
    Dated(i64),
    Big(usize),
    LostOperation,
    AssigningForever,
    UnknownStatus(String),
    WrongRegistrationId,
    NoHub,
    HubName(String),
    Blob(BlobLie),
}

/// Faults of the key that a TPM is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobLie {
    /// Random bytes of the right lengths.
    Wrong,
    /// Its first half.
    Truncated,
    /// Made for another EK.
    OtherEk,
    /// None at all.
    None,
}

impl Lie {
    /// Whether it can be told without knowing what was asked.
    pub(crate) fn stands_alone(&self) -> bool {
        match self {
            Self::Status { .. } | Self::Body { .. } | Self::Html(_) | Self::Redirect(_) => true,
            Self::Big(_)
            | Self::Dated(_)
            | Self::LostOperation
            | Self::AssigningForever
            | Self::UnknownStatus(_)
            | Self::WrongRegistrationId
            | Self::NoHub
            | Self::HubName(_)
            | Self::Blob(_) => false,
        }
    }
}

/// A fault and how often it is still to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    stage: Stage,
    misdeed: Misdeed,
    /// `None` is always.
    left: Option<u32>,
}

impl Fault {
    /// Reads `WHERE: WHAT [xN]`; the error says what is wrong with it and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (place, what) = text.split_once(':').ok_or_else(|| format!("fault \"{text}\" has no \"WHERE: WHAT\""))?;
        let stage = Stage::parse(place.trim()).ok_or_else(|| {
            let places = "tcp, tls, connect, subscribe, challenge, register, query, lookup, hub, service-api, entra";
            format!("fault \"{text}\": WHERE is one of {places}")
        })?;
        let (what, left) = times(what.trim());
        let misdeed = misdeed(what).ok_or_else(|| format!("fault \"{text}\": \"{what}\" is no known fault"))?;
        if !stage.admits(&misdeed) {
            return Err(format!("fault \"{text}\": \"{what}\" cannot happen at \"{}\"", place.trim()));
        }
        Ok(Self { stage, misdeed, left })
    }
}

/// Takes the first fault for `stage` that `fits`, and counts it.
pub(crate) fn take(faults: &mut Vec<Fault>, stage: Stage, fits: impl Fn(&Misdeed) -> bool) -> Option<Misdeed> {
    let position = faults.iter().position(|fault| fault.stage == stage && fits(&fault.misdeed))?;
    let fault = faults.get_mut(position)?;
    let misdeed = fault.misdeed.clone();
    match &mut fault.left {
        None => {}
        Some(left) if *left > 1 => *left -= 1,
        Some(_) => drop(faults.remove(position)),
    }
    Some(misdeed)
}

fn times(what: &str) -> (&str, Option<u32>) {
    match what.rsplit_once(' ') {
        Some((rest, "x*")) => (rest.trim_end(), None),
        Some((rest, last)) => match last.strip_prefix('x').and_then(|count| count.parse().ok()) {
            Some(count) if count > 0 => (rest.trim_end(), Some(count)),
            _ => (what, Some(1)),
        },
        None => (what, Some(1)),
    }
}

fn misdeed(what: &str) -> Option<Misdeed> {
    let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
    let bare = |misdeed| rest.is_empty().then_some(misdeed);
    let lie = |lie| Some(Misdeed::Answer(lie));
    match word {
        "drop" => bare(Misdeed::Plain(Plain::Drop)),
        "silence" => bare(Misdeed::Plain(Plain::Silence)),
        "garbage" => bare(Misdeed::Plain(Plain::Garbage)),
        "slow" => Some(Misdeed::Plain(Plain::Slow(Duration::try_from_secs_f64(rest.parse().ok()?).ok()?))),
        "connack" => Some(Misdeed::Connack(rest.parse().ok()?)),
        "truncate" => bare(Misdeed::Delivery(Delivery::Truncate)),
        "duplicate" => bare(Misdeed::Delivery(Delivery::Duplicate)),
        "stale-rid" => bare(Misdeed::Delivery(Delivery::StaleRid)),
        "only-stale-rid" => bare(Misdeed::Delivery(Delivery::OnlyStaleRid)),
        "late-drop" => bare(Misdeed::Delivery(Delivery::LateDrop)),
        "wrong-blob" => bare(Misdeed::Answer(Lie::Blob(BlobLie::Wrong))),
        "truncated-blob" => bare(Misdeed::Answer(Lie::Blob(BlobLie::Truncated))),
        "other-ek-blob" => bare(Misdeed::Answer(Lie::Blob(BlobLie::OtherEk))),
        "no-key" => bare(Misdeed::Answer(Lie::Blob(BlobLie::None))),
        "status" => lie(status(rest)?),
        "body" => lie(Lie::Body { status: 200, text: rest.to_owned() }),
        "status-body" => {
            let (status, text) = rest.split_once(' ').unwrap_or((rest, ""));
            lie(Lie::Body { status: http_status(status)?, text: text.to_owned() })
        }
        "html" => lie(Lie::Html(http_status(rest)?)),
        "redirect" => lie(Lie::Redirect(rest.to_owned())),
        "dated" => lie(Lie::Dated(rest.parse().ok()?)),
        "big" => lie(Lie::Big(rest.parse().ok()?)),
        "lost-operation" => bare(Misdeed::Answer(Lie::LostOperation)),
        "assigning-forever" => bare(Misdeed::Answer(Lie::AssigningForever)),
        "unknown-status" => lie(Lie::UnknownStatus(rest.to_owned())),
        "wrong-registration-id" => bare(Misdeed::Answer(Lie::WrongRegistrationId)),
        "no-hub" => bare(Misdeed::Answer(Lie::NoHub)),
        "hub-name" => lie(Lie::HubName(unescaped(rest)?)),
        _ => None,
    }
}

fn status(rest: &str) -> Option<Lie> {
    // The text of Retry-After may hold spaces (a date), so it comes last and takes what is left.
    let (rest, retry_after) = match rest.split_once("retry-after=") {
        Some((before, text)) => (before, Some(text.to_owned())),
        None => (rest, None),
    };
    let mut words = rest.split_whitespace();
    let status = http_status(words.next()?)?;
    let code = words.next().map(|word| word.strip_prefix("code=")?.parse().ok());
    if words.next().is_some() || code == Some(None) {
        return None;
    }
    Some(Lie::Status { status, code: code.flatten(), retry_after })
}

fn http_status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (100..1000).contains(status))
}

/// `\r`, `\n`, `\t`, `\0` and `\\` stand for what they stand for in most languages.
fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                'r' => '\r',
                'n' => '\n',
                't' => '\t',
                '0' => '\0',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, code: Option<u32>, retry_after: Option<&str>) -> Misdeed {
        Misdeed::Answer(Lie::Status { status, code, retry_after: retry_after.map(str::to_owned) })
    }

    #[test]
    fn each_form_of_the_notation() {
        let cases = [
            ("tcp: drop", Stage::Tcp, Misdeed::Plain(Plain::Drop), Some(1)),
            ("connect: connack 3 x2", Stage::Connect, Misdeed::Connack(3), Some(2)),
            ("hub: connack 5 x*", Stage::Hub, Misdeed::Connack(5), None),
            ("register: status 429", Stage::Register, status(429, None, None), Some(1)),
            ("query: status 429 retry-after=2 x3", Stage::Query, status(429, None, Some("2")), Some(3)),
            (
                "register: status 503 code=503001 retry-after=Wed, 21 Oct 2026 07:28:00 GMT",
                Stage::Register,
                status(503, Some(503_001), Some("Wed, 21 Oct 2026 07:28:00 GMT")),
                Some(1),
            ),
            (
                "register: body {\"a\": 1}",
                Stage::Register,
                Misdeed::Answer(Lie::Body { status: 200, text: "{\"a\": 1}".to_owned() }),
                Some(1),
            ),
            (
                "query: hub-name evil\\r\\nX: y/path",
                Stage::Query,
                Misdeed::Answer(Lie::HubName("evil\r\nX: y/path".to_owned())),
                Some(1),
            ),
            ("tls: slow 0.5", Stage::Tls, Misdeed::Plain(Plain::Slow(Duration::from_millis(500))), Some(1)),
        ];
        for (text, stage, misdeed, left) in cases {
            assert_eq!(Fault::parse(text), Ok(Fault { stage, misdeed, left }), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "drop",
            "moon: drop",
            "register: explode",
            "tcp: status 429",
            "register: connack 5",
            "hub: no-hub",
            "register: status 42",
            "register: status 429 later",
            "tls: slow -1",
            "query: hub-name \\q",
            "connect: big 5",
            "connect: late-drop",
            "challenge: connack 5",
            "challenge: stale-rid",
            "challenge: no-hub",
            "hub: wrong-blob",
            "service-api: connack 5",
            "service-api: no-hub",
            "entra: stale-rid",
            "lookup: connack 5",
            "lookup: stale-rid",
            "lookup: no-hub",
        ] {
            assert!(Fault::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn faults_are_used_up_in_order_and_stay_when_they_do_not_fit() {
        let mut faults =
            ["query: drop", "register: silence", "register: drop x2"].map(|text| Fault::parse(text).unwrap()).to_vec();
        let mut next = || take(&mut faults, Stage::Register, |_| true);
        assert_eq!(next(), Some(Misdeed::Plain(Plain::Silence)));
        assert_eq!(next(), Some(Misdeed::Plain(Plain::Drop)));
        assert_eq!(next(), Some(Misdeed::Plain(Plain::Drop)));
        assert_eq!(next(), None);
        assert_eq!(take(&mut faults, Stage::Query, |misdeed| *misdeed == Misdeed::Connack(5)), None);
        assert_eq!(faults.len(), 1);
    }
}
