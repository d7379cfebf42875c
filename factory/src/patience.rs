//! Tells on stderr why a run stands still: the pipeline tries again by itself, for minutes, and says nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use tokio::time::Instant;

use crate::http;

/// No more often than this.
const LINES: Duration = Duration::from_secs(5);

/// Watches every try, also those whose failure is not the end.
#[derive(Debug)]
pub struct Patience {
    host: String,
    told: Mutex<Option<Instant>>,
}

impl Patience {
    /// For requests to this host.
    pub fn new(host: String) -> Self {
        Self { host, told: Mutex::default() }
    }

    fn tell(&self, what: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= LINES) {
            *told = Some(Instant::now());
            eprintln!("dps-factory: {} {what}", self.host);
        }
    }
}

#[async_trait]
impl Policy for Patience {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let outcome = match next.split_first() {
            Some((first, rest)) => first.send(context, request, rest).await,
            None => Err(azure_core::Error::with_message(ErrorKind::Other, "nobody sends the request")),
        };
        match &outcome {
            Ok(answer) if matches!(u16::from(answer.status()), 408 | 429 | 500..) => {
                self.tell(&format!("answered {}, so we wait", u16::from(answer.status())));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Io) => {
                self.tell(&format!("gave no answer ({})", http::chain(error)));
            }
            Ok(_) | Err(_) => {}
        }
        outcome
    }
}
