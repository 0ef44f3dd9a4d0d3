//! A control socket that plays a daemon: it answers what the test tells it to.

use lockgate::wire::vici::{FrameReader, Message, Packet};
use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// Commands with their arguments, in the order in which they came.
type Requests = Arc<Mutex<Vec<(String, Message)>>>;

pub(crate) struct FakeDaemon {
    folder: tempfile::TempDir,
    requests: Requests,
}

impl FakeDaemon {
    /// Serves one client at a time; `answer` has the packets for each command. Registrations are
    /// confirmed.
    pub(crate) fn start(answer: impl Fn(&str) -> Vec<Packet> + Send + 'static) -> Self {
        Self::serve(move |mut stream, requests| {
            let mut frames = FrameReader::new();
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut chunk) {
                frames.push(chunk.get(..length).unwrap_or_default());
                while let Some(frame) = frames.next_frame().expect("the client speaks VICI") {
                    let replies = match Packet::parse(&frame).expect("the client speaks VICI") {
                        Packet::CmdRequest { name, message } => {
                            let replies = answer(&name);
                            requests.lock().expect("no panic").push((name, message));
                            replies
                        }
                        Packet::EventRegister(name) if name == "unheard-of" => {
                            vec![Packet::EventUnknown]
                        }
                        Packet::EventRegister(name) => {
                            let mut replies = vec![Packet::EventConfirm];
                            replies.extend(answer(&format!("register {name}")));
                            replies
                        }
                        Packet::EventUnregister(_) => vec![Packet::EventConfirm],
                        other => panic!("a client does not send {other:?}"),
                    };
                    for reply in replies {
                        if stream.write_all(&reply.encode()).is_err() {
                            return;
                        }
                    }
                }
            }
        })
    }

    /// Answers the first request with these bytes, and hangs up.
    pub(crate) fn babbling(bytes: &'static [u8]) -> Self {
        Self::serve(move |mut stream, _| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        Self::path(self.folder.path())
    }

    pub(crate) fn requests(&self) -> Vec<(String, Message)> {
        self.requests.lock().expect("no panic").clone()
    }

    fn serve(mut client: impl FnMut(UnixStream, &Requests) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(Self::path(folder.path())).expect("a socket");
        let requests = Requests::default();
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                client(stream, &seen);
            }
        });
        Self { folder, requests }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("lockgate.vici")
    }
}

/// `success = yes`, with more keys.
pub(crate) fn success(keys: &[(&str, &str)]) -> Vec<Packet> {
    vec![Packet::CmdResponse(message(
        &[&[("success", "yes")], keys].concat(),
    ))]
}

/// `success = no`, and why.
pub(crate) fn refusal(reason: &str) -> Vec<Packet> {
    vec![Packet::CmdResponse(message(&[
        ("success", "no"),
        ("errmsg", reason),
    ]))]
}

pub(crate) fn event(name: &str, message: Message) -> Packet {
    Packet::Event {
        name: name.to_owned(),
        message,
    }
}

pub(crate) fn message(keys: &[(&str, &str)]) -> Message {
    let mut message = Message::new();
    for (key, value) in keys {
        message.set(*key, value);
    }
    message
}

/// A message that holds `inner` as its section `name`.
pub(crate) fn section(name: &str, inner: Message) -> Message {
    let mut message = Message::new();
    message.section(name, inner);
    message
}
