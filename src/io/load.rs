//! Datagrams by the batch for traffic generators: one peer, one length, nothing else per packet.
//!
//! Kept apart from the sockets of the data plane, so that what measures shares no code with what
//! is measured.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    ptr,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::control_message::ControlBuffer;
use super::sockopt::{set_buffers, set_int};

/// Messages that one system call takes at most.
const BATCH: usize = 64;

/// Sends datagrams of one length to one address.
#[derive(Debug)]
pub struct BatchSender {
    socket: Socket,
    arena: Box<[u8]>,
    length: usize,
    train: usize,
}

impl BatchSender {
    /// A sender of datagrams with `length` bytes of payload, `train` of which the kernel gets as
    /// one super-packet (UDP_SEGMENT) where that is more than one.
    pub fn connect(remote: SocketAddr, length: usize, train: usize) -> io::Result<Self> {
        let length = length.max(1);
        let train = train.clamp(1, (MAX_TRAIN_BYTES / length).clamp(1, MAX_TRAIN));
        let socket = open(remote.ip())?;
        socket.connect(&SockAddr::from(remote))?;
        if train > 1 {
            let segment = i32::try_from(length).map_err(io::Error::other)?;
            set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, segment)?;
        }
        let messages = if train > 1 { TRAINS } else { BATCH };
        Ok(Self {
            socket,
            arena: vec![0x5a; messages * train * length].into(),
            length,
            train,
        })
    }

    /// Datagrams that one [`Self::send`] takes at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.arena.len() / self.length
    }

    /// Datagrams in each super-packet.
    #[must_use]
    pub fn train(&self) -> usize {
        self.train
    }

    /// The payloads that [`Self::send`] sends, in order; what is written there stays there.
    pub fn payloads(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.arena.chunks_exact_mut(self.length)
    }

    /// Sends the first `count` payloads and returns how many the kernel took. Waits for room in
    /// the socket's buffer.
    pub fn send(&mut self, count: usize) -> io::Result<usize> {
        let count = count.min(self.capacity());
        let bytes = self
            .arena
            .get_mut(..count * self.length)
            .unwrap_or_default();
        let mut vectors = [NO_VECTOR; BATCH];
        let mut headers = empty_headers();
        let mut messages: libc::c_uint = 0;
        for ((message, vector), header) in bytes
            .chunks_mut(self.train * self.length)
            .zip(&mut vectors)
            .zip(&mut headers)
        {
            vector.iov_base = message.as_mut_ptr().cast();
            vector.iov_len = message.len();
            header.msg_hdr.msg_iov = ptr::from_mut(vector);
            header.msg_hdr.msg_iovlen = 1;
            messages += 1;
        }
        // SAFETY: the first `messages` headers point to vectors of this frame, which describe disjoint parts of the arena.
        let sent =
            unsafe { libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), messages, 0) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        Ok((sent * self.train).min(count))
    }
}

/// Receives datagrams on one address.
#[derive(Debug)]
pub struct BatchReceiver {
    socket: Socket,
    arena: Box<[u8]>,
    slot: usize,
}

