//! What the manufacturer has left in the TPM's NV memory: certificate, template and nonce of the endorsement key, and its name.

use super::esys::{Hierarchy, NvIndex};
use super::fault::Fault;
use super::session::{Session, explain};
use super::{PublicArea, TpmError, template};

/// The RSA-2048 endorsement key's certificate, nonce and template (TCG EK Credential Profile, NV indices).
const CERTIFICATE: u32 = 0x01c0_0002;
const NONCE: u32 = 0x01c0_0003;
const TEMPLATE: u32 = 0x01c0_0004;
/// TPMA_NV.
const OWNER_READ: u32 = 1 << 17;
const AUTH_READ: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
const WRITTEN: u32 = 1 << 29;
/// Nobody's certificate is longer, in bytes.
const LARGEST: usize = 4096;
/// TPM_PT_NV_BUFFER_MAX, and what every TPM can do.
const NV_BUFFER_MAX: u32 = 0x12c;
const SMALLEST_BUFFER: u16 = 512;
/// TPM_PT_MANUFACTURER, four vendor strings, a type, and two numbers of the firmware.
const MANUFACTURER: u32 = 0x105;

impl Session<'_> {
    /// The certificate of the endorsement key, DER, without what pads it.
    pub(super) fn certificate(&mut self) -> Result<Option<Vec<u8>>, TpmError> {
        let listed = self.nv_indices()?;
        let Some(bytes) = self.content(&listed, CERTIFICATE)? else { return Ok(None) };
        let certificate = der(&bytes);
        if certificate.is_none() {
            tracing::warn!("NV index {CERTIFICATE:#010x} holds no certificate; it is left alone");
        }
        Ok(certificate.map(<[u8]>::to_vec))
    }

    /// How the manufacturer wants the endorsement key to be made, if he has left a template or a nonce.
    pub(super) fn manufacturers_template(&mut self) -> Result<Option<PublicArea>, TpmError> {
        let listed = self.nv_indices()?;
        let written = self.content(&listed, TEMPLATE)?.map(PublicArea::new);
        let nonce = self.content(&listed, NONCE)?.filter(|nonce| nonce.len() <= 256);
        Ok(match (written, nonce) {
            (None, None) => None,
            (Some(written), None) if written.is_endorsement_key() => Some(written),
            (Some(written), Some(nonce)) if written.is_endorsement_key() => Some(template::endorsement(&nonce)),
            (Some(_), _) => {
                self.warn_once(TEMPLATE, || {
                    tracing::warn!(
                        "NV index {TEMPLATE:#010x} holds a template of an endorsement key that DPS cannot use; the TCG's is used"
                    );
                });
                None
            }
            (None, Some(nonce)) => Some(template::endorsement(&nonce)),
        })
    }

    /// Manufacturer and firmware, as the TPM names them.
    pub(super) fn vendor(&mut self) -> Result<String, TpmError> {
        let properties = self.esys.properties(MANUFACTURER, 8).map_err(|fault| explain("to name its vendor", fault))?;
        let value = |wanted| properties.iter().find_map(|(tag, value)| (*tag == wanted).then_some(*value)).unwrap_or(0);
        let letters = |tags: &[u32]| tags.iter().flat_map(|tag| value(*tag).to_be_bytes()).collect::<Vec<_>>();
        let [maker, model] = [&[0][..], &[1, 2, 3, 4]].map(|places| {
            let tags: Vec<_> = places.iter().map(|place| MANUFACTURER + place).collect();
            printable(&letters(&tags))
        });
        let [first, second] = [value(MANUFACTURER + 6), value(MANUFACTURER + 7)];
        let firmware = format!("{}.{}.{}.{}", first >> 16, first & 0xffff, second >> 16, second & 0xffff);
        Ok([maker, model, firmware].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }

    fn nv_indices(&mut self) -> Result<Vec<u32>, TpmError> {
        self.esys.handles(CERTIFICATE).map_err(|fault| explain("to list its NV indices", fault))
    }

    /// What an index holds, if it is listed, written, and open to us.
    fn content(&mut self, listed: &[u32], handle: u32) -> Result<Option<Vec<u8>>, TpmError> {
        const DOING: &str = "to describe an NV index";
        if !listed.contains(&handle) {
            return Ok(None);
        }
        let index = match self.esys.nv_index(handle) {
            Ok(Some(index)) if index.attributes & WRITTEN != 0 => index,
            // Gone, never written, or of a kind that nobody here knows.
            Ok(_) | Err(Fault::UNUSABLE) => return Ok(None),
            Err(fault) => return Err(explain(DOING, fault)),
        };
        match self.read(index) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(
                error @ (TpmError::Refused { .. }
                | TpmError::AuthMissing { .. }
                | TpmError::AuthWrong { .. }
                | TpmError::AuthTooLong(..)
                | TpmError::LockedOut(_)),
            ) => {
                self.warn_once(handle, || tracing::warn!("NV index {handle:#010x} cannot be read: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, index: NvIndex) -> Result<Vec<u8>, TpmError> {
        const DOING: &str = "to read an NV index";
        let by_itself = index.attributes & AUTH_READ != 0;
        // A refusal of the index's own password counts towards lockout, unless the index is exempt.
        let by_owner = index.attributes & OWNER_READ != 0 && !(by_itself && index.attributes & NO_DA != 0);
        let owner = by_owner.then(|| self.authorize(Hierarchy::Owner)).transpose()?;
        let chunk = self.largest_read()?;
        let whole = u16::try_from(index.size.min(LARGEST)).unwrap_or(chunk);
        let mut content = Vec::new();
        for offset in (0..whole).step_by(usize::from(chunk)) {
            match self.esys.nv_read(index.object, owner, (chunk.min(whole - offset), offset)) {
                Ok(part) => content.extend(part),
                Err(fault) if by_owner => return Err(self.refusal(Hierarchy::Owner, DOING, fault)),
                Err(fault) => return Err(explain(DOING, fault)),
            }
        }
        Ok(content)
    }

    fn largest_read(&mut self) -> Result<u16, TpmError> {
        let properties = self.esys.properties(NV_BUFFER_MAX, 1).map_err(|fault| explain("to tell its buffer's size", fault))?;
        let size = properties.first().filter(|(tag, _)| *tag == NV_BUFFER_MAX).and_then(|(_, size)| u16::try_from(*size).ok());
        Ok(size.unwrap_or(SMALLEST_BUFFER).clamp(1, 1024))
    }
}

/// The SEQUENCE at the beginning, which says itself how long it is: 256 to 65535 bytes, as every certificate.
fn der(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.strip_prefix(&[0x30, 0x82])?.first_chunk()?;
    bytes.get(..4 + usize::from(u16::from_be_bytes(*length)))
}

fn printable(bytes: &[u8]) -> String {
    let text: String = bytes.iter().filter(|byte| (b' '..=b'~').contains(byte)).map(|byte| char::from(*byte)).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_behind_a_certificate_is_not_part_of_it() {
        let certificate = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        assert_eq!(der(&certificate), Some(&certificate[..]));
        assert_eq!(der(&[&certificate[..], &[0xff; 100]].concat()), Some(&certificate[..]));
        assert_eq!(der(&certificate[..259]), None, "cut off");
        assert_eq!(der(&[0; 300]), None);
        assert_eq!(der(&[0xff; 300]), None);
    }
}
