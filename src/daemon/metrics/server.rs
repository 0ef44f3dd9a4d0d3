//! The metrics thread: a bounded number of clients, each with a bounded time.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener as StdListener},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use super::{
    Desk,
    http::{self, Format, HEAD_LEN, Refusal, Request, Wanted},
    page::{self, Snapshot},
};

/// The thread before and while it runs.
#[derive(Debug)]
pub(super) struct Server {
    poll: Poll,
    listener: TcpListener,
    desk: Arc<Desk>,
    clients: Vec<Option<Client>>,
    /// The last text and until when it is served again.
    text: Option<(Arc<str>, Instant)>,
    /// Since when a snapshot is awaited.
    asked: Option<Instant>,
    /// The listener may have more.
    accepting: bool,
}

#[derive(Debug)]
struct Client {
    socket: TcpStream,
    state: State,
    /// When the state ends by itself.
    deadline: Instant,
    /// It wants the head of the answer only.
    is_head: bool,
}

#[derive(Debug)]
enum State {
    /// The request is not complete.
    Reading(Vec<u8>),
    /// The request waits for a snapshot.
    Waiting(Format),
    /// The answer is on its way: a head, the metrics if it has some, and how much of both is written.
    Writing {
        head: String,
        body: Option<Arc<str>>,
        written: usize,
    },
    /// All is written. What the client still sends is read, lest it be told of a reset first.
    Draining,
}

/// A client is done with, well or not.
struct Done;

