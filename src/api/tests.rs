//! Requests as bytes, whole and broken, and who has to give up a seat.

use std::time::{Duration, Instant};

use super::message::{Answer, LARGEST_BODY, LARGEST_HEAD, Parsed, Request, parse};
use super::seats::{Room, Seat, Seats};

fn request(bytes: &str) -> Request {
    match parse(bytes.as_bytes()) {
        Ok(Parsed::Whole(request, used)) if used == bytes.len() => request,
        other => panic!("{other:?}"),
    }
}

fn refusal(bytes: &[u8]) -> (u16, String) {
    let Err(answer) = parse(bytes) else { panic!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)])) };
    let text = String::from_utf8(answer.render(false, true).expose().clone()).unwrap();
    let body: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    (answer.status, body["error"]["message"].as_str().unwrap().to_owned())
}

#[test]
fn a_request_is_read_in_each_form_that_clients_write() {
    let plain = request("GET /v1/assignment?after=3&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((plain.method.as_str(), plain.path.as_str(), plain.query.as_str()), ("GET", "/v1/assignment", "after=3&wait=60"));
    assert_eq!((plain.content_type, plain.body, plain.is_last), (None, vec![], false));
    let whole_url = request("GET http://localhost/v1/status HTTP/1.1\r\n\r\n");
    assert_eq!((whole_url.path.as_str(), whole_url.query.as_str()), ("/v1/status", ""));
    assert_eq!(request("GET http://localhost HTTP/1.1\r\n\r\n").path, "/");
    let sent = "POST /v1/connection HTTP/1.1\r\nContent-Type: Application/JSON; charset=utf-8\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(
        (request(sent).content_type.as_deref(), request(sent).body.as_slice()),
        (Some("application/json"), b"{}".as_slice())
    );
    let chunked =
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cli\r\n0a;x=y\r\nent\":null}\r\n0\r\nTrailer: x\r\n\r\n";
    assert_eq!(request(chunked).body, b"{\"client\":null}");
}

