//! Servers that do not do what they should, and addresses that are not to be asked.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;
use crate::io::netns;

/// For an OCSP response, before the test gives up.
fn wish(uri: String, configured: bool) -> Fetch {
    Fetch {
        id: FetchId(1),
        uri,
        configured,
        question: Some(b"question".to_vec()),
        deadline: Instant::now() + Duration::from_secs(120),
    }
}

/// For what the configuration names, both kinds.
fn wishes(uri: &str) -> [Fetch; 2] {
    let answer = wish(uri.to_owned(), true);
    let list = Fetch {
        question: None,
        ..answer.clone()
    };
    [answer, list]
}

/// A server on loopback that treats every client so, after it has read something. It runs as long as
/// the tests do.
fn serve(treat: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut request = [0; 4096];
            let treated = stream.read(&mut request).and_then(|_| treat(&mut stream));
            // Unread bytes at the end would take back what was sent. A client may go when it likes.
            let ended = treated.and_then(|()| stream.shutdown(Shutdown::Write));
            let _ = ended.and_then(|()| io::copy(&mut stream, &mut io::sink()));
        }
    });
    format!("http://{address}/")
}

fn respond(stream: &mut TcpStream, status: &str, fields: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{fields}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

#[test]
fn a_certificate_may_not_lead_to_this_machine_or_its_link() {
    for text in [
        "127.0.0.1:80",
        "127.8.9.1:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "0.0.0.0:80",
        "[::]:80",
        "169.254.169.254:80",
        "[fe80::1]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
    ] {
        assert!(!may_be_asked(text.parse().expect("an address")), "{text}");
    }
    for text in [
        "10.0.0.1:80",
        "198.51.100.1:80",
        "[2001:db8::1]:80",
        "[fd00::1]:80",
    ] {
        assert!(may_be_asked(text.parse().expect("an address")), "{text}");
    }
}

/// Which addresses there are depends on the machine.
/// The routing table has the first address of a prefix as source for the second.
#[test]
fn every_address_of_this_machine_is_known_as_such() {
    let Some(namespace) = netns::for_test("addresses") else {
        return;
    };
    namespace.up("lo").expect("a loopback device");
    let own = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
    for (address, len) in own.into_iter().zip([24, 24, 64, 64]) {
        let address = format!("{address}/{len}").parse().expect("an address");
        namespace.add_address("lo", address).expect("added");
    }
    namespace.run(move || {
        for address in own {
            assert!(is_ours(address.parse().expect("an address")), "{address}");
        }
        assert!(!is_ours("198.51.100.1".parse().expect("an address")));
    });
}

#[test]
fn no_thread_runs_before_there_is_a_wish() {
    let poll = mio::Poll::new().expect("epoll");
    let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
    let waker = Arc::new(waker);
    let mut fetcher = Fetcher::new(Arc::clone(&waker));
    // Each thread owns a worker, and each worker shares the waker with us.
    let workers = || Arc::strong_count(&waker) - 1;
    assert!(fetcher.to_start.is_some());
    assert_eq!(workers(), 1, "the one to copy");
    for _ in 0..2 {
        let refused = fetcher.ask(wish("http://127.0.0.1:1/".to_owned(), false));
        assert!(refused.is_none() && fetcher.to_start.is_none());
        assert_eq!(workers(), THREADS);
        let (_, outcome) = fetcher.outcomes.recv().expect("an outcome");
        outcome.expect_err("not from a certificate");
    }
}

#[test]
fn loopback_is_asked_only_if_the_configuration_names_it() {
    let uri = serve(|stream| respond(stream, "200 OK", "", b"answer"));
    let agents = Agents::new();
    let refused = agents
        .fetch(&wish(uri.clone(), false))
        .expect_err("loopback");
    assert!(refused.contains("host not found"), "{refused}");
    match agents.fetch(&wish(uri, true)) {
        Ok(Fetched::Answer(answer)) => assert_eq!(answer, b"answer"),
        other => panic!("{other:?}"),
    }
    agents
        .fetch(&wish("file:///etc/passwd".to_owned(), true))
        .expect_err("no http");
}

/// However slowly time passes for the server, what ends is the wish.
#[test]
fn a_server_that_is_silent_or_trickles_is_left_at_the_deadline() {
    /// Repeats these bytes, one at a time, until the client has gone.
    fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes.iter().cycle() {
            stream.write_all(&[*byte])?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
    fn wait(stream: &mut TcpStream) -> io::Result<()> {
        io::copy(stream, &mut io::sink()).map(drop)
    }
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let servers = [
        serve(wait),
        serve(|stream| {
            stream.write_all(HEAD)?;
            wait(stream)
        }),
        serve(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            trickle(stream, b"a: b\r\n")
        }),
        serve(|stream| {
            stream.write_all(HEAD)?;
            trickle(stream, b"0")
        }),
    ];
    let agents = Agents::new();
    for (number, uri) in servers.iter().enumerate() {
        for mut wish in wishes(uri) {
            wish.deadline = Instant::now() + Duration::from_millis(100);
            let reason = agents.fetch(&wish).expect_err("nothing was sent");
            assert!(reason.contains("timeout"), "{number}: {reason}");
        }
    }
}

#[test]
fn what_is_longer_than_its_limit_is_not_read_to_its_end() {
    /// Sends these bytes until the client has gone.
    fn flood(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        loop {
            stream.write_all(bytes)?;
        }
    }
    let agents = Agents::new();
    let too_long = "larger than request limit";
    for (head, repeated, why) in [
        ("HTTP/1.1 200 OK\r\n\r\n", vec![0; 1 << 16], too_long),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            vec![0; 1 << 16],
            too_long,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            [&b"8000\r\n"[..], &[0; 0x8000], b"\r\n"].concat(),
            too_long,
        ),
        (
            "HTTP/1.1 200 OK\r\na: ",
            vec![b'a'; 1 << 16],
            "response header is too big",
        ),
        ("HTTP/1.1 200 OK\r\n", b"a: b\r\n".repeat(10_000), ""),
        ("", b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), ""),
    ] {
        let uri = serve(move |stream| {
            stream.write_all(head.as_bytes())?;
            flood(stream, &repeated)
        });
        for wish in wishes(&uri) {
            let reason = agents.fetch(&wish).expect_err("too long");
            assert!(reason.contains(why), "{head}: {reason}");
        }
    }
}

