//! The provisioning service over MQTT (DPS device API §5).

use super::codec::{Connect, PINGRESP, Packet, Publish, puback, publish, suback, unsuback};
use super::{ACCEPTED, Ended, Link, NOT_AUTHORIZED, Peer, WRONG_CLIENT_ID, WRONG_LEVEL, credential};
use crate::answer::Answer;
use crate::attest::Refusal;
use crate::config::{Kinder, WrongKey};
use crate::fault::{Delivery, Misdeed, Stage};
use crate::names::{parameter, percent_encode};
use crate::requests::Request;
use crate::service::{Via, fits_mqtt};

const FILTER: &str = "$dps/registrations/res/#";
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?";
const QUERY: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?";
/// The largest request (DPS device API §12).
const LARGEST: usize = 96 * 1024;

/// One connection after CONNACK 0.
struct Session {
    link: Link,
    registration_id: String,
    /// What every request is answered with, when the client was let in only to be told why not.
    refusal: Option<Refusal>,
    /// The QoS of the subscription.
    granted: Option<u8>,
    /// A fault keeps the last request unanswered.
    unanswered: bool,
    packet_id: u16,
}

/// Serves a client whose user name is one of DPS.
pub(super) async fn serve(
    mut link: Link,
    connect: &Connect,
    peer: Peer,
    scope: String,
    registration_id: String,
    api_version: &str,
) -> Result<(), Ended> {
    let via = peer.via;
    note_way(&link, &registration_id, via);
    link.service.note(&registration_id, Request::Connect(via));
    let fault = link
        .service
        .fault(Some(&registration_id), Stage::Connect, |misdeed| matches!(misdeed, Misdeed::Plain(_) | Misdeed::Connack(_)));
    link.play(fault.as_ref()).await?;
    if let Some(Misdeed::Connack(code)) = fault {
        return link.connack(code).await;
    }
    let admitted = link.service.admit(via, &scope, &registration_id, &credential(connect, peer));
    let code = return_code(&link, connect, &registration_id, api_version, &admitted);
    link.connack(code).await?;
    if code != ACCEPTED {
        return Ok(());
    }
    let refusal = admitted.err();
    Session { link, registration_id, refusal, granted: None, unanswered: false, packet_id: 0 }.run().await
}

fn note_way(link: &Link, registration_id: &str, via: Via) {
    link.service.with(|state| {
        if let Some(device) = state.device(registration_id) {
            device.via = Some(via);
        }
    });
}

/// Faults of form, audience and expiry show as return code 5, a wrong key later; which fault shows where on the service
/// is UNCONFIRMED (DPS device API §5.4, §18), and so are the codes for a wrong client ID and api-version.
fn return_code(link: &Link, connect: &Connect, id: &str, api_version: &str, admitted: &Result<(), Refusal>) -> u8 {
    if connect.level != 4 {
        return WRONG_LEVEL;
    }
    if connect.client_id != id {
        return WRONG_CLIENT_ID;
    }
    if connect.has_will || !link.service.speaks(api_version) {
        return NOT_AUTHORIZED;
    }
    match admitted {
        Ok(()) | Err(Refusal::Scope | Refusal::Device) => ACCEPTED,
        Err(Refusal::Name | Refusal::Nothing | Refusal::Malformed | Refusal::Audience | Refusal::Expired) => NOT_AUTHORIZED,
        Err(
            Refusal::Signature
            | Refusal::OtherKind
            | Refusal::Certificate(_)
            | Refusal::KeyName
            | Refusal::Unchallenged
            | Refusal::EndorsementKey
            | Refusal::OtherKeys
            | Refusal::Transport
            | Refusal::Disabled
            | Refusal::NotYet,
        ) => match link.service.config.wrong_key_on_mqtt {
            WrongKey::Response => ACCEPTED,
            WrongKey::Connack => NOT_AUTHORIZED,
        },
    }
}

impl Session {
    async fn run(mut self) -> Result<(), Ended> {
        loop {
            match self.link.next().await? {
                Packet::Connect(_) => return Err(self.link.close("a second CONNECT")),
                Packet::Subscribe { id, filters } => self.subscribe(id, &filters).await?,
                Packet::Unsubscribe { id, filters } => {
                    if filters != [FILTER] {
                        return Err(self.link.close("UNSUBSCRIBE from what was not subscribed"));
                    }
                    self.granted = None;
                    self.link.wire.send(&unsuback(id)).await?;
                }
                Packet::Publish(request) => self.request(&request).await?,
                Packet::PubAck => {}
                Packet::PingReq => self.link.wire.send(&PINGRESP).await?,
                Packet::Disconnect => {
                    self.link.say("> disconnect");
                    return Ok(());
                }
            }
        }
    }

    async fn subscribe(&mut self, id: u16, filters: &[(String, u8)]) -> Result<(), Ended> {
        self.link.say("> subscribe");
        let [(filter, qos)] = filters else {
            return Err(self.link.close("more than one filter"));
        };
        if filter != FILTER {
            return Err(self.link.close("a filter other than $dps/registrations/res/#"));
        }
        let early = self.link.wire.has_more_publish();
        let fault = self.link.service.fault(Some(&self.registration_id), Stage::Subscribe, fits_mqtt);
        self.link.play(fault.as_ref()).await?;
        if early && !self.link.service.is_kinder(Kinder::Order) {
            return Err(self.link.close("a request before SUBACK"));
        }
        // QoS 2 is granted as 1.
        let granted = (*qos).min(1);
        self.granted = Some(granted);
        self.link.say("< suback");
        Ok(self.link.wire.send(&suback(id, &[granted])).await?)
    }

