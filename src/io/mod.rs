//! Linux system calls, and the only unsafe code of the crate. Sees packets, never keys or SAs.
#![allow(unsafe_code, reason = "system calls live here and nowhere else")]
