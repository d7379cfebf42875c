//! A registration by hand: tpm2-tools do what the TPM has to do, and the requests are written out here (DPS device API §9).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use super::{EK_HANDLE, SRK_HANDLE, Tpm};
use crate::Done;
use crate::emulator::ID_SCOPE;
use crate::hub::{self, encoded};

const API_VERSION: &str = "2021-06-01";

/// What tpm2-tools write before a credential for `tpm2_activatecredential`: a mark, and the version of the format.
const CREDENTIAL_HEADER: [u8; 8] = [0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1];

/// A device whose keys are in a TPM, and the service on localhost that it registers with.
#[derive(Debug)]
pub struct Device<'a> {
    pub tpm: &'a Tpm,
    pub registration_id: &'a str,
    pub port: u16,
    pub roots: PathBuf,
}

/// Where it was assigned to.
#[derive(Debug)]
pub struct Assigned {
    pub hub: String,
    pub device: String,
}

/// An answer of the service: its status, and its body.
type Answer = (u16, Value);

impl Device<'_> {
    /// From nothing to a hub key in the TPM. The inner error is a refusal, in the service's words.
    ///
    /// # Errors
    /// If the TPM does not take what the service gives, or an answer is none.
    pub fn register(&self) -> Done<Result<Assigned, String>> {
        self.make_keys()?;
        let keys = json!({"endorsementKey": self.tpm.public(EK_HANDLE)?, "storageRootKey": self.tpm.public(SRK_HANDLE)?});
        let body = json!({"registrationId": self.registration_id, "tpm": keys});
        let mut service = Service::connect(self.port, &self.roots)?;
        let (status, challenge) = service.request("PUT", &self.path("register"), "", &body)?;
        let Some(blob) = challenge["authenticationKey"].as_str().filter(|_| status == 401) else {
            return Ok(Err(format!("{status}: {challenge}")));
        };
        self.import(blob)?;
        let token = format!("{}&skn=registration", self.sign(&format!("{ID_SCOPE}/registrations/{}", self.registration_id))?);
        let mut answer = service.request("PUT", &self.path("register"), &token, &body)?;
        while answer.1["status"] == "assigning" {
            let operation = answer.1["operationId"].as_str().unwrap_or_default().to_owned();
            answer = service.request("GET", &self.path(&format!("operations/{operation}")), &token, &Value::Null)?;
        }
        let state = &answer.1["registrationState"];
        let text = |name: &str| state[name].as_str().map(str::to_owned);
        let (Some(hub), Some(device), Some(blob)) =
            (text("assignedHub"), text("deviceId"), state["tpm"]["authenticationKey"].as_str())
        else {
            return Ok(Err(format!("{}: {}", answer.0, answer.1)));
        };
        self.import(blob)?;
        Ok(Ok(Assigned { hub, device }))
    }

    /// A token for this resource, signed with the key that was imported last.
    ///
    /// # Errors
    /// If the TPM does not sign.
    pub fn sign(&self, resource: &str) -> Done<String> {
        let (resource, expiry) = (encoded(resource), hub::in_five_minutes()?);
        std::fs::write(self.tpm.path("to-sign"), format!("{resource}\n{expiry}"))?;
        self.tpm.tool("tpm2_hmac -c key.ctx -g sha256 -o signature to-sign")?;
        self.flush()?;
        let signature = encoded(&STANDARD.encode(std::fs::read(self.tpm.path("signature"))?));
        Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"))
    }

    fn make_keys(&self) -> Done {
        if self.tpm.public(EK_HANDLE).is_err() {
            self.tpm.tool(&format!("tpm2_createek -c {EK_HANDLE} -G rsa -u ek.pub"))?;
            self.flush()?;
        }
        if self.tpm.public(SRK_HANDLE).is_err() {
            self.tpm.tool("tpm2_createprimary -Q -C o -g sha256 -G rsa2048:aes128cfb -c srk.ctx")?;
            self.tpm.tool(&format!("tpm2_evictcontrol -Q -C o -c srk.ctx {SRK_HANDLE}"))?;
            self.flush()?;
        }
        Ok(())
    }

    /// Takes a key in: activates its wrapping key, imports it under the storage root key and loads it.
    fn import(&self, blob: &str) -> Done {
        let blob = STANDARD.decode(blob).map_err(|error| format!("the key is no base64: {error}"))?;
        let mut rest = blob.as_slice();
        let mut field = || sized(&mut rest);
        let (credential, secret) = (field()?, field()?);
        std::fs::write(self.tpm.path("credential"), [&CREDENTIAL_HEADER[..], credential, secret].concat())?;
        for name in ["duplicate", "seed", "key.pub"] {
            std::fs::write(self.tpm.path(name), field()?)?;
        }
        self.tpm.tool("tpm2_startauthsession -Q --policy-session -S session.ctx")?;
        self.tpm.tool("tpm2_policysecret -Q -S session.ctx -c e")?;
        self.tpm.tool(&format!(
            "tpm2_activatecredential -Q -c {SRK_HANDLE} -C {EK_HANDLE} -i credential -o wrapping-key -P session:session.ctx"
        ))?;
        self.tpm.tool("tpm2_flushcontext session.ctx")?;
        self.tpm.tool(&format!("tpm2_import -Q -C {SRK_HANDLE} -i duplicate -u key.pub -s seed -k wrapping-key -r key.priv"))?;
        self.tpm.tool(&format!("tpm2_load -Q -C {SRK_HANDLE} -u key.pub -r key.priv -c key.ctx"))?;
        self.flush()
    }

    /// A TPM without a resource manager keeps what each tool leaves behind.
    fn flush(&self) -> Done {
        self.tpm.tool("tpm2_flushcontext -t")
    }

    fn path(&self, what: &str) -> String {
        format!("/{ID_SCOPE}/registrations/{}/{what}?api-version={API_VERSION}", self.registration_id)
    }
}

/// Takes a TPM2B, its length included, from the front.
fn sized<'a>(rest: &mut &'a [u8]) -> Done<&'a [u8]> {
    let length = rest.first_chunk().map(|&bytes| usize::from(u16::from_be_bytes(bytes)) + 2);
    let (field, behind) = length.and_then(|length| rest.split_at_checked(length)).ok_or("the key ends too early")?;
    *rest = behind;
    Ok(field)
}

/// One connection to DPS.
struct Service(StreamOwned<ClientConnection, TcpStream>);

impl Service {
    fn connect(port: u16, roots: &Path) -> Done<Self> {
        let tcp = TcpStream::connect(("localhost", port))?;
        tcp.set_nodelay(true)?;
        let tls = ClientConnection::new(Arc::new(hub::tls(roots, None)?), "localhost".try_into()?)?;
        Ok(Self(StreamOwned::new(tls, tcp)))
    }

    fn request(&mut self, method: &str, path: &str, token: &str, body: &Value) -> Done<Answer> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tpm2-tools\r\nAccept: application/json\r\n");
        if !token.is_empty() {
            head += &format!("Authorization: {token}\r\n");
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_empty() {
            head += &format!("Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n", body.len());
        }
        self.0.write_all(format!("{head}\r\n{body}").as_bytes())?;
        self.0.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Done<Answer> {
        let (mut received, mut byte) = (Vec::new(), [0]);
        while !received.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            received.extend(byte);
        }
        let head = String::from_utf8(received)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("an answer without a status")?;
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}
