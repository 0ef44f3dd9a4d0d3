//! ECN across a tunnel (RFC 6040). Codepoints are the two low bits of TOS or traffic class.

/// Not ECN-capable.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, codepoint 1.
pub const ECT_1: u8 = 0b01;
/// ECN-capable, codepoint 0.
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// Outer CE over an inner packet that cannot carry the mark: the packet must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("congestion was marked outside on a packet that is not ECN-capable inside")]
pub struct IllegalEcn;

/// Outer codepoint for an inner one, normal mode (RFC 6040 §4.1).
pub fn encapsulate(inner: u8) -> u8 {
    inner & CE
}

/// Inner codepoint after decapsulation (RFC 6040 §4.2, figure 4). Higher bits of the arguments are
/// ignored, so a whole TOS byte will do.
pub fn decapsulate(inner: u8, outer: u8) -> Result<u8, IllegalEcn> {
    match (inner & CE, outer & CE) {
        (NOT_ECT, CE) => Err(IllegalEcn),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (_, CE) => Ok(CE),
        (ECT_0, ECT_1) => Ok(ECT_1),
        (inner, _) => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decapsulation_follows_figure_4_of_rfc_6040() {
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let figure = [
            (
                NOT_ECT,
                [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), Err(IllegalEcn)],
            ),
            (ECT_0, [Ok(ECT_0), Ok(ECT_0), Ok(ECT_1), Ok(CE)]),
            (ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)]),
            (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
        ];
        for (inner, row) in figure {
            assert_eq!(
                outer.map(|outer| decapsulate(inner | 0xb8, outer)),
                row,
                "inner {inner}"
            );
        }
    }

    #[test]
    fn encapsulation_copies_the_inner_codepoint() {
        for inner in [NOT_ECT, ECT_0, ECT_1, CE] {
            assert_eq!(encapsulate(inner | 0xb8), inner);
        }
    }
}
