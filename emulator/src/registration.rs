//! Registrations: the register, query and lookup calls, decided without regard to the transport.

use crate::answer::{Answer, guid, random_hex, timestamp};
use crate::attest::Proof;
use crate::config::{Kinder, Reprovision};
use crate::fault::Lie;
use crate::hub::Identity;
use crate::service::{Device, Service, State};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What a device has registered so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Registration {
    operations: HashMap<String, Operation>,
    pub(crate) assignment: Option<Assignment>,
    /// The member `payload` of the last register call.
    pub(crate) payload: Option<Value>,
}

/// Where a device belongs.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) hub: String,
    pub(crate) device_id: String,
    substatus: &'static str,
    created: String,
    updated: String,
    pub(crate) etag: String,
}

#[derive(Debug, Clone)]
struct Operation {
    polls_left: u32,
    polled: Vec<Instant>,
    lie: Option<Lie>,
    /// The number of the hub key that its result gives to a TPM: the same one however often it is asked for.
    hub_key: Option<usize>,
}

impl Service {
    /// The register call (DPS device API §6, §7). `id` has been admitted; `body` is as received.
    pub(crate) fn register(&self, id: &str, body: &[u8], lie: Option<&Lie>) -> Answer {
        if let Some(answer) = lie.and_then(lie_alone) {
            return answer;
        }
        let payload = match self.checked(id, body) {
            Ok(mut body) => body.remove("payload"),
            Err(answer) => return answer,
        };
        let default_hub = self.config.hubs.first().map_or("localhost", String::as_str);
        let answer = self.with(|state| state.register(id, payload, lie, default_hub));
        padded(answer, lie)
    }

    /// The operation status call.
    pub(crate) fn query(&self, id: &str, operation: &str, lie: Option<&Lie>) -> Answer {
        if let Some(answer) = lie.and_then(lie_alone) {
            return answer;
        }
        let default_hub = self.config.hubs.first().map_or("localhost", String::as_str);
        let answer = self.with(|state| state.query(id, operation, lie, default_hub));
        padded(answer, lie)
    }

    /// The registration status lookup.
    pub(crate) fn lookup(&self, id: &str, body: &[u8], lie: Option<&Lie>) -> Answer {
        if let Some(answer) = lie.and_then(lie_alone) {
            return answer;
        }
        if let Err(answer) = self.checked(id, body) {
            return answer;
        }
        let state = self.look(|state| state.find(id).and_then(standing));
        let answer = state.map_or_else(|| Answer::error(404_201, "Registration not found."), |state| Answer::json(200, &state));
        padded(answer, lie)
    }

    /// The body of a call that has been admitted.
    fn checked(&self, id: &str, body: &[u8]) -> Result<Map<String, Value>, Answer> {
        let body = self.body(id, body).map_err(|message| Answer::error(400_000, &message))?;
        self.same_keys(id, body.get("tpm").filter(|tpm| !tpm.is_null()))?;
        Ok(body)
    }

    /// The members of a register body, which may be empty (DPS device API §5.2).
    pub(crate) fn body(&self, id: &str, body: &[u8]) -> Result<Map<String, Value>, String> {
        if body.is_empty() {
            return Ok(Map::new());
        }
        if self.is_kinder(Kinder::Body) {
            return Ok(serde_json::from_slice(body).unwrap_or_default());
        }
        let body: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| format!("The body is no JSON object: {error}"))?;
        match body.get("registrationId") {
            Some(Value::String(named)) if named.eq_ignore_ascii_case(id) => {}
            Some(_) => return Err("registrationId differs from the one in the address.".to_owned()),
            // UNCONFIRMED: no client was seen to leave it out of a body that it does send.
            None => return Err("registrationId is missing.".to_owned()),
        }
        if body.contains_key("csr") {
            // DPS device API §10: a certificate request is refused under every version that this service speaks.
            return Err("csr is not supported.".to_owned());
        }
        Ok(body)
    }
}

impl State {
    fn register(&mut self, id: &str, payload: Option<Value>, lie: Option<&Lie>, default_hub: &str) -> Answer {
        let Some(device) = self.device(id) else {
            return Answer::error(404_201, "Not found.");
        };
        device.registration.payload = payload;
        if !device.settings.enabled {
            return disabled(device);
        }
        let hub = device.hub(default_hub);
        let leaves = device.registration.assignment.as_ref().filter(|assignment| !assignment.hub.eq_ignore_ascii_case(hub));
        let left = leaves.map(|assignment| (assignment.hub.clone(), assignment.device_id.clone()));
        let operation = format!("4.{}.{}", random_hex(8), guid());
        let polls_left = device.settings.polls;
        let running = Operation { polls_left, polled: Vec::new(), lie: lie.cloned(), hub_key: None };
        device.registration.operations.insert(operation.clone(), running);
        let at_once = device.settings.at_once && lie != Some(&Lie::AssigningForever);
        let retry_after = device.settings.retry_after.clone();
        // At a move the old identity goes first, before the answer (design of the strict service; DPS device API §14).
        if let Some((hub, device_id)) = left {
            self.hubs.remove(&hub, &device_id);
        }
        if at_once { self.finish(id, &operation, lie, default_hub) } else { assigning(&operation, retry_after) }
    }

