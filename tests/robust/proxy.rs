//! An HTTP proxy that wants credentials.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A proxy that opens the way to whoever shows these credentials.
pub fn proxy(credentials: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let expected = format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(credentials));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, expected) = (stream.unwrap(), expected.clone());
            thread::spawn(move || tunnel(stream, &expected));
        }
    });
    port
}

fn tunnel(mut stream: TcpStream, expected: &str) {
    let header = header(&mut stream);
    if !header.contains(expected) {
        let page = format!("HTTP/1.1 407 Who are you?\r\nX-Echo: {}\r\n\r\n{header}", header.replace("\r\n", " "));
        return drop(stream.write_all(page.as_bytes()));
    }
    let place = header.split(' ').nth(1).unwrap();
    let mut server = TcpStream::connect(place).unwrap();
    stream.write_all(b"HTTP/1.1 200 Go\r\n\r\n").unwrap();
    let (mut up, mut down) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut up, &mut server));
    let _ = std::io::copy(&mut down, &mut stream);
}

/// Up to the empty line.
pub fn header(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}
