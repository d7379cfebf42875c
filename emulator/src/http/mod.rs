//! HTTPS connections: requests are read here and routed, to the provisioning service or into a WebSocket.

mod dps;
mod request;
mod response;
mod route;
mod websocket;

use crate::answer::Answer;
use crate::fault::{Delivery, Misdeed, Plain};
use crate::mqtt::GARBAGE;
use crate::names::parameter;
use crate::requests::Request as Asks;
use crate::service::{Service, Via};
use request::Broken;
use route::Route;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) use request::{Reader, Request};
pub(crate) use response::to_bytes;

/// One connection.
struct Connection {
    service: Arc<Service>,
    stream: TlsStream<TcpStream>,
    certificates: Vec<CertificateDer<'static>>,
    /// No request has been routed yet.
    fresh: bool,
}

/// The rest of a connection is nobody's business any more.
struct Ended;

impl From<std::io::Error> for Ended {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(service: Arc<Service>, stream: TlsStream<TcpStream>, certificates: Vec<CertificateDer<'static>>) {
    let mut connection = Connection { service, stream, certificates, fresh: true };
    let mut reader = Reader::default();
    loop {
        let request = match reader.next(&mut connection.stream).await {
            Ok(request) => request,
            Err(Broken::Closed) => return,
            Err(Broken::Request(status, why)) => {
                connection.service.say(None, format!("! closed: {why}"));
                let _ = connection.send(&to_bytes(&Answer::raw(status, Vec::new()), false)).await;
                return;
            }
        };
        if request.is_upgrade() {
            let (received, Connection { service, stream, certificates, .. }) = (reader.into_rest(), connection);
            return websocket::serve(service, stream, received, &request, certificates).await;
        }
        if connection.answer(&request).await.is_err() || !request.keep_alive {
            let _ = connection.stream.shutdown().await;
            return;
        }
    }
}

impl Connection {
    async fn answer(&mut self, request: &Request) -> Result<(), Ended> {
        let route = Route::of(request);
        let device = route.as_ref().ok().map(|route| route.speaker().to_owned());
        let device = device.as_deref();
        let mut answer = None;
        if std::mem::take(&mut self.fresh) {
            let own = route.as_ref().ok().and_then(Route::device);
            match own {
                Some(own) => self.service.note(own, Asks::Connect(Via::Https)),
                None => self.service.say(device, format!("> connect {}", Via::Https.name())),
            }
            let fault = self.service.fault(own, crate::fault::Stage::Connect, fits_connect);
            answer = self.play(device, fault).await?;
        }
        match (answer, route) {
            (Some(answer), _) => self.say_and_send(device, answer, request, None).await,
            (None, Err(answer)) => self.say_and_send(device, answer, request, None).await,
            (None, Ok(route)) => self.call(&route, request).await,
        }
    }

    async fn call(&mut self, route: &Route, request: &Request) -> Result<(), Ended> {
        let device = Some(route.speaker());
        route.say(&self.service, request);
        let fault = self.service.fault(route.device(), route.stage(), fits_https);
        let (delivery, lie) = match &fault {
            Some(Misdeed::Plain(plain)) => {
                self.play_plain(device, *plain).await?;
                (None, None)
            }
            Some(Misdeed::Delivery(delivery)) => (Some(*delivery), None),
            Some(Misdeed::Answer(lie)) => (None, Some(lie)),
            Some(Misdeed::Connack(_)) | None => (None, None),
        };
        let answer = route.answer(&self.service, request, &self.certificates, lie);
        self.say_and_send(device, answer, request, delivery).await
    }

    /// Plays a fault at the first request; an answer that the fault gives instead of ours.
    async fn play(&mut self, device: Option<&str>, fault: Option<Misdeed>) -> Result<Option<Answer>, Ended> {
        match fault {
            Some(Misdeed::Plain(plain)) => self.play_plain(device, plain).await.map(|()| None),
            Some(Misdeed::Answer(lie)) => Ok(crate::registration::lie_alone(&lie)),
            Some(Misdeed::Connack(_) | Misdeed::Delivery(_)) | None => Ok(None),
        }
    }

    async fn play_plain(&mut self, device: Option<&str>, plain: Plain) -> Result<(), Ended> {
        self.service.say(device, format!("! {}", plain.name()));
        play_plain(&mut self.stream, plain).await
    }

    async fn say_and_send(
        &mut self,
        device: Option<&str>,
        answer: Answer,
        request: &Request,
        delivery: Option<Delivery>,
    ) -> Result<(), Ended> {
        if let Some(delivery) = delivery {
            self.service.say(device, format!("! {}", delivery.name()));
        }
        if delivery == Some(Delivery::LateDrop) {
            return Err(Ended);
        }
        self.service.say_answer(device, &answer);
        let bytes = to_bytes(&answer, request.keep_alive);
        match delivery {
            Some(Delivery::Truncate) => {
                self.send(&bytes[..bytes.len() / 2]).await?;
                Err(Ended)
            }
            Some(Delivery::Duplicate) => self.send(&[bytes.clone(), bytes].concat()).await,
            Some(Delivery::StaleRid | Delivery::OnlyStaleRid | Delivery::LateDrop) | None => self.send(&bytes).await,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }
}

/// Plays a fault of a connection; `Err`: it is over.
async fn play_plain(stream: &mut TlsStream<TcpStream>, plain: Plain) -> Result<(), Ended> {
    match plain {
        Plain::Slow(delay) => {
            tokio::time::sleep(delay).await;
            return Ok(());
        }
        Plain::Drop => {}
        Plain::Silence => hold(stream).await,
        Plain::Garbage => {
            stream.write_all(GARBAGE).await?;
            stream.flush().await?;
            hold(stream).await;
        }
    }
    Err(Ended)
}

/// What every API of the service asks of a call's form; the error is a code and a message.
pub(crate) fn check_form(service: &Service, request: &Request, methods: &[&str]) -> Result<(), (u32, &'static str)> {
    if !methods.contains(&request.method.as_str()) {
        return Err((405_000, "Method not allowed."));
    }
    match parameter(&request.query, "api-version") {
        Some(version) if service.speaks(&version) => {}
        Some(_) => return Err((400_000, "The api-version is not known.")),
        None => return Err((400_000, "The api-version is missing.")),
    }
    if !request.body.is_empty() && !is_json(request) {
        return Err((415_000, "The content type is not application/json."));
    }
    Ok(())
}

fn is_json(request: &Request) -> bool {
    let kind = request.header("content-type").unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn hold(stream: &mut TlsStream<TcpStream>) {
    let mut sink = [0; 1024];
    while matches!(stream.read(&mut sink).await, Ok(read) if read > 0) {}
}

/// CONNACK is a matter of MQTT.
fn fits_connect(misdeed: &Misdeed) -> bool {
    matches!(misdeed, Misdeed::Plain(_) | Misdeed::Answer(_))
}

/// So is `$rid`.
fn fits_https(misdeed: &Misdeed) -> bool {
    !matches!(misdeed, Misdeed::Connack(_) | Misdeed::Delivery(Delivery::StaleRid | Delivery::OnlyStaleRid))
}
