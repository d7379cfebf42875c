//! The frames of TPM commands and responses, and the names of the commands (TPM 2.0 Library, Part 2 §6.5.2 and Part 3 §4).

use std::fmt;
use std::io::{self, Read};

/// A frame's header: tag (2 bytes), size of the whole (4), then a command code or a response code (4).
pub const HEADER: usize = 10;

/// The largest frame that a TPM takes or gives, with room to spare; longer is nonsense.
const LARGEST: usize = 16 * 1024;

/// `TPM_ST_NO_SESSIONS`: the tag of a response that carries nothing but its code.
const NO_SESSIONS: [u8; 2] = [0x80, 0x01];

/// A command code, which shows as its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

const NAMES: &[(u32, &str)] = &[
    (0x120, "EvictControl"),
    (0x121, "HierarchyControl"),
    (0x122, "NV_UndefineSpace"),
    (0x126, "Clear"),
    (0x127, "ClearControl"),
    (0x129, "HierarchyChangeAuth"),
    (0x12A, "NV_DefineSpace"),
    (0x131, "CreatePrimary"),
    (0x137, "NV_Write"),
    (0x139, "DictionaryAttackLockReset"),
    (0x13A, "DictionaryAttackParameters"),
    (0x13E, "SequenceComplete"),
    (0x142, "IncrementalSelfTest"),
    (0x143, "SelfTest"),
    (0x144, "Startup"),
    (0x145, "Shutdown"),
    (0x147, "ActivateCredential"),
    (0x148, "Certify"),
    (0x14B, "Duplicate"),
    (0x14E, "NV_Read"),
    (0x150, "ObjectChangeAuth"),
    (0x151, "PolicySecret"),
    (0x153, "Create"),
    (0x155, "HMAC"),
    (0x156, "Import"),
    (0x157, "Load"),
    (0x159, "RSA_Decrypt"),
    (0x15B, "HMAC_Start"),
    (0x15C, "SequenceUpdate"),
    (0x15D, "Sign"),
    (0x15E, "Unseal"),
    (0x161, "ContextLoad"),
    (0x162, "ContextSave"),
    (0x165, "FlushContext"),
    (0x167, "LoadExternal"),
    (0x168, "MakeCredential"),
    (0x169, "NV_ReadPublic"),
    (0x16B, "PolicyAuthValue"),
    (0x16C, "PolicyCommandCode"),
    (0x171, "PolicyOR"),
    (0x173, "ReadPublic"),
    (0x174, "RSA_Encrypt"),
    (0x176, "StartAuthSession"),
    (0x177, "VerifySignature"),
    (0x178, "ECC_Parameters"),
    (0x17A, "GetCapability"),
    (0x17B, "GetRandom"),
    (0x17C, "GetTestResult"),
    (0x17D, "Hash"),
    (0x17E, "PCR_Read"),
    (0x180, "PolicyRestart"),
    (0x181, "ReadClock"),
    (0x189, "PolicyGetDigest"),
    (0x18A, "TestParms"),
    (0x18C, "PolicyPassword"),
    (0x191, "CreateLoaded"),
    (0x193, "EncryptDecrypt2"),
];

impl Code {
    /// The code of the command with this name, spelt as in the specification without `TPM2_`.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|&(code, _)| Self(code))
    }

    /// What a command's frame asks for; 0 for one that is too short to say.
    pub fn of(command: &[u8]) -> Self {
        Self(word(command, 6))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(code, _)| *code == self.0) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("{:#x}", self.0)),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The code that a response begins with; 0 is success.
pub fn response_code(response: &[u8]) -> u32 {
    word(response, 6)
}

/// A response that says nothing but this code.
pub fn bare_response(code: u32) -> Vec<u8> {
    [&NO_SESSIONS[..], &[0, 0, 0, 10], &code.to_be_bytes()].concat()
}

/// Reads one frame; none where the peer hangs up instead.
///
/// # Errors
/// If the connection breaks, or the size in the header cannot be one.
pub fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; HEADER];
    if stream.read(&mut frame[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut frame[1..])?;
    let size = word(&frame, 2) as usize;
    if !(HEADER..=LARGEST).contains(&size) {
        return Err(io::Error::other(format!("a TPM frame of {size} bytes")));
    }
    frame.resize(size, 0);
    stream.read_exact(&mut frame[HEADER..])?;
    Ok(Some(frame))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET_RANDOM: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7B, 0, 8];

    #[test]
    fn frames_are_read_one_by_one_up_to_the_end() {
        let mut stream = &[&GET_RANDOM[..], &bare_response(0x922)].concat()[..];
        let command = read(&mut stream).unwrap().unwrap();
        assert_eq!((command.as_slice(), Code::of(&command).to_string().as_str()), (&GET_RANDOM[..], "GetRandom"));
        assert_eq!(response_code(&read(&mut stream).unwrap().unwrap()), 0x922);
        assert_eq!(read(&mut stream).unwrap(), None);
    }

    #[test]
    fn half_a_frame_and_an_impossible_size_are_errors() {
        assert!(read(&mut &GET_RANDOM[..11]).is_err());
        for size in [9_u32, 16 * 1024 + 1, u32::MAX] {
            let mut frame = GET_RANDOM;
            frame[2..6].copy_from_slice(&size.to_be_bytes());
            assert_eq!(read(&mut &frame[..]).unwrap_err().to_string(), format!("a TPM frame of {size} bytes"));
        }
    }

    #[test]
    fn names_go_both_ways_and_what_has_none_shows_as_a_number() {
        assert_eq!(Code::named("HMAC"), Some(Code(0x155)));
        assert_eq!(Code::named("hmac"), None);
        assert_eq!(format!("{:?} {}", Code(0x151), Code(0x2000_0000)), "PolicySecret 0x20000000");
    }
}
