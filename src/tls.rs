//! The one TLS configuration of DPS and hub, whatever the transport; the only file that names the crypto provider.