impl BatchReceiver {
    /// Binds to `local`; `trains` has the kernel deliver runs of equal datagrams at once (UDP_GRO),
    /// and `patience` is how long [`Self::receive`] waits.
    pub fn bind(local: SocketAddr, trains: bool, patience: Duration) -> io::Result<Self> {
        let socket = open(local.ip())?;
        socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        if trains {
            set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)?;
        }
        socket.bind(&SockAddr::from(local))?;
        let (slots, slot) = if trains {
            (TRAINS, 64 << 10)
        } else {
            (BATCH, 16 << 10)
        };
        Ok(Self {
            socket,
            arena: vec![0; slots * slot].into(),
            slot,
        })
    }

    /// Hands every datagram that is there to `each` and returns how many there were; waits for the
    /// first of them. None when none came in time.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut vectors = [NO_VECTOR; BATCH];
        let mut headers = empty_headers();
        let mut controls = [ControlBuffer::default(); BATCH];
        let mut slots: libc::c_uint = 0;
        for (((slot, vector), header), control) in self
            .arena
            .chunks_exact_mut(self.slot)
            .zip(&mut vectors)
            .zip(&mut headers)
            .zip(&mut controls)
        {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = slot.len();
            header.msg_hdr.msg_iov = ptr::from_mut(vector);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = control.bytes.len();
            slots += 1;
        }
        // SAFETY: the first `slots` headers point to vectors and control buffers of this frame and to disjoint slots of the arena.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                slots,
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        let mut datagrams = 0;
        for ((slot, header), control) in self
            .arena
            .chunks_exact(self.slot)
            .zip(&headers)
            .zip(&controls)
            .take(received)
        {
            let length = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
            let bytes = slot.get(..length).unwrap_or(slot);
            let told = control.get(header.msg_hdr.msg_controllen);
            let segment = told.segment_size.map_or(bytes.len(), usize::from).max(1);
            for datagram in bytes.chunks(segment) {
                each(datagram);
                datagrams += 1;
            }
        }
        Ok(datagrams)
    }
}

fn open(family: IpAddr) -> io::Result<Socket> {
    let domain = if family.is_ipv6() {
        Domain::IPV6
    } else {
        Domain::IPV4
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    set_buffers(socket.as_fd(), BUFFER, BUFFER);
    Ok(socket)
}

fn empty_headers() -> [libc::mmsghdr; BATCH] {
    // SAFETY: `mmsghdr` is a C structure of integers and pointers, for which all-zero is valid.
    unsafe { std::mem::zeroed() }
}

const NO_VECTOR: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

/// Deep enough that a receiver which is not scheduled for some milliseconds loses nothing.
const BUFFER: usize = 8 << 20;
/// UDP_MAX_SEGMENTS of the kernels that have the fewest.
const MAX_TRAIN: usize = 64;
/// Payload of one super-packet, with its headers less than 64 KiB in either family.
const MAX_TRAIN_BYTES: usize = 65_000;
/// Super-packets per system call.
const TRAINS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(length: usize, train: usize, trains: bool) -> Vec<Vec<u8>> {
        let patience = Duration::from_millis(200);
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut receiver = BatchReceiver::bind(local, trains, patience).expect("loopback");
        let bound = receiver.socket.local_addr().expect("bound").as_socket();
        let mut sender =
            BatchSender::connect(bound.expect("an IP address"), length, train).expect("loopback");
        let count = sender.train() + 3;
        for (payload, number) in sender.payloads().zip(0_u8..) {
            payload.fill(number);
        }
        assert_eq!(sender.send(count).expect("loopback takes all"), count);
        let mut received = Vec::new();
        while received.len() < count
            && receiver
                .receive(|datagram| received.push(datagram.to_vec()))
                .expect("no error")
                > 0
        {}
        received
    }

    #[test]
    fn datagrams_arrive_whole_and_in_order_however_they_are_batched() {
        for (train, trains) in [(1, false), (1, true), (16, false), (16, true)] {
            let received = exchange(1000, train, trains);
            let expected: Vec<Vec<u8>> = (0_u8..).take(train + 3).map(|n| vec![n; 1000]).collect();
            assert_eq!(received, expected, "train {train}, receive trains {trains}");
        }
    }

    #[test]
    fn a_train_keeps_to_what_one_super_packet_can_hold() {
        let local = SocketAddr::from(([127, 0, 0, 1], 9));
        let train = |length| BatchSender::connect(local, length, usize::MAX).map(|s| s.train());
        assert_eq!(train(1372).expect("loopback"), 47);
        assert_eq!(train(200).expect("loopback"), 64);
        assert_eq!(train(60_000).expect("loopback"), 1);
    }

    #[test]
    fn a_receiver_that_hears_nothing_gives_up_in_time() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut receiver =
            BatchReceiver::bind(local, false, Duration::from_millis(1)).expect("loopback");
        assert_eq!(receiver.receive(|_| ()).expect("a timeout is no error"), 0);
    }
}
