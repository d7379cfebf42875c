//! An IoT Hub over MQTT (hub connection §2), as far as a device needs it to send messages and to feel at home.

use super::codec::{Connect, PINGRESP, Packet, Publish, puback, publish, suback, unsuback};
use super::{ACCEPTED, Ended, Link, NOT_AUTHORIZED, Peer, WRONG_CLIENT_ID, WRONG_LEVEL, credential};
use crate::fault::{Misdeed, Stage};
use crate::hub::{Session, Telemetry};
use crate::names::parameter;
use std::time::Duration;

/// At most so many subscriptions.
const SUBSCRIPTIONS: usize = 5;

/// One connection of a device that was let in.
struct Connection {
    link: Link,
    hub: String,
    device_id: String,
    subscriptions: Vec<String>,
}

/// Serves a client whose user name is one of a hub.
pub(super) async fn serve(mut link: Link, connect: &Connect, peer: Peer, hub: String, device_id: String) -> Result<(), Ended> {
    link.device = link.service.with(|state| match state.hubs.identity(&hub, &device_id) {
        Some(identity) => identity.registration_id.clone(),
        None => state.registration_of(&device_id).unwrap_or_else(|| device_id.clone()),
    });
    link.say(format!("> hub connect {} {hub} {device_id}", peer.via.name()));
    let fault = link.service.fault(Some(&link.device), Stage::Hub, |_| true);
    link.play(fault.as_ref()).await?;
    if let Some(Misdeed::Connack(code)) = fault {
        return link.connack(code).await;
    }
    let code = match (connect.level, connect.client_id == device_id) {
        (4, true) => ACCEPTED,
        (4, false) => WRONG_CLIENT_ID,
        _ => WRONG_LEVEL,
    };
    if code != ACCEPTED {
        return link.connack(code).await;
    }
    let shown = credential(connect, peer);
    let session = link.service.with(|state| state.hubs.connect(&hub, &device_id, &shown, &link.service.config.kinder));
    link.service.explain(&link.device, &session);
    let Ok(mut session) = session else {
        return link.connack(NOT_AUTHORIZED).await;
    };
    let mut connection = Connection { link, hub, device_id, subscriptions: Vec::new() };
    let end = connection.run(&mut session).await;
    let Connection { link, hub, device_id, .. } = connection;
    link.service.with(|state| state.hubs.disconnect(&hub, &device_id, session.number));
    end
}

impl Connection {
    async fn run(&mut self, session: &mut Session) -> Result<(), Ended> {
        self.link.connack(ACCEPTED).await?;
        let expired = expired(session.left);
        tokio::pin!(expired);
        loop {
            let packet = tokio::select! {
                packet = self.link.next() => packet?,
                () = &mut expired => return Err(self.end("! expired")),
                _ = session.farewell.changed() => return Err(self.end(session.farewell.borrow().line())),
            };
            match packet {
                Packet::Connect(_) => return Err(self.link.close("a second CONNECT")),
                Packet::Subscribe { id, filters } => self.subscribe(id, &filters).await?,
                Packet::Unsubscribe { id, filters } => {
                    self.subscriptions.retain(|subscribed| !filters.contains(subscribed));
                    self.link.wire.send(&unsuback(id)).await?;
                }
                Packet::Publish(message) => self.receive(message).await?,
                Packet::PubAck => {}
                Packet::PingReq => self.link.wire.send(&PINGRESP).await?,
                Packet::Disconnect => {
                    self.link.say("> disconnect");
                    return Ok(());
                }
            }
        }
    }

    fn end(&self, why: &str) -> Ended {
        self.link.say(why);
        Ended
    }

    async fn subscribe(&mut self, id: u16, filters: &[(String, u8)]) -> Result<(), Ended> {
        for (filter, _) in filters {
            if !self.may_subscribe(filter) {
                return Err(self.link.close(&format!("subscription to {filter}")));
            }
            if !self.subscriptions.contains(filter) {
                self.subscriptions.push(filter.clone());
            }
        }
        if self.subscriptions.len() > SUBSCRIPTIONS {
            return Err(self.link.close("more than five subscriptions"));
        }
        let granted: Vec<u8> = filters.iter().map(|(_, qos)| (*qos).min(1)).collect();
        Ok(self.link.wire.send(&suback(id, &granted)).await?)
    }

    fn may_subscribe(&self, filter: &str) -> bool {
        let own = format!("devices/{}/messages/devicebound/", self.device_id);
        filter.strip_prefix(&own) == Some("#")
            || matches!(filter, "$iothub/methods/POST/#" | "$iothub/twin/res/#" | "$iothub/twin/PATCH/properties/desired/#")
    }

    async fn receive(&mut self, message: Publish) -> Result<(), Ended> {
        if message.qos == 2 {
            return Err(self.link.close("a message with QoS 2"));
        }
        let (id, qos) = (message.id, message.qos);
        let reply = self.take(message)?;
        if qos == 1 {
            self.link.wire.send(&puback(id)).await?;
        }
        match reply {
            Some(packet) => Ok(self.link.wire.send(&packet).await?),
            None => Ok(()),
        }
    }

    /// Takes a message in; what is to be said in return, if anything.
    fn take(&self, message: Publish) -> Result<Option<Vec<u8>>, Ended> {
        let own = format!("devices/{}/messages/events/", self.device_id);
        if message.topic.starts_with(&own) {
            self.link.say(format!("> hub publish {}", message.topic));
            let (device, hub) = (self.device_id.clone(), self.hub.clone());
            let telemetry = Telemetry { device, hub, topic: message.topic, payload: message.payload };
            self.link.service.with(|state| state.hubs.receive(telemetry));
            return Ok(None);
        }
        if message.topic.starts_with("$iothub/methods/res/") {
            return Ok(None);
        }
        self.twin(&message.topic).map(Some).ok_or_else(|| self.link.close(&format!("a message on {}", message.topic)))
    }

    /// An empty twin, enough for an SDK that asks for it at the start.
    fn twin(&self, topic: &str) -> Option<Vec<u8>> {
        let rid = |query| parameter(query, "$rid");
        if let Some(rid) = topic.strip_prefix("$iothub/twin/GET/?").and_then(rid) {
            let twin = br#"{"desired":{"$version":1},"reported":{"$version":1}}"#;
            return Some(publish(&format!("$iothub/twin/res/200/?$rid={rid}"), 0, 0, twin));
        }
        let rid = topic.strip_prefix("$iothub/twin/PATCH/properties/reported/?").and_then(rid)?;
        Some(publish(&format!("$iothub/twin/res/204/?$rid={rid}&$version=2"), 0, 0, b""))
    }
}

/// Returns when a token's life is over.
async fn expired(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}