impl Server {
    pub(super) fn new(poll: Poll, listener: StdListener, desk: Arc<Desk>) -> io::Result<Self> {
        let mut listener = TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            desk,
            clients: (0..CLIENTS).map(|_| None).collect(),
            text: None,
            asked: None,
            accepting: true,
        })
    }

    /// Serves until the daemon ends.
    pub(super) fn run(mut self) {
        // Packets go before metrics where both want the same core.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "metrics run at the priority of everything else");
        }
        let mut events = Events::with_capacity(CLIENTS + 2);
        while !self.desk.stop.load(Ordering::Acquire) {
            let timeout = self.time_to_sleep(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "metrics end here");
                return;
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accepting = true,
                    WAKE => {}
                    Token(number) => self.serve(number - FIRST_CLIENT.0, now),
                }
            }
            if let Some(snapshot) = self.desk.snapshot.pop() {
                self.publish(snapshot, now);
            }
            self.accept(now);
            self.expire(now);
        }
    }

    fn time_to_sleep(&self, now: Instant) -> Option<Duration> {
        let clients = self.clients.iter().flatten();
        let next = clients.map(|client| client.deadline).min();
        let sleep = next.map(|at| at.saturating_duration_since(now));
        // An error or a flood left the listener unread, and readiness is told only once.
        let retry = self.accepting.then_some(ACCEPT_RETRY);
        let text = self.text.as_ref();
        let stale = text.map(|(_, until)| until.saturating_duration_since(now));
        [sleep, retry, stale].into_iter().flatten().min()
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..CLIENTS {
            if !self.accepting {
                return;
            }
            match self.listener.accept() {
                Ok((socket, _)) => {
                    if let Some(place) = self.admit(socket, now) {
                        // Most requests have arrived with their connection.
                        self.serve(place, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.accepting = false,
                Err(_) => return,
            }
        }
    }

    /// Finds a place, if need be that of the client who has been idle with it for the longest time.
    fn admit(&mut self, mut socket: TcpStream, now: Instant) -> Option<usize> {
        let free = self.clients.iter().position(Option::is_none);
        let place = free.or_else(|| {
            let clients = self.clients.iter().enumerate();
            let rank = |client: &Client| (client.state.rank(), client.deadline);
            let taken = clients.filter_map(|(place, client)| Some((place, rank(client.as_ref()?))));
            taken.min_by_key(|&(_, rank)| rank).map(|(place, _)| place)
        })?;
        let slot = self.clients.get_mut(place)?;
        *slot = None; // closes the socket, which takes it out of the poll
        let token = Token(FIRST_CLIENT.0 + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, token, interest)
            .ok()?;
        *slot = Some(Client {
            socket,
            state: State::Reading(Vec::new()),
            deadline: now + READ_TIME,
            is_head: false,
        });
        Some(place)
    }

    /// Goes on with one client as far as that goes without waiting.
    fn serve(&mut self, place: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else {
            return; // an event of a client that had this place before
        };
        let wanted = match client.advance(now) {
            Ok(None) => return,
            Ok(Some(request)) => {
                client.is_head = request.is_head;
                request.wanted
            }
            Err(Done) => {
                self.close(place);
                return;
            }
        };
        let fresh = self.text.as_ref().filter(|(_, until)| now < *until);
        match (wanted, fresh) {
            (Wanted::Metrics(_), _) if self.is_crowded() => {
                self.answer(place, http::refusal(Refusal::Busy), None, now);
            }
            (Wanted::Metrics(format), Some((text, _))) => {
                let text = Arc::clone(text);
                self.answer_metrics(place, format, text, now);
            }
            (Wanted::Metrics(format), None) => {
                if self.asked.is_none() {
                    self.asked = Some(now);
                    self.desk.ask();
                }
                if let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) {
                    client.enter(State::Waiting(format), now + WAIT_TIME);
                }
            }
            (Wanted::Index, _) => self.answer(place, http::index(), None, now),
            (Wanted::Refusal(reason), _) => self.answer(place, http::refusal(reason), None, now),
        }
    }

    /// Clients that are slow to read keep old texts alive, so only so many may be.
    fn is_crowded(&self) -> bool {
        let clients = self.clients.iter().flatten();
        let busy = clients.filter(|client| matches!(client.state, State::Writing { .. }));
        busy.count() >= READERS
    }

    /// Renders a snapshot and answers those who waited for it.
    fn publish(&mut self, snapshot: Snapshot, now: Instant) {
        let text: Arc<str> = page::render(Arc::new(snapshot)).into();
        let done = Instant::now();
        let cost = done.saturating_duration_since(self.asked.take().unwrap_or(now));
        let until = done + (cost * KEEP).min(KEEP_AT_MOST);
        self.text = Some((Arc::clone(&text), until));
        for place in 0..self.clients.len() {
            if let Some(Some(client)) = self.clients.get(place)
                && let State::Waiting(format) = client.state
            {
                self.answer_metrics(place, format, Arc::clone(&text), done);
            }
        }
    }

    fn answer_metrics(&mut self, place: usize, format: Format, text: Arc<str>, now: Instant) {
        let head = http::metrics_head(format, text.len());
        self.answer(place, head, Some(text), now);
    }

    fn answer(&mut self, place: usize, mut head: String, mut body: Option<Arc<str>>, now: Instant) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        if client.is_head {
            http::keep_head(&mut head);
            body = None;
        }
        let answer = State::Writing {
            head,
            body,
            written: 0,
        };
        client.enter(answer, now + WRITE_TIME);
        if client.advance(now).is_err() {
            self.close(place);
        }
    }

    /// Ends what has taken too long, and frees a text that is not served again: it may be large.
    fn expire(&mut self, now: Instant) {
        self.text.take_if(|(_, until)| *until <= now);
        for place in 0..self.clients.len() {
            let Some(Some(client)) = self.clients.get(place) else {
                continue;
            };
            if now < client.deadline {
                continue;
            }
            match client.state {
                State::Reading(_) => self.answer(place, http::refusal(Refusal::Timeout), None, now),
                State::Waiting(_) => self.answer(place, http::refusal(Refusal::Busy), None, now),
                State::Writing { .. } | State::Draining => self.close(place),
            }
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(slot) = self.clients.get_mut(place) {
            *slot = None;
        }
    }
}

impl State {
    /// Who gives way first when there is no place: who is done, then who has asked for nothing yet.
    fn rank(&self) -> u8 {
        match self {
            Self::Draining => 0,
            Self::Reading(_) => 1,
            Self::Writing { .. } => 2,
            Self::Waiting(_) => 3,
        }
    }
}

impl Client {
    fn enter(&mut self, state: State, deadline: Instant) {
        self.state = state;
        self.deadline = deadline;
    }

    /// Reads or writes what is possible now. A request is told once.
    fn advance(&mut self, now: Instant) -> Result<Option<Request>, Done> {
        match &mut self.state {
            State::Reading(head) => return read_request(&mut self.socket, head),
            State::Waiting(_) => {}
            State::Writing {
                head,
                body,
                written,
            } => {
                let body = body.as_deref().unwrap_or_default();
                if write_answer(&mut self.socket, [head, body], written)? {
                    // The client may have left by now.
                    let _ = self.socket.shutdown(Shutdown::Write);
                    self.enter(State::Draining, now + DRAIN_TIME);
                    return self.advance(now);
                }
            }
            State::Draining => drain(&mut self.socket)?,
        }
        Ok(None)
    }
}

fn read_request(socket: &mut TcpStream, head: &mut Vec<u8>) -> Result<Option<Request>, Done> {
    let mut chunk = [0; 2048];
    loop {
        let room = HEAD_LEN.saturating_sub(head.len()).min(chunk.len());
        let length = match socket.read(chunk.get_mut(..room).unwrap_or_default()) {
            Ok(0) => return Err(Done),
            Ok(length) => length,
            Err(error) => return not_now(&error).map(|()| None),
        };
        let looked_at = head.len();
        head.extend(chunk.iter().take(length));
        if may_be_complete(head, looked_at)
            && let Some(request) = http::parse(head)
        {
            return Ok(Some(request));
        }
    }
}

/// Whether a look at the request is worth its time, of which a client that sends single bytes would
/// otherwise cause a lot.
fn may_be_complete(head: &[u8], looked_at: usize) -> bool {
    let new = head.get(looked_at.saturating_sub(3)..).unwrap_or_default();
    let ends = |end: &[u8]| new.windows(end.len()).any(|window| window == end);
    looked_at == 0 || head.len() >= HEAD_LEN || ends(b"\r\n\r\n") || ends(b"\n\n")
}

/// Writes on from `written`; true when all is written.
fn write_answer(
    socket: &mut TcpStream,
    parts: [&str; 2],
    written: &mut usize,
) -> Result<bool, Done> {
    let [head, body] = parts.map(str::as_bytes);
    loop {
        let rest = match head.get(*written..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => body.get(*written - head.len()..).unwrap_or_default(),
        };
        if rest.is_empty() {
            return Ok(true);
        }
        match socket.write(rest) {
            Ok(length) => *written += length,
            Err(error) => return not_now(&error).map(|()| false),
        }
    }
}

fn drain(socket: &mut TcpStream) -> Result<(), Done> {
    let mut chunk = [0; 2048];
    for _ in 0..DRAINS {
        match socket.read(&mut chunk) {
            Ok(0) => return Err(Done),
            Ok(_) => {}
            Err(error) => return not_now(&error),
        }
    }
    Err(Done)
}

fn not_now(error: &io::Error) -> Result<(), Done> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(Done),
    }
}

