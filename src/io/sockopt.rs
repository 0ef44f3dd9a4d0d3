//! Socket options that no safe wrapper offers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::put;
use super::steering::Instruction;

/// Sets an integer option.
pub(super) fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

/// Sets an option whose value is a plain C structure, given as its bytes.
pub(super) fn set_bytes(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: pointer and length describe the live slice `value`, which the kernel only reads.
    let status =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    check(status)
}

/// Attaches a classic BPF program (SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF).
pub(super) fn attach_program(
    fd: BorrowedFd<'_>,
    option: i32,
    program: &[Instruction],
) -> io::Result<()> {
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&header)).map_err(io::Error::other)?;
    // SAFETY: `header` and the `program` it points to outlive the call, and the kernel only reads them.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const header).cast(),
            length,
        )
    };
    check(status)
}

/// Asks for socket buffers of so many bytes, beyond the system's limit where we may.
pub(super) fn set_buffers(fd: BorrowedFd<'_>, receive: usize, send: usize) {
    let pairs = [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, send),
    ];
    for (forced, limited, bytes) in pairs {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        if set_int(fd, libc::SOL_SOCKET, forced, bytes).is_err() {
            // A smaller buffer only costs loss under load; the kernel clamps this one.
            let _ = set_int(fd, libc::SOL_SOCKET, limited, bytes);
        }
    }
}

/// Asks for trains of datagrams as one message (UDP_GRO). Says whether they will come.
pub(super) fn receive_trains(fd: BorrowedFd<'_>) -> bool {
    if set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_err() {
        return false;
    }
    // Kernels that do not know what they were asked have said so; before 5.12 they cannot be asked
    // whether they remember.
    get_int(fd, libc::SOL_UDP, libc::UDP_GRO).is_none_or(|value| value != 0)
}

fn get_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> Option<i32> {
    let mut value = 0_i32;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).ok()?;
    // SAFETY: the pointers lead to a live integer and its length, which the kernel may write to.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (status == 0).then_some(value)
}

/// Exempts this socket's own packets from the XFRM policies that guard protected traffic.
///
/// A kernel without XFRM has nothing to be exempted from and answers with an error.
pub(super) fn allow_past_xfrm(fd: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, option, family) = if ipv6 {
        (libc::IPPROTO_IPV6, IPV6_XFRM_POLICY, libc::AF_INET6)
    } else {
        (libc::IPPROTO_IP, IP_XFRM_POLICY, libc::AF_INET)
    };
    let family = u16::try_from(family).map_err(io::Error::other)?;
    for direction in [XFRM_POLICY_IN, XFRM_POLICY_OUT] {
        set_bytes(fd, level, option, &allow_policy(family, direction))?;
    }
    Ok(())
}

/// `struct xfrm_userpolicy_info` with an empty selector, no lifetime and the action "allow".
fn allow_policy(family: u16, direction: u8) -> [u8; 168] {
    let mut policy = [0; 168];
    put(&mut policy, 40, &family.to_ne_bytes());
    put(&mut policy, 56, &[0xff; 32]);
    put(&mut policy, 160, &[direction, XFRM_POLICY_ALLOW]);
    policy
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const IP_XFRM_POLICY: i32 = 17;
const IPV6_XFRM_POLICY: i32 = 35;
const XFRM_POLICY_IN: u8 = 0;
const XFRM_POLICY_OUT: u8 = 1;
const XFRM_POLICY_ALLOW: u8 = 0;
