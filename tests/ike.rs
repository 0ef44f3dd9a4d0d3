//! Two IKEv2 endpoints on a virtual clock.
//!
//! A test names what happens on the network and what the gateways are told, lets time pass, and
//! looks at what both sides believe. `Pair` checks all the while that no key is used twice, that no
//! SA is removed that is not there, that every event has one beginning and one end, and, unless a
//! test says that a gap is meant, that no side ever sends on an SA that its peer does not have.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "ike/actor.rs"]
mod actor;
#[path = "ike/addresses.rs"]
mod addresses;
#[path = "ike/alerts.rs"]
mod alerts;
#[path = "ike/answers.rs"]
mod answers;
#[path = "ike/auth_methods.rs"]
mod auth_methods;
#[path = "ike/authentication.rs"]
mod authentication;
#[path = "ike/breaches.rs"]
mod breaches;
#[path = "ike/certificates.rs"]
mod certificates;
#[path = "ike/chaos.rs"]
mod chaos;
#[path = "ike/childless.rs"]
mod childless;
#[path = "ike/claims.rs"]
mod claims;
#[path = "ike/collision_deletes.rs"]
mod collision_deletes;
#[path = "ike/collision_exchanges.rs"]
mod collision_exchanges;
#[path = "ike/collision_field.rs"]
mod collision_field;
#[path = "ike/collision_spec.rs"]
mod collision_spec;
#[path = "ike/collisions.rs"]
mod collisions;
#[path = "ike/config.rs"]
mod config;
#[path = "ike/control.rs"]
mod control;
#[path = "ike/crash_tokens.rs"]
mod crash_tokens;
#[path = "ike/detours.rs"]
mod detours;
#[path = "ike/exchanges.rs"]
mod exchanges;
#[path = "ike/faults.rs"]
mod faults;
#[path = "ike/forged.rs"]
mod forged;
#[path = "ike/fragments.rs"]
mod fragments;
#[path = "ike/half_done.rs"]
mod half_done;
#[path = "ike/host.rs"]
mod host;
#[path = "ike/hostile.rs"]
mod hostile;
#[path = "ike/identities.rs"]
mod identities;
#[path = "ike/insider.rs"]
mod insider;
#[path = "ike/key_log.rs"]
mod key_log;
#[path = "ike/lifetime.rs"]
mod lifetime;
#[path = "ike/message_id_sync.rs"]
mod message_id_sync;
#[path = "ike/mobike.rs"]
mod mobike;
#[path = "ike/name_constraints.rs"]
mod name_constraints;
#[path = "ike/nat.rs"]
mod nat;
#[path = "ike/negotiation.rs"]
mod negotiation;
#[path = "ike/network.rs"]
mod network;
#[path = "ike/pair.rs"]
mod pair;
#[path = "ike/patience.rs"]
mod patience;
#[path = "support/pki.rs"]
mod pki;
#[path = "ike/plane.rs"]
mod plane;
#[path = "ike/ppk.rs"]
mod ppk;
#[path = "ike/random.rs"]
mod random;
#[path = "ike/reauth.rs"]
mod reauth;
#[path = "ike/redirect.rs"]
mod redirect;
#[path = "ike/reload.rs"]
mod reload;
#[path = "ike/resumption.rs"]
mod resumption;
#[path = "ike/resumption_hostile.rs"]
mod resumption_hostile;
#[path = "ike/resumption_keeps.rs"]
mod resumption_keeps;
#[path = "ike/revocation.rs"]
mod revocation;
#[path = "ike/rules.rs"]
mod rules;
#[path = "ike/schedules.rs"]
mod schedules;
#[path = "ike/session.rs"]
mod session;
#[path = "ike/sibling_limits.rs"]
mod sibling_limits;
#[path = "ike/siblings.rs"]
mod siblings;
#[path = "ike/starts.rs"]
mod starts;
#[path = "ike/storm.rs"]
mod storm;
#[path = "ike/straight.rs"]
mod straight;
#[path = "ike/transport.rs"]
mod transport;
#[path = "ike/windows.rs"]
mod windows;
