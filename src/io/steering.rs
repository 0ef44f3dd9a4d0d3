//! Classic BPF programs that decide, in the kernel, which worker sees a packet.
//!
//! We allocate inbound SPIs so that `SPI % workers` is the owner of the SA. The same rule is
//! applied here to members of an SO_REUSEPORT group and to raw ESP sockets.

use std::io;
use std::num::NonZeroU16;
use std::os::fd::AsFd;

use super::sockopt;

/// Makes a SO_REUSEPORT group choose its member by SPI.
///
/// Member 0 is the control socket: it gets datagrams shorter than an SPI and those with the
/// non-ESP marker (RFC 3948 §2.2). Worker `SPI % workers` is member `SPI % workers + 1`.
pub fn steer_group(socket: impl AsFd, workers: NonZeroU16) -> io::Result<()> {
    sockopt::attach_program(
        socket.as_fd(),
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &group_program(workers),
    )
}

/// Lets a raw ESP socket see only packets whose SPI belongs to `worker`.
///
/// The kernel clones a packet for every raw socket before it asks the filter: each worker more costs a
/// packet one small allocation, but one socket for all would cost a copy and a wake-up.
pub(super) fn filter_raw(
    socket: impl AsFd,
    ipv6: bool,
    worker: u16,
    workers: NonZeroU16,
) -> io::Result<()> {
    let program = raw_program(ipv6, worker, workers);
    sockopt::attach_program(socket.as_fd(), libc::SO_ATTACH_FILTER, &program)
}

/// The kernel presents the UDP payload; a load past its end returns 0, the control socket.
fn group_program(workers: NonZeroU16) -> [Instruction; 6] {
    [
        instruction(LOAD_WORD, 0, 0, 0),
        instruction(JUMP_EQUAL, 3, 0, 0),
        instruction(MODULO, 0, 0, u32::from(workers.get())),
        instruction(ADD, 0, 0, 1),
        instruction(RETURN_A, 0, 0, 0),
        instruction(RETURN, 0, 0, 0),
    ]
}

/// A raw IPv4 socket is presented the IPv4 header, a raw IPv6 socket only what follows it.
fn raw_program(ipv6: bool, worker: u16, workers: NonZeroU16) -> [Instruction; 6] {
    let (load_offset, load_spi) = if ipv6 {
        (
            instruction(LOAD_X, 0, 0, 0),
            instruction(LOAD_WORD, 0, 0, 0),
        )
    } else {
        (
            instruction(LOAD_X_IHL, 0, 0, 0),
            instruction(LOAD_WORD_X, 0, 0, 0),
        )
    };
    [
        load_offset,
        load_spi,
        instruction(MODULO, 0, 0, u32::from(workers.get())),
        instruction(JUMP_EQUAL, 0, 1, u32::from(worker)),
        instruction(RETURN, 0, 0, u32::MAX),
        instruction(RETURN, 0, 0, 0),
    ]
}

pub(super) type Instruction = libc::sock_filter;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

// linux/bpf_common.h: class | size or operation | mode or source
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_WORD_X: u16 = 0x40; // BPF_LD | BPF_W | BPF_IND
const LOAD_X: u16 = 0x01; // BPF_LDX | BPF_W | BPF_IMM
const LOAD_X_IHL: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const ADD: u16 = 0x04; // BPF_ALU | BPF_ADD | BPF_K
const RETURN_A: u16 = 0x16; // BPF_RET | BPF_A
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