    fn query(&mut self, id: &str, operation: &str, lie: Option<&Lie>, default_hub: &str) -> Answer {
        let Some(device) = self.device(id) else {
            return Answer::error(404_201, "Not found.");
        };
        if lie == Some(&Lie::LostOperation) {
            device.registration.operations.remove(operation);
        }
        let retry_after = device.settings.retry_after.clone();
        let Some(running) = device.registration.operations.get_mut(operation) else {
            return Answer::error(404_203, "Operation not found.");
        };
        if running.polls_too_fast() {
            return Answer::error(429_001, "Throttled."); // code UNCONFIRMED, DPS device API §7.3
        }
        let lie = lie.cloned().or_else(|| running.lie.clone());
        if running.polls_left > 0 || lie == Some(Lie::AssigningForever) {
            running.polls_left = running.polls_left.saturating_sub(1);
            return assigning(operation, retry_after);
        }
        if !device.settings.enabled {
            return disabled(device);
        }
        self.finish(id, operation, lie.as_ref(), default_hub)
    }

    fn finish(&mut self, id: &str, operation: &str, lie: Option<&Lie>, default_hub: &str) -> Answer {
        let Some(device) = self.device(id) else {
            return Answer::error(404_201, "Not found.");
        };
        let mut result = match &device.settings.fail {
            Some(fail) => {
                let (code, message) = (fail.code, fail.message.clone());
                failed(device, operation, code, &message)
            }
            None => self.assigned(id, operation, lie, default_hub).unwrap_or_default(),
        };
        if let Some(lie) = lie {
            distort(&mut result, lie);
        }
        Answer::json(200, &result)
    }

    /// The result of an assignment; the hub knows of it when this returns.
    fn assigned(&mut self, id: &str, operation: &str, lie: Option<&Lie>, default_hub: &str) -> Option<Value> {
        let device = self.device(id)?;
        let assignment = assign(device, default_hub);
        let mut state = registration_state(device, &assignment);
        let (proof, key) = hub_credential(device, operation, lie);
        if let Some(key) = key {
            state["tpm"]["authenticationKey"] = key.into();
        }
        if let Some(proof) = proof {
            let (name, spread) = (device.registration_id.clone(), device.settings.spread());
            self.hubs.add(&assignment.hub, &assignment.device_id, Identity::new(name, proof, spread));
        }
        Some(json!({"operationId": operation, "status": "assigned", "registrationState": state}))
    }
}

impl Operation {
    /// The documented limit is 5 polls in 10 s for a device (DPS device API §12); it is held for each operation, and a
    /// little wider, so that the network's jitter cannot break it.
    fn polls_too_fast(&mut self) -> bool {
        let now = Instant::now();
        self.polled.retain(|polled| now.duration_since(*polled) < Duration::from_millis(9_500));
        self.polled.push(now);
        self.polled.len() > 5
    }
}

/// What the hub asks for from now on (`None`: as before), and the key that a TPM is sent for it. Each assignment has a new
/// key, and with it the earlier ones are gone, before the answer is sent (DPS device API §9.1).
fn hub_credential(device: &mut Device, operation: &str, lie: Option<&Lie>) -> (Option<Proof>, Option<String>) {
    let Some(Proof::Tpm(tpm)) = &mut device.proof else {
        return (device.proof.clone(), None);
    };
    let running = device.registration.operations.get_mut(operation);
    let given = running.as_ref().and_then(|running| running.hub_key);
    let number = given.or_else(|| tpm.new_hub_key());
    if let Some(running) = running {
        running.hub_key = number;
    }
    let proof = given.is_none().then(|| tpm.hub_proof());
    (proof, number.and_then(|number| tpm.hub_key(number, lie)))
}

fn assign(device: &mut Device, default_hub: &str) -> Assignment {
    let hub = device.hub(default_hub).to_owned();
    let device_id = device.settings.device_id.clone().unwrap_or_else(|| device.registration_id.clone());
    let now = timestamp();
    let assignment = match device.registration.assignment.take() {
        Some(old) if old.hub.eq_ignore_ascii_case(&hub) => old,
        Some(old) => Assignment { hub, device_id, substatus: moved(device.settings.reprovision), updated: now, ..old },
        None => {
            let etag = format!("Ij{}Ig==", random_hex(8));
            Assignment { hub, device_id, substatus: "initialAssignment", created: now.clone(), updated: now, etag }
        }
    };
    device.registration.assignment = Some(assignment.clone());
    assignment
}

fn moved(policy: Reprovision) -> &'static str {
    if policy.migrate_device_data { "deviceDataMigrated" } else { "deviceDataReset" }
}

