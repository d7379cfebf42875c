//! Response codes of TPM and libtss2 (TPM 2.0 Part 2, TPM_RC; TSS 2.0 overview, response codes), without the words for people.

/// What came instead of an answer: a response code with its layer in bits 16 to 23.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(u32);

/// What a response code complains of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The command as a whole.
    Command,
    /// A parameter, counted from 1; 0 where the TPM does not say which.
    Parameter(u32),
    /// A handle, counted from 1.
    Handle(u32),
    /// A session, counted from 1.
    Session(u32),
}

const TPM: u32 = 0;
const ESAPI: u32 = 7;
const TCTI: u32 = 10;
/// The kernel's resource manager, and tabrmd's.
const MANAGERS: [u32; 2] = [11, 12];

impl Fault {
    /// The wrapper around libtss2 cannot express what came.
    pub(super) const UNUSABLE: Self = Self(0xff01_0000);
    /// What was given to be sent does not fit into any command.
    pub(super) const UNFIT: Self = Self(0xff03_0000);
    /// There is no libtss2 here that can be used (`libtss2.c`).
    pub(super) const NOT_LOADED: Self = Self(0x00f0_0001);
    /// The answer contradicts itself (ESAPI's own code for it).
    pub(super) const MALFORMED: Self = Self(ESAPI << 16 | 17);

    #[cfg(test)]
    pub(super) fn new(code: u32) -> Self {
        Self(code)
    }

    /// Reads the code from the wrapper's words for it, which are the only place where it has it whole.
    pub(super) fn parse(text: &str) -> Self {
        let digits = text.rsplit("0x").next().unwrap_or_default();
        u32::from_str_radix(digits, 16).map_or(Self::UNUSABLE, Self)
    }

    /// The whole code.
    pub(super) fn code(self) -> u32 {
        self.0
    }

    /// What the TPM, or the resource manager in its place, complains of: the error without its place, and the place.
    pub(super) fn tpm(self) -> Option<(u32, About)> {
        let layer = self.0 >> 16;
        let code = self.0 & 0xffff;
        let is_tpm = layer == TPM || (MANAGERS.contains(&layer) && code >= 0x80);
        is_tpm.then_some(if code & 0x80 == 0 { (code, About::Command) } else { (code & 0xbf, place(code)) })
    }

    /// The number of an error of the way to the TPM.
    pub(super) fn tcti(self) -> Option<u32> {
        (self.0 >> 16 == TCTI).then_some(self.0 & 0xffff)
    }

    /// Whether libtss2 or we cannot make sense of an answer.
    pub(super) fn is_garbled(self) -> bool {
        let layer = self.0 >> 16;
        self == Self::UNUSABLE || (!MANAGERS.contains(&layer) && layer != TPM && layer != TCTI)
    }

    /// TPM_RC_FAILURE.
    pub(super) fn is_failure(self) -> bool {
        self.tpm() == Some((0x101, About::Command))
    }

    /// Nothing is at the first handle.
    pub(super) fn is_no_such_handle(self) -> bool {
        self.tpm() == Some((0x8b, About::Handle(1)))
    }

    /// The TPM has no time: retry, yielded, testing, NV rate.
    pub(super) fn is_busy(self) -> bool {
        matches!(self.tpm(), Some((0x922 | 0x908 | 0x90a | 0x920, _)))
    }

    /// An auth value or an HMAC is not right: TPM_RC_BAD_AUTH, TPM_RC_AUTH_FAIL.
    pub(super) fn is_wrong_auth(self) -> bool {
        matches!(self.tpm(), Some((0xa2 | 0x8e, _)))
    }
}

fn place(code: u32) -> About {
    let number = code >> 8 & 0xf;
    match (code & 0x40 != 0, number) {
        (true, number) => About::Parameter(number),
        // Something in the parameters, such as TPM_RC_BINDING.
        (false, 0) => About::Parameter(0),
        (false, number @ 1..8) => About::Handle(number),
        (false, number) => About::Session(number - 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_from_the_wrappers_words() {
        assert_eq!(Fault::parse("Response code value: 0xa000a"), Fault::new(0x000a_000a));
        assert_eq!(Fault::parse("something else"), Fault::UNUSABLE);
    }

    #[test]
    fn a_code_tells_what_it_complains_of() {
        for (code, error, about) in [
            (0x18b, 0x8b, About::Handle(1)),
            (0x9a2, 0xa2, About::Session(1)),
            (0x98e, 0x8e, About::Session(1)),
            (0x1df, 0x9f, About::Parameter(1)),
            (0x2c4, 0x84, About::Parameter(2)),
            (0x0a5, 0xa5, About::Parameter(0)),
            (0x902, 0x902, About::Command),
            (0x101, 0x101, About::Command),
        ] {
            assert_eq!(Fault::new(code).tpm(), Some((error, about)), "{code:#x}");
            // The kernel's resource manager and tabrmd put their layer in front.
            assert_eq!(Fault::new(0x000b_0000 | code).tpm(), Some((error, about)), "{code:#x}");
            assert_eq!(Fault::new(0x000c_0000 | code).tpm(), Some((error, about)), "{code:#x}");
        }
        assert_eq!(Fault::new(0x000b_0001).tpm(), None, "an error of its own");
    }

    #[test]
    fn kinds_of_faults_exclude_each_other() {
        for (code, tcti, garbled, absent, busy, auth) in [
            (0x000a_000a, true, false, false, false, false),
            (0x0007_001b, false, true, false, false, false),
            (0x0008_0011, false, true, false, false, false),
            (0x0009_0006, false, true, false, false, false),
            (0x0000_018b, false, false, true, false, false),
            (0x0000_028b, false, false, false, false, false),
            (0x0000_0922, false, false, false, true, false),
            (0x0000_0908, false, false, false, true, false),
            (0x0000_090a, false, false, false, true, false),
            (0x0000_0920, false, false, false, true, false),
            (0x0000_09a2, false, false, false, false, true),
            (0x0000_098e, false, false, false, false, true),
        ] {
            let fault = Fault::new(code);
            assert_eq!(
                (fault.tcti().is_some(), fault.is_garbled(), fault.is_no_such_handle(), fault.is_busy(), fault.is_wrong_auth()),
                (tcti, garbled, absent, busy, auth),
                "{code:#x}"
            );
        }
    }
}
