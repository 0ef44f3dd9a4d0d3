//! News about own addresses and routes, by rtnetlink.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Hears of every change of an address or a route in the network namespace it was opened in. What has
/// changed is for the hearer to find out.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Starts to listen.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Takes all news; whether there was any. News that the kernel had no room for counts.
    pub fn drain(&mut self) -> bool {
        let mut news = false;
        let mut buffer = Vec::with_capacity(BUFFER);
        for _ in 0..MOST_AT_ONCE {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => news = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => news = true,
                Err(_) => return news,
            }
        }
        news
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR and RTNLGRP_IPV6_ROUTE.
const GROUPS: [u32; 4] = [5, 7, 9, 11];
/// What does not fit is cut off by the kernel, and is not looked at anyway.
const BUFFER: usize = 4096;
const MOST_AT_ONCE: usize = 4096;
