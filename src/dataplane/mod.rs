//! Pinned workers that run the packet path to completion. Knows SAs, not IKE.
