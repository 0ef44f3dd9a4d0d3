//! The control socket as clients see it, well-behaved and hostile ones. The server is the daemon's
//! own; behind it stands a stub that answers without a gateway.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lockgate::{
    daemon::vici::{self, BindError, EventName, Request, Server},
    wire::vici::{FrameReader, Message, Packet},
};
use mio::{Events, Poll, Token};
use tempfile::TempDir;

/// A server in a thread. `version` is answered, `list-conns` streams, `initiate` never ends,
/// `get-conns` broadcasts a log line.
struct Stub {
    folder: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stub {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let poll = Poll::new().unwrap();
        let path = folder.path().join("vici");
        let server = Server::bind(&path, 0o600, poll.registry(), Token(0)).unwrap();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || serve(poll, server, &stopped));
        Self {
            folder,
            stop,
            thread: Some(thread),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vici")
    }

    fn client(&self) -> Client {
        Client::connect(&self.path())
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        assert!(!self.path().exists());
    }
}

fn serve(mut poll: Poll, mut server: Server, stop: &AtomicBool) {
    let mut events = Events::with_capacity(16);
    while !stop.load(Ordering::Relaxed) {
        let wait = if server.has_input() { 0 } else { 10 };
        poll.poll(&mut events, Some(Duration::from_millis(wait)))
            .unwrap();
        for event in &events {
            if event.token() == Token(0) {
                server.accept(poll.registry());
            } else {
                server.ready(event);
            }
        }
        for (client, request) in server.requests() {
            match request {
                Request::Version => {
                    let mut answer = Message::new();
                    answer.set("daemon", "stub");
                    server.respond(client, answer);
                }
                Request::ListConns { .. } => {
                    let parts = (0..PARTS).map(|number| {
                        let mut part = Message::new();
                        part.set("number", number).set("filler", "x".repeat(1000));
                        part
                    });
                    server.respond_with_stream(client, EventName::ListConn, parts);
                }
                Request::GetConns => {
                    server.broadcast(EventName::Log, || {
                        let mut line = Message::new();
                        line.set("msg", "x".repeat(60_000));
                        line
                    });
                    server.respond(client, vici::success());
                }
                _ => {}
            }
        }
        server.flush();
    }
}

struct Client {
    stream: UnixStream,
    frames: FrameReader,
}

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            frames: FrameReader::new(),
        }
    }

    fn send(&mut self, packet: &Packet) {
        self.stream.write_all(&packet.encode()).unwrap();
    }

    fn request(&mut self, name: &str) {
        self.send(&Packet::CmdRequest {
            name: name.to_owned(),
            message: Message::new(),
        });
    }

    fn register(&mut self, event: &str) {
        self.send(&Packet::EventRegister(event.to_owned()));
        assert_eq!(self.receive(), Some(Packet::EventConfirm));
    }

    /// The next packet, or `None` if the server has closed the connection.
    fn receive(&mut self) -> Option<Packet> {
        let mut chunk = [0; 65_536];
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return Some(Packet::parse(&frame).unwrap());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.frames.push(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no packet: {error}"),
            }
        }
    }

    fn answers_version(&mut self) -> bool {
        self.request("version");
        matches!(self.receive(), Some(Packet::CmdResponse(answer)) if answer.get("daemon") == Some("stub"))
    }
}

#[test]
fn an_unknown_command_is_refused_and_the_next_one_is_answered() {
    let stub = Stub::start();
    let mut client = stub.client();
    client.request("make-coffee");
    assert_eq!(client.receive(), Some(Packet::CmdUnknown));
    assert!(client.answers_version());
}

#[test]
fn commands_with_missing_or_wrong_arguments_are_refused_with_a_reason() {
    let stub = Stub::start();
    let mut client = stub.client();
    for (command, key, value, complaint) in [
        ("initiate", "timeout", "5", "ike or child"),
        ("terminate", "force", "yes", "ike-id"),
        ("terminate", "ike-id", "one", "ike-id"),
        ("list-sas", "child-id", "-1", "child-id"),
        ("list-policies", "drop", "perhaps", "drop"),
        ("rekey", "reauth", "yes", "child-id"),
    ] {
        let mut message = Message::new();
        message.set(key, value);
        let name = command.to_owned();
        client.send(&Packet::CmdRequest { name, message });
        let Some(Packet::CmdResponse(answer)) = client.receive() else {
            panic!("{command} is answered");
        };
        assert_eq!(answer.get("success"), Some("no"));
        let reason = answer.get("errmsg").unwrap();
        assert!(reason.contains(complaint), "{command}: {reason}");
    }
}

