//! Netlink: the routes, rules, XFRM policies and packet marks of the calling thread's network namespace.
//!
//! Requests are answered before they return. Everything that Lockgate adds is recognisable as its
//! own ([`PROTOCOL`], [`xfrm::INDEX_BASE`]), so a start after a crash can tell what it may remove.

pub mod monitor;
pub mod nftables;
pub mod routing;
pub mod sysctl;
pub mod xfrm;

use std::{
    io,
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::AddressFamily;
use netlink_sys::{Socket, SocketAddr};
use rustix::net;
use socket2::{Domain, SockAddr, Type};

/// The routing protocol number that our routes and rules carry (`rtm_protocol`, `FRA_PROTOCOL`).
pub const PROTOCOL: u8 = 0x4c;

/// The index of a link, `None` when there is no link of that name.
pub fn link_index(name: &str) -> io::Result<Option<u32>> {
    let socket = net::socket(net::AddressFamily::INET, net::SocketType::DGRAM, None)?;
    match net::netdevice::name_to_index(&socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is a link of this index, whatever its name may be by now.
pub fn link_exists(index: u32) -> io::Result<bool> {
    let socket = net::socket(net::AddressFamily::INET, net::SocketType::DGRAM, None)?;
    match net::netdevice::index_to_name(&socket, index) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The own address that a packet with this mark would be sent from towards `remote`.
pub fn source_address(remote: IpAddr, mark: u32) -> io::Result<IpAddr> {
    let (domain, wildcard) = if remote.is_ipv6() {
        (Domain::IPV6, IpAddr::from(Ipv6Addr::UNSPECIFIED))
    } else {
        (Domain::IPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED))
    };
    let socket = socket2::Socket::new(domain, Type::DGRAM, None)?;
    socket.set_mark(mark)?;
    socket.bind(&SockAddr::from(std::net::SocketAddr::new(wildcard, 0)))?;
    // Connecting a datagram socket sends nothing; the port only has to be one.
    socket.connect(&SockAddr::from(std::net::SocketAddr::new(remote, 500)))?;
    let local = socket.local_addr()?.as_socket();
    local
        .map(|local| local.ip())
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// A netlink socket that speaks messages of type `M` and does one request at a time.
#[derive(Debug)]
struct Connection<M> {
    socket: Socket,
    sequence: u32,
    messages: PhantomData<M>,
}

impl<M: NetlinkSerializable + NetlinkDeserializable> Connection<M> {
    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            messages: PhantomData,
        })
    }

    /// Sends a change and waits until the kernel has accepted or refused it.
    fn change(&mut self, payload: M, flags: u16) -> io::Result<()> {
        self.send(payload, NLM_F_ACK | flags)?;
        self.collect(|_| {})
    }

    /// Asks for all objects of a kind. Objects that this program cannot read are left out.
    fn dump(&mut self, payload: M) -> io::Result<Vec<M>> {
        self.send(payload, NLM_F_DUMP)?;
        let mut found = Vec::new();
        self.collect(|message| found.push(message))?;
        Ok(found)
    }

    fn send(&mut self, payload: M, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(
            netlink_packet_core::NetlinkHeader::default(),
            NetlinkPayload::InnerMessage(payload),
        );
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads answers up to the acknowledgement, the error or the end of the dump.
    fn collect(&mut self, mut each: impl FnMut(M)) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((length, header)) = next_message(rest) {
                let (bytes, after) = rest.split_at_checked(length).ok_or_else(short)?;
                rest = after.get(padding(length)..).unwrap_or_default();
                if header != self.sequence {
                    continue;
                }
                match NetlinkMessage::<M>::deserialize(bytes).map(|message| message.payload) {
                    Ok(NetlinkPayload::Error(error)) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    Ok(NetlinkPayload::Error(_) | NetlinkPayload::Done(_)) => return Ok(()),
                    Ok(NetlinkPayload::InnerMessage(message)) => each(message),
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }
}

/// Length and sequence number of the message at the start of `bytes`.
fn next_message(bytes: &[u8]) -> Option<(usize, u32)> {
    let (&[l0, l1, l2, l3, _, _, _, _, s0, s1, s2, s3], _) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    (length >= HEADER_LEN).then_some((length, u32::from_ne_bytes([s0, s1, s2, s3])))
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "netlink message cut short")
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

const HEADER_LEN: usize = 16;

#[cfg(test)]
mod tests;
