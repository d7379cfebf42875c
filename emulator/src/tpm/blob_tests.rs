//! The static vector: every intermediate value, and the same bytes again from its seeds.

use super::super::public::WrongPublic;
use super::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use rsa::pkcs8::DecodePrivateKey;
use serde_json::Value;

fn vector() -> Value {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/data/test-vectors.json")).unwrap();
    vectors["tpm"]["activation_blob_static"].clone()
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn base64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().unwrap()
}

fn parent(value: &Value) -> ParentKey {
    ParentKey::parse(&base64(value)).unwrap().restricted().unwrap()
}

fn opened(pem: &Value, label: &str, secret: &[u8]) -> Vec<u8> {
    let key = rsa::RsaPrivateKey::from_pkcs8_pem(pem.as_str().unwrap()).unwrap();
    key.decrypt(rsa::Oaep::new_with_label::<sha2::Sha256, _>(label), secret).unwrap()
}

/// The vector's blob from the vector's seeds.
fn rebuilt(vector: &Value) -> Blob {
    let known = &vector["intermediates_hex"];
    let (seed, secret) = (array(&known["sensitive_seedValue"]), array(&known["hmac_key"]));
    // The vector was made before the attributes of the real service were seen.
    let key = HmacKey { attributes: 0x0004_0040, seed, key: secret };
    let seeds = Seeds {
        inner: array(&known["inner_wrap_key_aes128"]),
        credential: array(&known["seed_credential"]),
        duplicate: array(&known["seed_duplicate"]),
    };
    let (endorsement, storage) = (parent(&vector["ek_tpm2b_public_b64"]), parent(&vector["srk_tpm2b_public_b64"]));
    Blob::of(&key, &seeds, &endorsement, &storage, b"https://example.invalid/".to_vec()).unwrap()
}

#[test]
fn the_vector_is_built_again_to_the_byte() {
    let vector = vector();
    let blob = rebuilt(&vector);
    let field = |index: usize| hex(&vector["layout"][index]["hex"]);
    let all = blob.to_bytes();
    assert_eq!(all.len(), 790);
    assert_eq!(all[..54], field(0), "TPM2B_ID_OBJECT");
    assert_eq!(all[312..456], field(2), "TPM2B_PRIVATE");
    assert_eq!(all[714..764], field(4), "TPM2B_PUBLIC");
    assert_eq!(all[764..], field(5), "the trailing field");
    let secrets = [
        (54..312, "ek_private_pem", "IDENTITY\0", 1, "seed_credential"),
        (456..714, "srk_private_pem", "DUPLICATE\0", 3, "seed_duplicate"),
    ];
    for (place, pem, label, index, seed) in secrets {
        let expected = hex(&vector["intermediates_hex"][seed]);
        // OAEP is salted: ours and the vector's differ, and say the same.
        assert_eq!(opened(&vector[pem], label, &all[place.start + 2..place.end]), expected, "{label}");
        assert_eq!(opened(&vector[pem], label, &field(index)[2..]), expected, "{label}");
        assert_eq!(all[place.start..place.start + 2], [1, 0]);
    }
}

#[test]
fn intermediate_values_of_the_vector() {
    let vector = vector();
    let known = &vector["intermediates_hex"];
    let storage = parent(&vector["srk_tpm2b_public_b64"]).name();
    assert_eq!(storage, hex(&vector["srk_name_hex"]));
    let key = HmacKey { attributes: 0x0004_0040, seed: array(&known["sensitive_seedValue"]), key: array(&known["hmac_key"]) };
    let name = name(&key.public());
    assert_eq!(name, hex(&known["id_key_name"]));
    assert!(key.public().ends_with(&hex(&known["keyedhash_unique"])));
    assert_eq!(sha256(&[&key.sensitive(), &name]).to_vec(), hex(&known["inner_integrity_sha256"]));
    for (of, context) in [("credential", storage), ("duplicate", name)] {
        let seed = array(&known[format!("seed_{of}")]);
        assert_eq!(storage_key(&seed, &context).to_vec(), hex(&known[format!("kdfa_STORAGE_{of}")]));
        assert_eq!(integrity_key(&seed).to_vec(), hex(&known[format!("kdfa_INTEGRITY_{of}")]));
    }
}

#[test]
fn blobs_have_the_attributes_and_lengths_of_the_real_service() {
    let vector = vector();
    let (endorsement, storage) = (parent(&vector["ek_tpm2b_public_b64"]), parent(&vector["srk_tpm2b_public_b64"]));
    let key = HmacKey::random().unwrap();
    assert_eq!(key.public()[4..8], [0, 4, 4, 0x40]);
    for (tail, last) in [(Tail::Challenge, 154), (Tail::HubKey, 108)] {
        let blob = Blob::wrap(&key, &endorsement, &storage, tail).unwrap();
        let lengths = |blob: &Blob| {
            let blob = blob.clone();
            let fields = [blob.credential, blob.credential_secret, blob.duplicate, blob.duplicate_secret, blob.public, blob.tail];
            fields.map(|field| field.len())
        };
        assert_eq!(lengths(&blob), [52, 256, 142, 256, 48, last]);
        let scrambled = blob.clone().scrambled().unwrap();
        assert_eq!(lengths(&scrambled), lengths(&blob));
        assert_ne!(scrambled.credential, blob.credential);
        assert_eq!(scrambled.public, blob.public);
        assert_ne!(Blob::wrap(&key, &endorsement, &storage, tail).unwrap(), blob, "each wrapping is new");
    }
}

#[test]
fn the_key_of_another_tpm_is_one() {
    let own = parent(&vector()["ek_tpm2b_public_b64"]);
    let other = own.of_another_tpm(random().unwrap()).unwrap();
    assert!(other != own);
    assert_eq!(other.name().len(), 34);
    assert!(Blob::wrap(&HmacKey::random().unwrap(), &other, &own, Tail::HubKey).is_some());
}

#[test]
fn public_areas_that_are_refused() {
    let good = base64(&vector()["srk_tpm2b_public_b64"]);
    let with = |at: usize, bytes: &[u8]| {
        let mut wrong = good.clone();
        wrong[at..at + bytes.len()].copy_from_slice(bytes);
        ParentKey::parse(&wrong).and_then(ParentKey::restricted).unwrap_err()
    };
    assert_eq!(with(2, &[0, 0x23]), WrongPublic::Ecc);
    assert_eq!(with(2, &[0, 8]), WrongPublic::Type(8));
    assert_eq!(with(4, &[0, 4]), WrongPublic::NameAlgorithm(4));
    assert_eq!(with(6, &[0, 4, 4, 0x72]), WrongPublic::Attributes(0x0004_0472), "a signing key");
    assert_eq!(with(6, &[0, 2, 4, 0x72]), WrongPublic::Attributes(0x0002_0472), "not restricted");
    assert_eq!(with(14, &[1, 0]), WrongPublic::Symmetric, "AES-256");
    assert_eq!(with(18, &[0, 0x14]), WrongPublic::Scheme(0x14));
    assert_eq!(with(20, &[4, 0]), WrongPublic::Bits(1024));
    assert_eq!(with(28, &[0]), WrongPublic::Modulus);
    assert_eq!(ParentKey::parse(&good[2..]).unwrap_err(), WrongPublic::Long);
    assert_eq!(ParentKey::parse(&good[..good.len() - 1]).unwrap_err(), WrongPublic::Short);
    assert_eq!(ParentKey::parse(&[good.as_slice(), &[0]].concat()).unwrap_err(), WrongPublic::Long);
    assert_eq!(ParentKey::parse(&[]).unwrap_err(), WrongPublic::Short);
}