#[test]
fn events_are_confirmed_once_and_only_known_ones() {
    let stub = Stub::start();
    let mut client = stub.client();
    for event in [
        "log",
        "control-log",
        "list-sa",
        "list-policy",
        "list-conn",
        "ike-updown",
        "ike-rekey",
        "child-updown",
        "child-rekey",
    ] {
        client.register(event);
        client.send(&Packet::EventUnregister(event.to_owned()));
        assert_eq!(client.receive(), Some(Packet::EventConfirm));
        client.send(&Packet::EventUnregister(event.to_owned()));
        assert_eq!(client.receive(), Some(Packet::EventUnknown));
    }
    client.send(&Packet::EventRegister("weather".to_owned()));
    assert_eq!(client.receive(), Some(Packet::EventUnknown));
}

#[test]
fn a_streaming_answer_reaches_a_slow_reader_whole_and_in_order() {
    let stub = Stub::start();
    let mut client = stub.client();
    client.register("list-conn");
    client.request("list-conns");
    thread::sleep(Duration::from_millis(100));
    for number in 0..PARTS {
        let Some(Packet::Event { name, message }) = client.receive() else {
            panic!("part {number} is there");
        };
        assert_eq!(name, "list-conn");
        assert_eq!(message.get("number"), Some(&*number.to_string()));
    }
    assert_eq!(client.receive(), Some(Packet::CmdResponse(Message::new())));
    assert!(client.answers_version());
}

#[test]
fn a_client_that_asks_on_without_reading_is_not_answered_on() {
    let stub = Stub::start();
    let mut client = stub.client();
    client.register("list-conn");
    let mut message = Message::new();
    message.set("filler", "x".repeat(60_000));
    let name = "list-conns".to_owned();
    let request = Packet::CmdRequest { name, message }.encode();
    let patience = Some(Duration::from_millis(300));
    client.stream.set_write_timeout(patience).unwrap();
    let taken = (0..100).take_while(|_| client.stream.write_all(&request).is_ok());
    let taken = taken.count();
    assert!(taken < 50, "{taken} answers wait in memory");
}

#[test]
fn parts_of_an_answer_go_only_to_a_client_that_registered_for_them() {
    let stub = Stub::start();
    let (mut asking, mut watching) = (stub.client(), stub.client());
    watching.register("list-conn");
    asking.request("list-conns");
    assert_eq!(asking.receive(), Some(Packet::CmdResponse(Message::new())));
    assert!(watching.answers_version());
}

#[test]
fn a_request_may_arrive_byte_by_byte_or_many_at_once() {
    let stub = Stub::start();
    let mut client = stub.client();
    let request = Packet::CmdRequest {
        name: "version".to_owned(),
        message: Message::new(),
    }
    .encode();
    for byte in &request {
        client.stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    client.stream.write_all(&request.repeat(100)).unwrap();
    for _ in 0..101 {
        assert!(matches!(client.receive(), Some(Packet::CmdResponse(_))));
    }
}

#[test]
fn a_client_that_stops_sending_still_gets_its_answers() {
    let stub = Stub::start();
    let mut client = stub.client();
    client.register("list-conn");
    client.request("list-conns");
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut parts = 0;
    while let Some(packet) = client.receive() {
        parts += u32::from(matches!(packet, Packet::Event { .. }));
    }
    assert_eq!(parts, PARTS);
}

#[test]
fn a_command_waits_for_the_one_before_it() {
    let stub = Stub::start();
    let mut client = stub.client();
    let mut message = Message::new();
    message.set("child", "lan");
    let name = "initiate".to_owned();
    client.send(&Packet::CmdRequest { name, message });
    client.request("version");
    let short = Duration::from_millis(200);
    client.stream.set_read_timeout(Some(short)).unwrap();
    let waited = client.stream.read(&mut [0; 64]).unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::WouldBlock);
    // Leaving in the middle of a command disturbs nobody.
    drop(client);
    assert!(stub.client().answers_version());
}