#[test]
fn the_last_request_of_a_connection_says_so() {
    for (head, is_last) in [
        ("GET / HTTP/1.1\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: foo, close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        assert_eq!(request(head).is_last, is_last, "{head}");
    }
}

#[test]
fn a_request_that_comes_in_pieces_is_waited_for() {
    for whole in [
        "POST /v1/connection HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"client\":null}",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cli\r\na\r\nent\":null}\r\n0\r\n\r\n",
    ] {
        for end in 0..whole.len() {
            assert!(matches!(parse(&whole.as_bytes()[..end]), Ok(Parsed::More { awaits_continue: false })), "{}", &whole[..end]);
        }
        let two = format!("{whole}GET / HTTP/1.1\r\n\r\n");
        assert!(matches!(parse(two.as_bytes()), Ok(Parsed::Whole(_, used)) if used == whole.len()), "{two}");
    }
    let hesitant = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(parse(hesitant).unwrap(), Parsed::More { awaits_continue: true });
}

#[test]
fn what_is_no_request_is_refused_in_words() {
    let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes();
    let many = "a: b\r\n".repeat(65);
    let chunked = |body: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    for (bytes, status, why) in [
        (b"\x16\x03\x01\x02\x00".to_vec(), 400, "this is no HTTP/1.1 request: invalid token"),
        (b"GET / HTTP/3.0\r\n\r\n".to_vec(), 400, "this is no HTTP/1.1 request: invalid HTTP version"),
        (head("no colon"), 400, "this is no HTTP/1.1 request: invalid header name"),
        (head(many.trim_end()), 431, "the request has more than 64 header fields"),
        (vec![b'A'; LARGEST_HEAD + 1], 431, "the head of the request is larger than 8192 bytes"),
        (head(&format!("a: {}", "b".repeat(LARGEST_HEAD))), 431, "the head of the request is larger than 8192 bytes"),
        (head("Content-Length: 16385"), 413, "the body is larger than 16384 bytes"),
        (head("Content-Length: 99999999999999999999999"), 413, "the body is larger than 16384 bytes"),
        (head("Content-Length: +5"), 400, "Content-Length \"+5\" is no number"),
        (head("Content-Length:"), 400, "Content-Length \"\" is no number"),
        (head("Content-Length: 5\r\nContent-Length: 5"), 400, "the header field content-length is there twice"),
        (head("Content-Length: \u{e9}"), 400, "Content-Length \"\u{e9}\" is no number"),
        (
            head("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            400,
            "the request has both Transfer-Encoding and Content-Length",
        ),
        (head("Transfer-Encoding: gzip"), 501, "Transfer-Encoding \"gzip\" is not understood; send it plain"),
        (chunked("x\r\n"), 400, "the body says that it is chunked, and is not"),
        (chunked("2\r\nabc\r\n"), 400, "the body says that it is chunked, and is not"),
        (chunked("5000\r\n"), 413, "the body is larger than 16384 bytes"),
        (chunked("ffffffffffffffff\r\n"), 413, "the body is larger than 16384 bytes"),
        (chunked(&format!("1{}", ";".repeat(LARGEST_HEAD + 1))), 400, "the body says that it is chunked, and is not"),
        (chunked(&"1;aaaa\r\nx\r\n".repeat(LARGEST_BODY)), 413, "the body is larger than 16384 bytes"),
    ] {
        assert_eq!(refusal(&bytes), (status, why.to_owned()), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    }
}

#[test]
fn the_largest_that_is_allowed_is_read() {
    let body = "x".repeat(LARGEST_BODY);
    assert_eq!(request(&format!("POST / HTTP/1.1\r\nContent-Length: {LARGEST_BODY}\r\n\r\n{body}")).body.len(), LARGEST_BODY);
    let begin = "GET / HTTP/1.1\r\na: ";
    request(&format!("{begin}{}\r\n\r\n", "b".repeat(LARGEST_HEAD - begin.len() - 4)));
}

#[test]
fn an_answer_has_the_fields_that_its_status_asks_for() {
    let text =
        |answer: Answer, head_only, is_last| String::from_utf8(answer.render(head_only, is_last).expose().clone()).unwrap();
    let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nContent-Length: 3\r\n";
    assert_eq!(text(Answer::json(&serde_json::json!({})), false, false), format!("{head}\r\n{{}}\n"));
    assert_eq!(text(Answer::json(&serde_json::json!({})), true, true), format!("{head}Connection: close\r\n\r\n"));
    assert_eq!(text(Answer::empty(304), false, false), "HTTP/1.1 304 Not Modified\r\nCache-Control: no-store\r\n\r\n");
    let busy = text(Answer::refused(429, "too often").retry_after(7), false, false);
    assert!(busy.starts_with("HTTP/1.1 429 Too Many Requests\r\n") && busy.contains("\r\nRetry-After: 7\r\n"), "{busy}");
    let wrong = text(Answer::refused(405, "no").allowing("GET, HEAD"), false, false);
    assert!(wrong.contains("\r\nAllow: GET, HEAD\r\n"), "{wrong}");
}

/// A room with these seats, and a moment.
fn room(connections: usize, per_user: usize) -> (Seats, Instant) {
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    let now = Instant::now();
    (Seats::new(Room { connections, per_user }), now)
}

/// Whether its holder has to go.
async fn is_lost(seat: &Seat) -> bool {
    tokio::time::timeout(Duration::ZERO, seat.lost()).await.is_ok()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn who_has_asked_nothing_for_the_longest_time_has_to_go() {
    run(async {
        let ((seats, now), second) = (room(3, 3), Duration::from_secs(1));
        let [one, two, three] = [0, 1, 2].map(|n| seats.take(n, now + second * n).unwrap());
        assert!(one.is_idle(now + second * 5), "it has just been answered");
        let four = seats.take(3, now + second * 6).unwrap();
        assert_eq!([is_lost(&one).await, is_lost(&two).await, is_lost(&three).await], [false, true, false]);
        assert!(!two.is_busy(), "the seat is another's");
        assert!(three.is_busy());
        drop(four);
        assert_eq!(seats.counts(), (2, 1));
        drop(two);
        assert_eq!(seats.counts(), (2, 1), "a lost seat is given back once");
    });
}

#[test]
fn who_waits_for_an_answer_stays() {
    run(async {
        let (seats, now) = room(2, 2);
        let [one, two] = [0, 1].map(|n| seats.take(n, now).unwrap());
        assert!(one.is_busy() && two.is_busy());
        assert!(seats.take(2, now).is_none());
        assert!(one.is_idle(now));
        assert!(seats.take(2, now).is_some());
        assert!(is_lost(&one).await && !is_lost(&two).await);
    });
}

#[test]
fn a_user_with_too_many_makes_room_himself() {
    run(async {
        let (seats, now) = room(10, 2);
        let other = seats.take(1, now).unwrap();
        let [first, second] = [1, 2].map(|n| seats.take(7, now + Duration::from_secs(n)).unwrap());
        let third = seats.take(7, now + Duration::from_secs(3)).unwrap();
        assert_eq!([is_lost(&other).await, is_lost(&first).await, is_lost(&second).await], [false, true, false]);
        assert!(second.is_busy() && third.is_busy());
        assert!(seats.take(7, now).is_none() && seats.take(1, now).is_some());
    });
}

#[test]
fn at_the_end_everybody_goes_and_nobody_comes() {
    run(async {
        let (seats, now) = room(5, 5);
        let [idle, busy] = [0, 1].map(|n| seats.take(n, now).unwrap());
        assert!(busy.is_busy());
        seats.close();
        assert!(is_lost(&idle).await && !is_lost(&busy).await);
        assert!(!busy.is_idle(now), "its answer was the last");
        assert!(seats.take(2, now).is_none());
    });
}
