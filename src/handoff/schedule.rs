//! When a token in a file is due to be replaced. Knows numbers only.

use crate::connection::LONGEST_LIFE;

/// How long the token of a file lives, in seconds.
const LIFE: u64 = LONGEST_LIFE.as_secs();

/// When a token that ends at `ends` is due: at 80 % of its life, and up to 8 % of it earlier as `seed` has it, since each of these
/// moments makes a bridge connect anew. Seconds since 1970.
pub(super) fn due(ends: u64, seed: u64) -> u64 {
    let early = seed % (LIFE / 100 * 8 + 1);
    ends.saturating_sub(LIFE / 5).saturating_sub(early)
}

/// Whether a token can stay at this time. One that ends later than any that is made now came from a clock that ran ahead.
pub(super) fn is_good(ends: u64, now: u64, seed: u64) -> bool {
    now < due(ends, seed) && ends <= now.saturating_add(LIFE)
}

/// The end of the token that a text holds, as its `se` says.
pub(super) fn expiry_in(text: &[u8]) -> Option<u64> {
    const TOKEN: &[u8] = b"SharedAccessSignature sr=";
    const END: &[u8] = b"&se=";
    let token = &text[find(text, TOKEN)?..];
    let digits = &token[find(token, END)? + END.len()..];
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&digits[..length]).ok()?.parse().ok()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_due_from_72_to_80_percent_of_its_life() {
        let made = 1_000_000;
        let at = |seed| (due(made + LIFE, seed) - made) * 1000 / LIFE;
        assert_eq!((at(0), at(6912), at(6913)), (800, 720, 800));
        let all: Vec<_> = (0..20_000).map(at).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&720), Some(&800)));
    }

    #[test]
    fn a_token_stays_until_it_is_due_and_never_for_longer_than_a_life() {
        let ends = 1_000_000 + LIFE;
        for (now, good) in [
            (1_000_000, true),
            (1_000_000 + LIFE / 5 * 4 - 1, true),
            (1_000_000 + LIFE / 5 * 4, false),
            (ends + 1, false),
            (999_999, false),
            (0, false),
        ] {
            assert_eq!(is_good(ends, now, 0), good, "{now}");
        }
        assert!(!is_good(0, 5, 0) && !is_good(u64::MAX, 5, u64::MAX));
    }

    #[test]
    fn the_end_of_a_token_is_found_in_whatever_surrounds_it() {
        for (text, end) in [
            (
                "remote_password SharedAccessSignature sr=h%2Fdevices%2Fd&sig=x&se=1700003600\ncleansession false",
                Some(1_700_003_600),
            ),
            ("A=\"SharedAccessSignature sr=h&sig=x&se=17\"\n", Some(17)),
            ("&se=9 SharedAccessSignature sr=h&sig=x&se=17", Some(17)),
            ("SharedAccessSignature sr=h&sig=x&se=", None),
            ("SharedAccessSignature sr=h&sig=x&se=99999999999999999999999", None),
            ("SharedAccessSignature sr=h", None),
            ("&se=17", None),
            ("", None),
        ] {
            assert_eq!(expiry_in(text.as_bytes()), end, "{text}");
        }
    }
}
