//! What `[attestation]` says of a TPM: how it is reached, its passwords and its handles.

use std::ops::RangeInclusive;

use super::problem::{Origin, Reported};
use super::reader::{Reader, take_back};
use super::schema::{self, Key};
use super::settings::Found;
use super::{EkUnique, TpmSettings};

/// The ways to a TPM that there are, with the parameters each takes after its colon.
const WAYS: [(&str, Way); 4] = [
    ("device", Way::Path),
    ("swtpm", Way::Parameters(&["host", "port"])),
    ("mssim", Way::Parameters(&["host", "port"])),
    ("tabrmd", Way::Parameters(&["bus_name", "bus_type"])),
];

#[derive(Debug, Clone, Copy)]
enum Way {
    Path,
    Parameters(&'static [&'static str]),
}

/// Where objects outlive a power cut; the upper half is the platform's, the lower the owner's (TCG registry of reserved TPM 2.0
/// handles).
const PERSISTENT: RangeInclusive<u32> = 0x8100_0000..=0x81ff_ffff;
const OWNERS: RangeInclusive<u32> = 0x8100_0000..=0x817f_ffff;

impl<'s> Reader<'s> {
    // Every part is read before the first `?`, so that all problems come to light together.
    pub(super) fn tpm_settings(&mut self) -> Result<TpmSettings, Reported> {
        let tcti = self.tcti();
        let owner_auth = self.key_source(schema::OWNER_AUTH_FILE, schema::OWNER_AUTH_CREDENTIAL);
        let endorsement_auth = self.key_source(schema::ENDORSEMENT_AUTH_FILE, schema::ENDORSEMENT_AUTH_CREDENTIAL);
        let ek_handle = self.handle(schema::EK_HANDLE);
        let srk_handle = self.owners_handle(schema::SRK_HANDLE);
        let identity_handle = self.identity_handle();
        let ek_unique = self.word(schema::EK_UNIQUE, &[("tcg", EkUnique::Tcg), ("empty", EkUnique::Empty)]);
        let (ek_handle, srk_handle, identity_handle) = (ek_handle?, srk_handle?, identity_handle?);
        self.apart(&[
            (schema::EK_HANDLE, Some(ek_handle)),
            (schema::SRK_HANDLE, Some(srk_handle)),
            (schema::IDENTITY_HANDLE, identity_handle),
        ])?;
        Ok(TpmSettings {
            tcti: tcti?,
            owner_auth: owner_auth?,
            endorsement_auth: endorsement_auth?,
            ek_handle,
            srk_handle,
            identity_handle,
            ek_unique: ek_unique?,
        })
    }

    fn tcti(&mut self) -> Result<String, Reported> {
        let found = self.required(schema::TCTI, "write tcti = \"device:/dev/tpmrm0\"")?;
        match wrong_tcti(found.text) {
            None => Ok(found.text.to_owned()),
            Some(message) => Err(self.wrong(found, message)),
        }
    }

    fn identity_handle(&mut self) -> Result<Option<u32>, Reported> {
        match self.optional(schema::IDENTITY_HANDLE)? {
            Some(Found { text: "none", .. }) | None => Ok(None),
            Some(_) => self.owners_handle(schema::IDENTITY_HANDLE).map(Some),
        }
    }

    /// A handle at which the owner may keep something.
    fn owners_handle(&mut self, key: Key) -> Result<u32, Reported> {
        let found = self.required(key, "write a persistent handle")?;
        let handle = self.handle(key)?;
        if OWNERS.contains(&handle) {
            return Ok(handle);
        }
        Err(self.wrong(
            found,
            "is a handle of the platform, where the owner can keep nothing; write one from \"0x81000000\" to \"0x817fffff\"",
        ))
    }

    fn handle(&mut self, key: Key) -> Result<u32, Reported> {
        let found = self.required(key, "write a persistent handle")?;
        parse_handle(found.text).ok_or_else(|| {
            let or_none = if key == schema::IDENTITY_HANDLE { ", or \"none\"" } else { "" };
            self.wrong(found, format!("not a persistent handle; write one from \"0x81000000\" to \"0x81ffffff\"{or_none}"))
        })
    }

    /// Each object needs a handle of its own.
    fn apart(&mut self, handles: &[(Key, Option<u32>)]) -> Result<(), Reported> {
        let mut verdict = Ok(());
        for (n, (key, handle)) in handles.iter().enumerate().filter(|(_, (_, handle))| handle.is_some()) {
            let Some((other, _)) = handles.iter().take(n).find(|(_, other)| other == handle) else { continue };
            if let (Some(one), Some(other)) = (self.optional(*key)?, self.optional(*other)?) {
                verdict = Err(self.same_handle(one, other));
            }
        }
        verdict
    }

    /// Reported at the one that was written later: what nobody wrote cannot be wrong.
    fn same_handle(&mut self, one: Found<'_>, other: Found<'_>) -> Reported {
        let is_later = self.settings.is_later(one.key, other.key) && *one.origin != Origin::Default;
        let (later, earlier) = if is_later || *other.origin == Origin::Default { (one, other) } else { (other, one) };
        let name = earlier.key.name;
        let same = match earlier.origin {
            Origin::Default => format!("the default of {name}"),
            written @ (Origin::Line { .. } | Origin::File(_) | Origin::Environment(_)) => format!("the {name} of {written}"),
        };
        let message =
            format!("is also {same}, and each key needs a handle of its own; write another{}", take_back(later, earlier));
        self.wrong(later, message)
    }
}

fn parse_handle(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let hexadecimal = digits.len() == 8 && digits.chars().all(|c| c.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|handle| hexadecimal && PERSISTENT.contains(handle))
}

/// Whether `tcti` could have come from a configuration.
#[cfg(feature = "tpm")]
pub fn is_way_to_tpm(tcti: &str) -> bool {
    wrong_tcti(tcti).is_none()
}

/// What is wrong with a `tcti`, and what to write.
fn wrong_tcti(text: &str) -> Option<String> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let Some((name, way)) = WAYS.iter().find(|(known, _)| *known == name) else {
        let names = WAYS.map(|(name, _)| name);
        let near = schema::nearest(name, names).map(|near| format!("; did you mean \"{near}:\"?")).unwrap_or_default();
        return Some(format!(
            "begins with no known way to a TPM; write one of device:/dev/tpmrm0, swtpm:host=HOST,port=PORT, mssim:host=HOST,port=PORT or tabrmd:{near}"
        ));
    };
    match way {
        Way::Path if rest.starts_with('/') && !rest.contains('\0') => None,
        Way::Path => Some("names no device; write for instance \"device:/dev/tpmrm0\"".to_owned()),
        Way::Parameters(known) => wrong_parameters(name, rest, known),
    }
}

/// A parameter that the library would pass over leads to another TPM than the one that was meant.
fn wrong_parameters(name: &str, text: &str, known: &[&str]) -> Option<String> {
    let is_known = |part: &str| {
        part.split_once('=').is_some_and(|(key, value)| {
            let fits = match key {
                "port" => value.parse::<u16>().is_ok_and(|port| port != 0),
                _ => !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic()),
            };
            known.contains(&key) && fits
        })
    };
    if text.is_empty() || text.split(',').all(is_known) {
        return None;
    }
    let parameters = known.iter().map(|key| format!("{key}=…")).collect::<Vec<_>>().join(",");
    Some(format!("has a parameter that is not understood; write {name}:{parameters}"))
}
