//! HTTPS requests.
use crate::service::Service;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) async fn serve(
    _service: Arc<Service>,
    _stream: TlsStream<TcpStream>,
    _certificates: Vec<CertificateDer<'static>>,
) {
}
