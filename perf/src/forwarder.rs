//! A tunnel that protects nothing: what TUN and sockets can carry at best.
//!
//! It reads, splits, sends in trains, receives in trains, merges and writes with the very code of
//! Lockgate's packet path (`lockgate::io`), in one thread. Between them is nothing: no policy, no SA, no
//! ESP, no cipher. Each inner packet is the payload of one datagram.
//!
//! With `--cipher` and `--guard` it has what no gateway of this kind can do without, and nothing else: the
//! cipher for each packet, and the routes, rules and XFRM policies that keep traffic from leaving in clear.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use ipnet::IpNet;
use lockgate::{
    config::DaemonConfig,
    crypto::packet::{Associated, PacketKey},
    daemon::{
        guard::Guard,
        routes::{Routes, Settings},
    },
    io::{
        burst::{BURST, Flows, PushError, ReceiveBurst, Transmit, TransmitBurst},
        offload::{MergeKinds, MergeScratch, Merger, Offloads, TunPacket},
        raw::RawSocket,
        tun::{Tun, TunBuffer, TunQueue},
        udp::{SendReport, SocketOptions, UdpSocket},
    },
    ipsec::{Action, Direction, Mode, Policy, PolicyId, Reqid, Spd, Template},
    wire::{
        proposal::{CipherSuite, EncryptionId},
        selector::TrafficSelector,
    },
};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use rustix::event::{PollFd, PollFlags, poll};

/// A TUN↔UDP forwarder with Lockgate's offloads and without its cipher.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Own outer address.
    #[arg(long)]
    local: Ipv4Addr,
    /// The other forwarder.
    #[arg(long)]
    remote: Ipv4Addr,
    /// UDP port of both.
    #[arg(long, default_value_t = 4500)]
    port: u16,
    /// Packets of IP protocol 50 instead of UDP.
    #[arg(long)]
    raw: bool,
    /// One packet per datagram, TUN read and TUN write.
    #[arg(long)]
    no_offloads: bool,
    /// Name of the TUN device.
    #[arg(long, default_value = "forward0")]
    device: String,
    /// Its MTU.
    #[arg(long, default_value_t = 1400)]
    mtu: u16,
    /// Size asked for each socket buffer.
    #[arg(long, default_value_t = 4 << 20)]
    buffer: usize,
    /// Seal and open each packet with AES-256-GCM.
    #[arg(long)]
    cipher: bool,
    /// The networks behind this end and behind the other: routes, rules and XFRM policies are set as Lockgate
    /// would set them, and stay. Without it they are the caller's affair.
    #[arg(long, num_args = 2, value_names = ["LOCAL", "REMOTE"])]
    guard: Option<Vec<IpNet>>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    Forwarder::new(&arguments)?.run()
}

struct Forwarder {
    /// The kernel keeps to it as long as it is there.
    _guard: Option<Guard>,
    poll: Poll,
    tun: TunQueue,
    /// The device lives as long as this.
    _device: Tun,
    tun_ready: bool,
    buffer: TunBuffer,
    socket: Carrier,
    socket_ready: bool,
    /// The socket took no more; the TUN waits until it does.
    blocked: bool,
    received: ReceiveBurst,
    waiting: TransmitBurst,
    transmit: Transmit,
    kinds: MergeKinds,
    scratch: MergeScratch,
    cipher: Option<Cipher>,
}

/// What `--cipher` puts between TUN and socket: a counter in clear, then IV, packet and ICV.
struct Cipher {
    key: PacketKey,
    sent: u64,
}

impl Cipher {
    /// A key that protects nothing, as it is the same for everybody.
    fn new() -> Result<Self> {
        let suite = CipherSuite {
            encryption: EncryptionId::AES_GCM_16,
            key_bits: 256,
            integrity: None,
        };
        let key = PacketKey::new(suite, &[1; 36], &[])?;
        Ok(Self { key, sent: 0 })
    }

    fn sealed_len(&self, packet: usize) -> usize {
        HEADER + self.key.iv_len() + packet + self.key.icv_len()
    }

    fn seal(&mut self, packet: &[u8], datagram: &mut [u8]) -> Result<()> {
        self.sent += 1;
        let (header, buffer) = datagram.split_first_chunk_mut::<HEADER>().context(SHORT)?;
        *header = self.sent.to_be_bytes();
        let associated = Associated {
            header,
            esn_high: None,
        };
        Ok(self
            .key
            .seal_from(self.sent, associated, &[packet], &[], buffer)?)
    }

    fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<&'a mut [u8]> {
        let (header, buffer) = datagram.split_first_chunk_mut::<HEADER>().context(SHORT)?;
        let associated = Associated {
            header,
            esn_high: None,
        };
        Ok(self.key.open(associated, buffer)?)
    }
}

/// Does to the kernel what Lockgate does for a policy between the two networks, as long as the guard lives.
fn protect(arguments: &Arguments, device: &Tun) -> Result<Option<Guard>> {
    let Some([local, remote]) = arguments.guard.as_deref() else {
        return Ok(None);
    };
    let policy = |id, direction| Policy {
        id: PolicyId(id),
        name: "all".to_owned(),
        direction,
        local: TrafficSelector::net(*local),
        remote: TrafficSelector::net(*remote),
        action: Action::Protect(Template {
            reqid: Reqid(1),
            mode: Mode::Tunnel,
            trap: false,
        }),
        priority: 0,
    };
    let directions = [Direction::Out, Direction::In, Direction::Forward];
    let spd = Spd::new(
        (1..)
            .zip(directions)
            .map(|(id, to)| policy(id, to))
            .collect(),
    );
    let mut guard = Guard::install(&spd, device.name())?;
    guard.exempt(device.name(), device.index())?;
    let usual = DaemonConfig::default();
    let mut routes = Routes::open(Settings {
        device: device.name().to_owned(),
        index: Some(device.index()),
        table: usual.routing_table,
        mark: usual.fwmark,
        guard: true,
        mirrored: guard.mirrored(),
    })?;
    routes.update(&spd).context("cannot set the routes")?;
    Ok(Some(guard))
}

enum Carrier {
    Udp(UdpSocket),
    Raw(RawSocket),
}

impl Carrier {
    fn open(arguments: &Arguments, offloads: Offloads) -> Result<Self> {
        let options = SocketOptions {
            receive_buffer: arguments.buffer,
            send_buffer: arguments.buffer,
            past_xfrm: arguments.guard.is_some(),
            offloads,
            ..SocketOptions::default()
        };
        let opened = if arguments.raw {
            RawSocket::open(false, 0, NonZeroU16::MIN, &options)?.map(Self::Raw)
        } else {
            let local = SocketAddr::from((arguments.local, arguments.port));
            UdpSocket::bind(local, &options)?.map(Self::Udp)
        };
        opened.context("this system has no IPv4")
    }

    fn recv(&mut self, burst: &mut ReceiveBurst) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv_burst(burst),
            Self::Raw(socket) => socket.recv_burst(burst),
        }
    }

    fn send(&mut self, burst: &mut TransmitBurst) -> SendReport {
        match self {
            Self::Udp(socket) => socket.send_burst(burst),
            Self::Raw(socket) => socket.send_burst(burst),
        }
    }

    /// In the middle of a super-packet there is nothing else to do.
    fn wait_until_writable(&self) {
        let fd = match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Raw(socket) => socket.as_fd(),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        // If it fails, the next attempt to send tells.
        let _ = poll(&mut fds, None);
    }

    fn descriptor(&self) -> i32 {
        match self {
            Self::Udp(socket) => socket.as_raw_fd(),
            Self::Raw(socket) => socket.as_raw_fd(),
        }
    }
}