#[test]
fn an_answer_may_be_as_long_as_its_limit_and_no_longer() {
    let agents = Agents::new();
    for more in [0, 1] {
        let answer = vec![7; ocsp::MOST_BYTES + more];
        let uri = serve(move |stream| respond(stream, "200 OK", "", &answer));
        let fetched = agents.fetch(&wish(uri, true));
        assert_eq!(fetched.is_ok(), more == 0, "{fetched:?}");
    }
}

#[test]
fn nobody_is_followed_and_only_an_answer_counts_as_one() {
    let (tell, told) = mpsc::channel();
    let elsewhere = serve(move |stream| {
        let _ = tell.send(());
        respond(stream, "200 OK", "", b"answer")
    });
    let agents = Agents::new();
    for status in [
        "204 No Content",
        "206 Partial Content",
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
        "404 Not Found",
        "500 Internal Server Error",
    ] {
        let location = format!("location: {elsewhere}\r\n");
        let uri = serve(move |stream| respond(stream, status, &location, b"answer"));
        for wish in wishes(&uri) {
            let reason = agents.fetch(&wish).expect_err(status);
            let expected = format!("http status: {}", &status[..3]);
            assert!(reason.contains(&expected), "{status}: {reason}");
        }
    }
    assert!(told.try_recv().is_err(), "a redirect was followed");
}

#[test]
fn a_wish_for_which_there_is_no_room_is_given_back_at_once() {
    let poll = mio::Poll::new().expect("epoll");
    let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
    let mut fetcher = Fetcher::new(Arc::new(waker));
    // No thread takes anything from the queue.
    let _worker = fetcher.to_start.take();
    let mut ask = |id| {
        let wish = wish("http://192.0.2.1/".to_owned(), true);
        fetcher.ask(Fetch {
            id: FetchId(id),
            ..wish
        })
    };
    for id in 0..64 {
        assert!(ask(id).is_none(), "{id}");
    }
    let (id, outcome) = ask(64).expect("no room");
    assert_eq!(id, FetchId(64));
    assert_eq!(
        outcome.expect_err("not fetched"),
        "too much is being fetched"
    );
}