pub(super) const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_CLIENT: Token = Token(2);
/// Clients at a time.
const CLIENTS: usize = 64;
/// Clients at a time that are sent metrics.
const READERS: usize = 8;
const READ_TIME: Duration = Duration::from_secs(5);
const WAIT_TIME: Duration = Duration::from_secs(5);
const WRITE_TIME: Duration = Duration::from_secs(10);
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Reads of what a client sends after its answer.
const DRAINS: usize = 16;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// A text is served for so many times as long as it took to make: however often clients ask, making
/// texts takes a tenth of a core at most.
const KEEP: u32 = 9;
const KEEP_AT_MOST: Duration = Duration::from_secs(2);
const NICE: i32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::queue::ArrayQueue;
    use mio::Waker;

    #[test]
    fn clients_that_connect_without_end_are_taken_in_turns_between_which_the_thread_can_stop() {
        let listener = super::super::Metrics::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (poll, control) = (Poll::new().unwrap(), Poll::new().unwrap());
        let desk = Desk {
            asked: false.into(),
            snapshot: ArrayQueue::new(1),
            stop: false.into(),
            control: Arc::new(Waker::new(control.registry(), WAKE).unwrap()),
            server: Waker::new(poll.registry(), WAKE).unwrap(),
        };
        let mut server = Server::new(poll, listener, Arc::new(desk)).unwrap();
        let connect = |_| std::net::TcpStream::connect(address).unwrap();
        let _clients: Vec<_> = (0..CLIENTS + 1).map(connect).collect();
        server.accept(Instant::now());
        assert!(server.accepting, "one is left for the next turn");
        let sleep = server.time_to_sleep(Instant::now());
        assert!(sleep.is_some_and(|sleep| sleep <= ACCEPT_RETRY));
        server.accept(Instant::now());
        assert!(!server.accepting);
    }
}
