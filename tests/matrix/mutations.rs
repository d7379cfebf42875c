//! Mutations of the emulator: with each of its checks switched off, a cell that passes otherwise must fail.
//!
//! Those of the agent need another build of it: `cargo xtask mutations`.

/// A check, and the cells that fail without it.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// The emulator's word for it, in `[service] kinder`.
    pub switch: &'static str,
    pub cells: &'static [&'static str],
}

/// All of them.
pub const ALL: &[Mutation] = &[
    Mutation {
        switch: "skip-signature",
        cells: &["symmetric-key/mqtt/wrong-key", "group-key/https/wrong-key", "rogue/https/wrong-signature"],
    },
    Mutation {
        switch: "skip-expiry",
        cells: &["x509-ec/mqtt-ws/expired-certificate", "rogue/https/expired-token", "rogue/hub/expired-token"],
    },
    Mutation {
        switch: "skip-audience",
        cells: &["rogue/https/token-of-another", "rogue/mqtt/token-of-another", "rogue/hub/token-of-another"],
    },
    Mutation { switch: "skip-cn", cells: &["rogue/https/certificate-of-another"] },
    Mutation {
        switch: "skip-chain",
        cells: &["x509-intermediate/mqtt/wrong-key", "x509-intermediate/https/missing-intermediate"],
    },
    Mutation { switch: "skip-thumbprint", cells: &["x509-ec/mqtt/wrong-key", "x509-rsa/https/wrong-key"] },
    Mutation { switch: "skip-rid", cells: &["rogue/mqtt/no-rid"] },
    Mutation { switch: "skip-order", cells: &["rogue/mqtt/before-suback"] },
    Mutation {
        switch: "skip-api-version",
        cells: &["symmetric-key/mqtt/unknown-api-version", "x509-ec/https/unknown-api-version"],
    },
    Mutation { switch: "skip-body", cells: &["rogue/https/body-of-another"] },
    Mutation { switch: "skip-hub-credential", cells: &["rogue/hub/wrong-signature"] },
];
