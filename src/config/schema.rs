//! Every table and key there is, with its type and default: the one list that reading, `config show` and the hints go by.

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// A string that is an absolute path.
    Path,
    /// An integer from 1 to 65535.
    Port,
    /// `true` or `false`.
    Flag,
}

/// What a key is when nobody writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    None,
    Text(&'static str),
    /// A text where `method` is tpm, and else nothing.
    Tpm(&'static str),
    Port(u16),
    Flag(bool),
}

/// A key that the configuration knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) preset: Preset,
}

/// The tables, in the order of `config show`.
pub(super) const TABLES: [&str; 6] = ["dps", "attestation", "hub", "clock", "state", "runtime"];

macro_rules! keys {
    ($($id:ident: $table:literal $name:literal $kind:ident $preset:expr;)*) => {
        $(pub(super) const $id: Key = Key { table: $table, name: $name, kind: Kind::$kind, preset: $preset };)*

        /// Every key, in the order of `config show`.
        pub(super) const KEYS: &[Key] = &[$($id),*];
    };
}

keys! {
    HOST: "dps" "host" Text Preset::Text("global.azure-devices-provisioning.net");
    ID_SCOPE: "dps" "id_scope" Text Preset::None;
    TRANSPORT: "dps" "transport" Text Preset::Text("auto");
    MQTT_PORT: "dps" "mqtt_port" Port Preset::Port(8883);
    HTTPS_PORT: "dps" "https_port" Port Preset::Port(443);
    CA_FILE: "dps" "ca_file" Path Preset::None;
    CA_ONLY: "dps" "ca_only" Flag Preset::Flag(false);
    API_VERSION: "dps" "api_version" Text Preset::Text("2021-06-01");
    PAYLOAD: "dps" "payload" Text Preset::None;
    PAYLOAD_FILE: "dps" "payload_file" Path Preset::None;
    PROXY: "dps" "proxy" Text Preset::None;
    PROXY_CREDENTIALS_FILE: "dps" "proxy_credentials_file" Path Preset::None;
    METHOD: "attestation" "method" Text Preset::None;
    REGISTRATION_ID: "attestation" "registration_id" Text Preset::None;
    REGISTRATION_ID_FROM: "attestation" "registration_id_from" Text Preset::None;
    REGISTRATION_ID_PREFIX: "attestation" "registration_id_prefix" Text Preset::None;
    KEY_FILE: "attestation" "key_file" Path Preset::None;
    KEY_CREDENTIAL: "attestation" "key_credential" Text Preset::None;
    SECONDARY_KEY_FILE: "attestation" "secondary_key_file" Path Preset::None;
    SECONDARY_KEY_CREDENTIAL: "attestation" "secondary_key_credential" Text Preset::None;
    CERTIFICATE_FILE: "attestation" "certificate_file" Path Preset::None;
    PRIVATE_KEY_FILE: "attestation" "private_key_file" Path Preset::None;
    TCTI: "attestation" "tcti" Text Preset::Tpm("device:/dev/tpmrm0");
    OWNER_AUTH_FILE: "attestation" "owner_auth_file" Path Preset::None;
    OWNER_AUTH_CREDENTIAL: "attestation" "owner_auth_credential" Text Preset::None;
    ENDORSEMENT_AUTH_FILE: "attestation" "endorsement_auth_file" Path Preset::None;
    ENDORSEMENT_AUTH_CREDENTIAL: "attestation" "endorsement_auth_credential" Text Preset::None;
    EK_HANDLE: "attestation" "ek_handle" Text Preset::Tpm("0x81010001");
    SRK_HANDLE: "attestation" "srk_handle" Text Preset::Tpm("0x81000001");
    IDENTITY_HANDLE: "attestation" "identity_handle" Text Preset::Tpm("none");
    EK_UNIQUE: "attestation" "ek_unique" Text Preset::Tpm("tcg");
    HUB_TRANSPORT: "hub" "transport" Text Preset::Text("auto");
    HUB_MQTT_PORT: "hub" "mqtt_port" Port Preset::Port(8883);
    HUB_HTTPS_PORT: "hub" "https_port" Port Preset::Port(443);
    VERIFY: "hub" "verify" Text Preset::Text("on-change");
    GATEWAY_HOST: "hub" "gateway_host" Text Preset::None;
    GATEWAY_CA_FILE: "hub" "gateway_ca_file" Path Preset::None;
    TRUST_SERVICE_DATE: "clock" "trust_service_date" Flag Preset::Flag(false);
    STATE_DIRECTORY: "state" "directory" Path Preset::Text("/var/lib/dps-agent");
    RUNTIME_DIRECTORY: "runtime" "directory" Path Preset::Text("/run/dps-agent");
}

/// The key `name` of `table`.
pub(super) fn key(table: &str, name: &str) -> Option<Key> {
    KEYS.iter().copied().find(|key| key.table == table && key.name == name)
}

/// The key with the name that was probably meant, in whichever table.
pub(super) fn nearest_anywhere(word: &str) -> Option<Key> {
    let name = nearest(word, KEYS.iter().map(|key| key.name))?;
    KEYS.iter().copied().find(|key| key.name == name)
}

/// The names of a table's keys.
pub(super) fn names(table: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |key| key.table == table).map(|key| key.name)
}

/// The tables that have a key of this name.
pub(super) fn homes(name: &str) -> Vec<&'static str> {
    KEYS.iter().filter(|key| key.name == name).map(|key| key.table).collect()
}

/// The candidate that was probably meant: a few of its characters differ, never more than half, case and `-` for `_` aside.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    // A name this long is no slip of the finger, and the comparison is quadratic.
    let word = plain(word).chars().take(64).collect::<String>();
    let near = candidates.into_iter().map(|candidate| (distance(&word, &plain(candidate)), candidate));
    let slip = |(far, name): &(usize, &str)| far * 2 <= name.len() && *far <= (name.len() / 3).max(2);
    near.filter(slip).min_by_key(|(far, _)| *far).map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swapped neighbours that make `b` of `a` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            let swapped = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
            row.push(replaced.min(swapped).min(row[j - 1] + 1).min(rows[i - 1][j] + 1));
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_a_slip_explains() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("idScope", names("dps")), Some("id_scope"));
        assert_eq!(nearest("hsot", ["host", "hub"]), Some("host"));
        assert_eq!(nearest("hbu", ["host", "hub"]), Some("hub"));
        assert_eq!(nearest("ab", ["dps", "hub"]), None);
        assert_eq!(nearest("api-version", names("dps")), Some("api_version"));
        assert_eq!(nearest("colour", names("dps")), None);
    }
}