impl Device {
    /// Where it belongs from now on, as its enrollment has it.
    fn hub<'a>(&'a self, default: &'a str) -> &'a str {
        let stays = self.registration.assignment.as_ref().filter(|_| !self.settings.reprovision.update_hub_assignment);
        stays.map(|at| at.hub.as_str()).or(self.settings.hub.as_deref()).unwrap_or(default)
    }
}

/// What a lookup tells. That a disabled enrollment shows like this, and without its hub, is UNCONFIRMED.
fn standing(device: &Device) -> Option<Value> {
    if !device.settings.enabled {
        return Some(json!({"registrationId": device.registration_id, "status": "disabled"}));
    }
    device.registration.assignment.as_ref().map(|assignment| registration_state(device, assignment))
}

pub(crate) fn registration_state(device: &Device, assignment: &Assignment) -> Value {
    let mut state = json!({
        "registrationId": device.registration_id,
        "createdDateTimeUtc": assignment.created,
        "assignedHub": assignment.hub,
        "deviceId": assignment.device_id,
        "status": "assigned",
        "substatus": assignment.substatus,
        "lastUpdatedDateTimeUtc": assignment.updated,
        "etag": assignment.etag,
    });
    let (kind, details) = attestation_details(device);
    state[kind] = details;
    if let Some(payload) = &device.settings.payload {
        state["payload"] = payload.clone();
    }
    state
}

fn attestation_details(device: &Device) -> (&'static str, Value) {
    let kind = match &device.proof {
        Some(Proof::Keys(_) | Proof::HubKeys(_)) | None => "symmetricKey",
        Some(Proof::Certificate(_) | Proof::IssuedBy(_)) => "x509",
        Some(Proof::Tpm(_)) => "tpm",
    };
    (kind, device.group.as_ref().map_or_else(|| json!({}), |group| json!({"enrollmentGroupId": group})))
}

fn assigning(operation: &str, retry_after: Option<String>) -> Answer {
    let answer = Answer::json(202, &json!({"operationId": operation, "status": "assigning"}));
    Answer { retry_after, ..answer }
}

fn disabled(device: &Device) -> Answer {
    Answer::json(200, &json!({"operationId": "", "status": "disabled", "registrationState": standing(device)}))
}

fn failed(device: &Device, operation: &str, code: u32, message: &str) -> Value {
    let now = timestamp();
    json!({"operationId": operation, "status": "failed", "registrationState": {
        "registrationId": device.registration_id,
        "createdDateTimeUtc": now,
        "status": "failed",
        "errorCode": code,
        "errorMessage": message,
        "lastUpdatedDateTimeUtc": now,
    }})
}

/// The answer of a fault that does not depend on the request.
pub(crate) fn lie_alone(lie: &Lie) -> Option<Answer> {
    match lie {
        Lie::Status { status, code, retry_after } => {
            let code = code.unwrap_or_else(|| usual_code(*status));
            let answer = Answer::error_with_status(*status, code, "A fault was asked for.");
            Some(Answer { retry_after: retry_after.clone(), ..answer })
        }
        Lie::Body { status, text } => Some(Answer::raw(*status, text.clone().into_bytes())),
        Lie::Html(status) => Some(Answer::html(*status)),
        Lie::Redirect(url) => Some(Answer { headers: vec![("Location", url.clone())], ..Answer::raw(307, Vec::new()) }),
        Lie::Big(_)
        | Lie::Dated(_)
        | Lie::LostOperation
        | Lie::AssigningForever
        | Lie::UnknownStatus(_)
        | Lie::WrongRegistrationId
        | Lie::NoHub
        | Lie::HubName(_)
        | Lie::Blob(_) => None,
    }
}

fn usual_code(status: u16) -> u32 {
    match status {
        404 => 404_201,
        429 => 429_001, // UNCONFIRMED
        other => u32::from(other) * 1000,
    }
}

/// `big N`: the true answer, followed by as many spaces as it takes.
pub(crate) fn padded(mut answer: Answer, lie: Option<&Lie>) -> Answer {
    if let Some(Lie::Big(size)) = lie {
        answer.body.resize(*size.max(&answer.body.len()), b' ');
    }
    if let Some(Lie::Dated(later)) = lie {
        answer.dated = *later;
    }
    answer
}

fn distort(result: &mut Value, lie: &Lie) {
    let state = &mut result["registrationState"];
    match lie {
        Lie::WrongRegistrationId => {
            state["registrationId"] = "someone-else".into();
            state["deviceId"] = "someone-else".into();
        }
        Lie::NoHub => drop(state.as_object_mut().map(|state| state.remove("assignedHub"))),
        Lie::HubName(name) => state["assignedHub"] = name.as_str().into(),
        Lie::UnknownStatus(text) => {
            state["status"] = text.as_str().into();
            result["status"] = text.as_str().into();
        }
        Lie::Status { .. }
        | Lie::Body { .. }
        | Lie::Html(_)
        | Lie::Redirect(_)
        | Lie::Big(_)
        | Lie::Dated(_)
        | Lie::LostOperation
        | Lie::AssigningForever
        | Lie::Blob(_) => {}
    }
}
