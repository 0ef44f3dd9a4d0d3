//! The control thread's UDP sockets: port 500, and its member of the port 4500 group.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    os::fd::AsRawFd,
};

use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{
    config::DaemonConfig,
    ike::{Path, Transmit},
    io::{
        burst::{self, ReceiveBurst, Received},
        offload::Offloads,
        udp::{SocketOptions, UdpGroup, UdpSocket},
    },
    wire::esp::{self, Demux, NON_ESP_MARKER},
};

/// Every socket that IKE is spoken on.
#[derive(Debug)]
pub(super) struct Sockets {
    members: Vec<Member>,
    burst: ReceiveBurst,
    keepalives: u64,
}

#[derive(Debug)]
struct Member {
    socket: UdpSocket,
    /// Datagrams of IKE carry the non-ESP marker here.
    marker: bool,
    readable: bool,
}

/// Why a port is not ours.
#[derive(Debug, thiserror::Error)]
#[error("UDP port {port}: {}", hint(error))]
pub struct PortError {
    port: u16,
    #[source]
    error: io::Error,
}

impl PortError {
    pub(super) fn is_in_use(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }
}

fn hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "in use by another process; is another IKE daemon (charon, pluto, iked) running?".into()
        }
        io::ErrorKind::PermissionDenied => format!(
            "{error}; the daemon needs CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE for ports below 1024"
        ),
        _ => error.to_string(),
    }
}

/// What every socket of the daemon is opened with.
pub(super) fn options(config: &DaemonConfig, offloads: Offloads) -> SocketOptions {
    let buffer = usize::try_from(config.socket_buffer).unwrap_or(usize::MAX);
    SocketOptions {
        mark: Some(config.fwmark),
        receive_buffer: buffer,
        send_buffer: buffer,
        offloads,
        ..SocketOptions::default()
    }
}

/// The offloads that the configuration leaves on.
pub(super) fn wanted_offloads(config: &DaemonConfig) -> Offloads {
    Offloads {
        tun_tso: config.tun_tso,
        tun_uso: config.tun_uso && config.tun_tso,
        tun_gro: config.tun_gro,
        udp_gso: config.udp_gso,
        udp_gro: config.udp_gro,
    }
}

impl Sockets {
    /// Binds both ports in both address families. Returns the workers' sockets, per worker.
    pub(super) fn bind(
        config: &DaemonConfig,
        options: &SocketOptions,
        workers: NonZeroU16,
    ) -> Result<(Self, Vec<Vec<UdpSocket>>), PortError> {
        let single = SocketOptions {
            offloads: Offloads::NONE,
            ..*options
        };
        let mut members = Vec::new();
        let mut shares: Vec<Vec<UdpSocket>> = (0..workers.get()).map(|_| Vec::new()).collect();
        for wildcard in [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ] {
            let fail = |port| move |error| PortError { port, error };
            let address = SocketAddr::new(wildcard, config.port);
            let plain = UdpSocket::bind(address, &single).map_err(fail(config.port))?;
            members.extend(plain.map(|socket| Member::new(socket, false)));
            let address = SocketAddr::new(wildcard, config.port_nat_t);
            let group =
                UdpGroup::bind(address, workers, options).map_err(fail(config.port_nat_t))?;
            if let Some(group) = group {
                members.push(Member::new(group.control, true));
                for (share, socket) in shares.iter_mut().zip(group.workers) {
                    share.push(socket);
                }
            }
        }
        let sockets = Self {
            members,
            burst: ReceiveBurst::new(RECEIVE_BURST),
            keepalives: 0,
        };
        Ok((sockets, shares))
    }

    /// Registers the sockets under `first` and the tokens after it, [`Sockets::TOKENS`] at most.
    pub(super) fn register(&self, registry: &Registry, first: Token) -> io::Result<()> {
        for (place, member) in self.members.iter().enumerate() {
            let descriptor = member.socket.as_raw_fd();
            let token = Token(first.0 + place);
            registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Tokens that [`Sockets::register`] may use.
    pub(super) const TOKENS: usize = 4;

    pub(super) fn ready(&mut self, place: usize) {
        if let Some(member) = self.members.get_mut(place) {
            member.readable = true;
        }
    }

    /// Whether some socket may hold more datagrams.
    pub(super) fn has_input(&self) -> bool {
        self.members.iter().any(|member| member.readable)
    }

    /// Receives one burst of each readable socket and hands over what may be IKE.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Path, &[u8])) {
        for member in self.members.iter_mut().filter(|member| member.readable) {
            if let Err(error) = member.socket.recv_burst(&mut self.burst) {
                // Any other error is that of one datagram, and there may be more behind it.
                member.readable = error.kind() != io::ErrorKind::WouldBlock;
                continue;
            }
            let port = member.socket.local_addr().port();
            let trains = self.burst.iter_mut().flatten();
            for received in trains.flat_map(Received::segments) {
                let path = Path {
                    local: SocketAddr::new(received.local, port),
                    remote: received.remote,
                };
                let bytes: &[u8] = received.bytes;
                if !member.marker {
                    each(path, bytes);
                    continue;
                }
                match esp::demux_udp_encap(bytes) {
                    Ok(Demux::Ike) => {
                        each(path, bytes.strip_prefix(&NON_ESP_MARKER).unwrap_or(bytes))
                    }
                    Ok(Demux::Keepalive) => self.keepalives += 1,
                    Ok(Demux::Esp) => {} // the workers' sockets get it
                    // Too short to be anything, as IKE will find.
                    Err(_) => each(path, bytes),
                }
            }
        }
    }

    /// NAT keepalives received (RFC 3948 §4).
    pub(super) fn keepalives(&self) -> u64 {
        self.keepalives
    }

    /// Sends one IKE message.
    pub(super) fn send(&mut self, transmit: &Transmit) -> io::Result<()> {
        let marker: &[u8] = if transmit.marker {
            &NON_ESP_MARKER
        } else {
            &[]
        };
        let parts = [IoSlice::new(marker), IoSlice::new(&transmit.bytes)];
        self.send_parts(transmit.path, transmit.marker, &parts)
    }

    /// Sends a NAT keepalive (RFC 3948 §4).
    pub(super) fn keepalive(&mut self, path: Path) -> io::Result<()> {
        self.send_parts(path, true, &[IoSlice::new(&[0xff])])
    }

    fn send_parts(&mut self, path: Path, marker: bool, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let ipv6 = path.remote.is_ipv6();
        let fits = |member: &&mut Member| {
            member.marker == marker && member.socket.local_addr().is_ipv6() == ipv6
        };
        let member = self.members.iter_mut().find(fits);
        let member = member.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let transmit = burst::Transmit {
            local: path.local.ip(),
            remote: path.remote,
            tos: 0,
            // IKE messages may be fragmented by IP where they have to.
            dont_fragment: false,
        };
        member.socket.send(&transmit, parts)
    }
}

impl Member {
    fn new(socket: UdpSocket, marker: bool) -> Self {
        Self {
            socket,
            marker,
            readable: true,
        }
    }
}

const RECEIVE_BURST: usize = 32;