#[test]
fn a_segment_that_announces_too_much_ends_the_connection() {
    let stub = Stub::start();
    for length in [512 * 1024 + 1, u32::MAX] {
        let mut client = stub.client();
        client.stream.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(client.receive(), None);
    }
    assert!(stub.client().answers_version());
}

#[test]
fn a_malformed_request_gets_no_answer_and_costs_nothing_else() {
    let stub = Stub::start();
    let mut client = stub.client();
    let malformed: [&[u8]; 9] = [
        &[],
        &[0],
        &[9],
        &[0, 200, b'v'],
        &[0, 7, b'v', b'e', b'r', b's', b'i', b'o', b'n', 3, 1],
        &[0, 7, b'v', b'e', b'r', b's', b'i', b'o', b'n', 2],
        &[
            0, 7, b'v', b'e', b'r', b's', b'i', b'o', b'n', 4, 1, b'a', 1, 1, b'b',
        ],
        &[1],
        &[7, 3, b'l', b'o', b'g'],
    ];
    for payload in malformed {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        client
            .stream
            .write_all(&[&length, payload].concat())
            .unwrap();
    }
    assert!(client.answers_version());
}

#[test]
fn random_bytes_neither_stop_the_server_nor_reach_other_clients() {
    let stub = Stub::start();
    let mut witness = stub.client();
    let mut state = 0x4c47_u64;
    let mut random = move || {
        // xorshift64: the same bytes in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    };
    for round in 0..200_u32 {
        let mut client = stub.client();
        let body: Vec<u8> = (0..random()).map(|_| random()).collect();
        // Every other round is framed, so that the bytes get past the length.
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let framed = if round % 2 == 0 {
            [&length[..], &body].concat()
        } else {
            body
        };
        // The server may have closed the connection at the first bytes.
        let _ = client.stream.write_all(&framed);
        if round % 50 == 0 {
            assert!(witness.answers_version());
        }
    }
    assert!(witness.answers_version());
}

#[test]
fn a_client_that_does_not_read_is_disconnected_and_nobody_waits_for_it() {
    let stub = Stub::start();
    let (mut deaf, mut noisy) = (stub.client(), stub.client());
    deaf.register("log");
    for _ in 0..60 {
        noisy.request("get-conns");
        assert!(matches!(noisy.receive(), Some(Packet::CmdResponse(_))));
    }
    let mut lines = 0;
    while deaf.receive().is_some() {
        lines += 1;
    }
    assert!(lines < 60, "{lines}");
    assert!(noisy.answers_version());
}

#[test]
fn clients_beyond_the_limit_are_turned_away_until_others_leave() {
    let stub = Stub::start();
    let mut clients: Vec<Client> = (0..32).map(|_| stub.client()).collect();
    assert!(clients.iter_mut().all(Client::answers_version));
    assert_eq!(stub.client().receive(), None);
    clients.truncate(16);
    // The server sees the others leave before it sees the next one come.
    assert!(clients.iter_mut().all(Client::answers_version));
    assert!(stub.client().answers_version());
}

#[test]
fn the_socket_is_for_its_owner_alone_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/vici");
    fs::create_dir(folder.path().join("deep")).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());

    let poll = Poll::new().unwrap();
    let server = Server::bind(&path, 0o600, poll.registry(), Token(0)).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let second = Server::bind(&path, 0o600, poll.registry(), Token(1)).unwrap_err();
    assert!(matches!(second, BindError::InUse { .. }), "{second}");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vici");
    fs::write(&path, "precious").unwrap();
    let poll = Poll::new().unwrap();
    let refused = Server::bind(&path, 0o600, poll.registry(), Token(0)).unwrap_err();
    assert!(matches!(refused, BindError::NotASocket { .. }), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

const PARTS: u32 = 3000;
const PATIENCE: Duration = Duration::from_secs(30);
