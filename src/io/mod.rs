//! Linux system calls, and the only unsafe code of the crate. Sees packets, never keys or SAs.
#![allow(unsafe_code, reason = "system calls live here and nowhere else")]

mod address;
mod arena;
pub mod burst;
pub mod capture;
mod control_message;
pub mod load;
pub mod netlink;
pub mod netns;
pub mod offload;
pub mod process;
pub mod raw;
mod refusals;
mod socket;
mod sockopt;
pub mod steering;
mod train;
pub mod tsc;
pub mod tun;
pub mod udp;