impl Forwarder {
    fn new(arguments: &Arguments) -> Result<Self> {
        let wanted = if arguments.no_offloads {
            Offloads::NONE
        } else {
            Offloads::ALL
        };
        let (device, queues) = Tun::create(&arguments.device, 1, arguments.mtu, wanted)
            .context("cannot create the TUN device")?;
        let length = DaemonConfig::default().tun_queue_len;
        device
            .set_queue_length(length.get())
            .context("cannot set the length of the TUN's queue")?;
        let Some(tun) = queues.into_iter().next() else {
            bail!("the TUN device has no queue");
        };
        let guard = protect(arguments, &device)?;
        let socket = Carrier::open(arguments, wanted).context("cannot open the socket")?;
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut SourceFd(&tun.as_raw_fd()), TUN, Interest::READABLE)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&socket.descriptor()), SOCKET, both)?;
        let active = device.offloads();
        let port = if arguments.raw { 0 } else { arguments.port };
        Ok(Self {
            _guard: guard,
            poll,
            tun,
            tun_ready: true,
            buffer: TunBuffer::new(),
            socket,
            socket_ready: true,
            blocked: false,
            received: ReceiveBurst::new(BURST),
            waiting: TransmitBurst::new(),
            transmit: Transmit {
                local: IpAddr::V4(arguments.local),
                remote: SocketAddr::from((arguments.remote, port)),
                tos: 0,
                dont_fragment: true,
            },
            kinds: MergeKinds {
                tcp: active.tun_gro && active.tun_tso,
                udp: active.tun_gro && active.tun_uso,
            },
            scratch: MergeScratch::new(),
            cipher: arguments.cipher.then(Cipher::new).transpose()?,
            _device: device,
        })
    }

    fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(4);
        let mut turns = 0;
        loop {
            let more = self.socket_ready || (self.tun_ready && !self.blocked);
            // Asking costs a system call, and what is known to be ready need not be asked for.
            if !more || turns == TURNS_PER_POLL {
                turns = 0;
                let patience = more.then_some(std::time::Duration::ZERO);
                match self.poll.poll(&mut events, patience) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    polled => polled?,
                }
                for event in &events {
                    match event.token() {
                        TUN => self.tun_ready = true,
                        _ => {
                            self.socket_ready |= event.is_readable();
                            self.blocked &= !event.is_writable();
                        }
                    }
                }
            }
            turns += 1;
            self.drain_socket();
            self.drain_tun();
        }
    }

    fn drain_socket(&mut self) {
        if !self.socket_ready {
            return;
        }
        if self.socket.recv(&mut self.received).is_err() {
            // Nothing there, or an error that was reported by being returned.
            self.socket_ready = false;
            return;
        }
        let tun = &mut self.tun;
        // A full device queue drops, as any link does.
        let mut write =
            |header: &_, pieces: &[io::IoSlice<'_>]| drop(tun.write_vectored(header, pieces));
        let mut merger = Merger::new(self.kinds, &mut self.scratch);
        for train in self.received.iter_mut().flatten() {
            for datagram in train.segments() {
                let packet = match &self.cipher {
                    None => datagram.bytes,
                    Some(cipher) => match cipher.open(datagram.bytes) {
                        Ok(packet) => packet,
                        Err(_) => continue,
                    },
                };
                merger.push(packet, &mut write);
            }
        }
        merger.finish(&mut write);
    }

    fn drain_tun(&mut self) {
        if self.blocked {
            return;
        }
        let mut reads = 0;
        while self.tun_ready && reads < BURST {
            if !self.waiting.has_room() {
                self.blocked = self.socket.send(&mut self.waiting).blocked;
                if self.blocked {
                    return;
                }
            }
            match self.tun.read(&mut self.buffer) {
                Ok((header, packet)) => {
                    reads += 1;
                    if let Ok(packet) = TunPacket::parse(&header, packet) {
                        let cipher = self.cipher.as_mut();
                        let (waiting, socket) = (&mut self.waiting, &mut self.socket);
                        forward(packet, self.transmit, cipher, waiting, socket);
                    }
                }
                Err(_) => self.tun_ready = false,
            }
        }
        if !self.waiting.is_empty() {
            self.blocked = self.socket.send(&mut self.waiting).blocked;
        }
    }
}

/// Puts every segment of a packet into the burst, and sends it when it is full.
fn forward(
    mut packet: TunPacket<'_>,
    transmit: Transmit,
    mut cipher: Option<&mut Cipher>,
    waiting: &mut TransmitBurst,
    socket: &mut Carrier,
) {
    while let Some(segment) = packet.next_segment() {
        let length = segment.len();
        let length = (cipher.as_ref()).map_or(length, |cipher| cipher.sealed_len(length));
        loop {
            let copied = waiting.push(transmit, Flows::ANY, length, |buffer| match &mut cipher {
                None => {
                    buffer.copy_from_slice(segment);
                    Ok(())
                }
                Some(cipher) => cipher.seal(segment, buffer),
            });
            match copied {
                Err(PushError::Full) if !waiting.is_empty() => {
                    if socket.send(waiting).blocked {
                        socket.wait_until_writable();
                    }
                }
                _ => break,
            }
        }
    }
}

const TUN: Token = Token(0);
const SOCKET: Token = Token(1);
const TURNS_PER_POLL: u32 = 8;
/// Bytes before what is sealed, as many as ESP has.
const HEADER: usize = 8;
const SHORT: &str = "too short for what is sealed";