    async fn request(&mut self, request: &Publish) -> Result<(), Ended> {
        let kinder = self.link.service.is_kinder(Kinder::Order);
        let asked = self.read(request)?;
        if self.granted.is_none() && !kinder {
            return Err(self.link.close("a request before SUBACK"));
        }
        if (self.unanswered || self.another_waits()) && !kinder {
            return Err(self.link.close("a second request before the answer to the first"));
        }
        if request.qos == 1 {
            self.link.wire.send(&puback(request.id)).await?;
        }
        let asks = asked.operation.as_ref().map_or(Request::Register, |operation| Request::Query(operation));
        self.link.service.note(&self.registration_id, asks);
        let stage = if asked.operation.is_some() { Stage::Query } else { Stage::Register };
        let fault = self.link.service.fault(Some(&self.registration_id), stage, fits_mqtt);
        self.play(fault.as_ref()).await?;
        if self.unanswered {
            return Ok(());
        }
        let answer = self.answer(&asked, &request.payload, fault.as_ref());
        self.deliver(&asked.rid, &answer, fault.as_ref()).await
    }

    /// Silence still reads, so that a second request can be told from none.
    async fn play(&mut self, fault: Option<&Misdeed>) -> Result<(), Ended> {
        if fault == Some(&Misdeed::Plain(crate::fault::Plain::Silence)) {
            self.link.say("! silence");
            self.unanswered = true;
            return Ok(());
        }
        self.link.play(fault).await
    }

    /// A client may acknowledge or ping while it waits, so that only a further request counts.
    fn another_waits(&self) -> bool {
        self.link.wire.has_more_publish()
    }

    fn read(&self, request: &Publish) -> Result<Asked, Ended> {
        let fail = |why: &str| Err(self.link.close(why));
        let (operation, query) = match (request.topic.strip_prefix(REGISTER), request.topic.strip_prefix(QUERY)) {
            (Some(query), _) => (None, query),
            (None, Some(query)) => (Some(parameter(query, "operationId").unwrap_or_default()), query),
            (None, None) => return fail("a topic that is none of the two requests"),
        };
        if request.qos == 2 || request.retain {
            return fail("QoS 2 or a retained message");
        }
        if request.payload.len() > LARGEST {
            return fail("a message above 96 KiB");
        }
        let known = |name: &str| name == "$rid" || (operation.is_some() && name == "operationId");
        if !query.split('&').all(|pair| pair.split_once('=').is_some_and(|(name, _)| known(name))) {
            return fail("a topic with parameters that the request does not have");
        }
        match parameter(query, "$rid").filter(|rid| !rid.is_empty()) {
            Some(rid) => Ok(Asked { rid, operation }),
            None if self.link.service.is_kinder(Kinder::Rid) => Ok(Asked { rid: String::new(), operation }),
            None => fail("a request without $rid"),
        }
    }

    fn answer(&self, asked: &Asked, payload: &[u8], fault: Option<&Misdeed>) -> Answer {
        let lie = match fault {
            Some(Misdeed::Answer(lie)) => Some(lie),
            Some(Misdeed::Plain(_) | Misdeed::Connack(_) | Misdeed::Delivery(_)) | None => None,
        };
        let (service, id) = (&self.link.service, &self.registration_id);
        match (&self.refusal, &asked.operation) {
            (Some(refusal), _) => Answer::refusal(refusal),
            (None, None) => service.register(id, payload, lie),
            (None, Some(operation)) => service.query(id, operation, lie),
        }
    }

    async fn deliver(&mut self, rid: &str, answer: &Answer, fault: Option<&Misdeed>) -> Result<(), Ended> {
        let delivery = match fault {
            Some(Misdeed::Delivery(delivery)) => Some(*delivery),
            Some(Misdeed::Plain(_) | Misdeed::Connack(_) | Misdeed::Answer(_)) | None => None,
        };
        if let Some(delivery) = delivery {
            self.link.say(format!("! {}", delivery.name()));
        }
        if delivery == Some(Delivery::LateDrop) {
            return Err(Ended);
        }
        self.link.service.say_answer(Some(&self.registration_id), answer);
        let truth = self.packet(rid, answer);
        match delivery {
            None | Some(Delivery::LateDrop) => self.link.wire.send(&truth).await?,
            Some(Delivery::Truncate) => {
                self.link.wire.send(&truth[..truth.len() / 2]).await?;
                return Err(Ended);
            }
            Some(Delivery::Duplicate) => self.link.wire.send(&[truth.clone(), truth].concat()).await?,
            Some(Delivery::StaleRid) => {
                let stale = self.packet(&format!("{rid}0"), answer);
                self.link.wire.send(&[stale, truth].concat()).await?;
            }
            Some(Delivery::OnlyStaleRid) => {
                let stale = self.packet(&format!("{rid}0"), answer);
                self.unanswered = true;
                self.link.wire.send(&stale).await?;
            }
        }
        Ok(())
    }

    fn packet(&mut self, rid: &str, answer: &Answer) -> Vec<u8> {
        let mut topic = format!("$dps/registrations/res/{}/?$rid={rid}", answer.status);
        if let Some(text) = &answer.retry_after {
            topic.push_str(&format!("&retry-after={}", percent_encode(text)));
        }
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        publish(&topic, self.granted.unwrap_or(0), self.packet_id, &answer.body)
    }
}

/// A request's parameters.
struct Asked {
    rid: String,
    /// For the operation status call; empty when it is missing.
    operation: Option<String>,
}
