//! Super-packets and how to cut them, as the tests of the splitter have them.

#[path = "../offload/packets.rs"]
pub(crate) mod packets;
#[path = "../offload/reference.rs"]
pub(crate) mod reference;
