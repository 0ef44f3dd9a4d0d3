//! The databases of RFC 4301 (SPD, SAD) and the ESP processing of RFC 4303.
