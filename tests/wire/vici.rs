//! VICI, against what swanctl and charon 5.9.8 said to each other.

use lockgate::wire::Malformed;
use lockgate::wire::vici::{FrameReader, MAX_DEPTH, MAX_SEGMENT, Message, Packet, Value};

const LOAD_CONN: &[u8] = include_bytes!("../fuzz/seeds/vici/load-conn-request");
const LOAD_CONN_RESPONSE: &[u8] = include_bytes!("../fuzz/seeds/vici/load-conn-response");
const LIST_SA: &[u8] = include_bytes!("../fuzz/seeds/vici/list-sa-event");
const LIST_CONN: &[u8] = include_bytes!("../fuzz/seeds/vici/list-conn-event");
const REKEY: &[u8] = include_bytes!("../fuzz/seeds/vici/rekey-request");
const REGISTER: &[u8] = include_bytes!("../fuzz/seeds/vici/event-register");

fn packet(segment: &[u8]) -> Packet {
    let mut reader = FrameReader::new();
    reader.push(segment);
    let packet = Packet::parse(&reader.next_frame().unwrap().unwrap()).unwrap();
    assert_eq!(reader.next_frame(), Ok(None));
    packet
}

#[test]
fn packets_are_rewritten_to_the_bytes_that_strongswan_sent() {
    for segment in [
        LOAD_CONN,
        LOAD_CONN_RESPONSE,
        LIST_SA,
        LIST_CONN,
        REKEY,
        REGISTER,
    ] {
        assert_eq!(packet(segment).encode(), segment);
    }
}

#[test]
fn a_request_built_here_is_the_one_that_swanctl_builds() {
    let mut message = Message::new();
    message.set("child", "lan");
    let request = Packet::CmdRequest {
        name: "rekey".into(),
        message,
    };
    assert_eq!(request.encode(), REKEY);
    assert_eq!(Packet::EventRegister("log".into()).encode(), REGISTER);
}

#[test]
fn sections_lists_and_texts_of_a_list_sa_event_are_found() {
    let Packet::Event { name, message } = packet(LIST_SA) else {
        panic!("an event")
    };
    assert_eq!(name, "list-sa");
    let ike = message.get_section("t").unwrap();
    assert_eq!(ike.get("state"), Some("ESTABLISHED"));
    assert_eq!(ike.get("dh-group"), Some("CURVE_25519"));
    let children = ike.get_section("child-sas").unwrap();
    let (name, child) = children.iter().next().unwrap();
    assert_eq!(name, "lan-1");
    let Value::Section(child) = child else {
        panic!("a section")
    };
    assert_eq!(
        child.get_list("local-ts").unwrap(),
        ["10.1.0.0/24", "2001:db8:1::/64"]
    );
    assert_eq!(
        (child.get("local-ts"), child.get_list("state")),
        (None, None)
    );
    assert!(child.get_section("state").is_none() && child.get("absent").is_none());
}

#[test]
fn empty_answers_are_one_byte() {
    for (packet, byte) in [
        (Packet::CmdResponse(Message::new()), 1),
        (Packet::CmdUnknown, 2),
        (Packet::EventConfirm, 5),
        (Packet::EventUnknown, 6),
    ] {
        assert_eq!(packet.encode(), [0, 0, 0, 1, byte]);
        assert_eq!(Packet::parse(&[byte]), Ok(packet));
    }
    // `unregister` of the log event, and an unknown command.
    assert_eq!(
        Packet::parse(b"\x04\x03log"),
        Ok(Packet::EventUnregister("log".into()))
    );
    let unknown = Packet::CmdRequest {
        name: "unknown".into(),
        message: Message::new(),
    };
    assert_eq!(Packet::parse(b"\x00\x07unknown"), Ok(unknown));
}

#[test]
fn setting_a_key_again_replaces_its_value_in_place() {
    let mut message = Message::new();
    message.set("a", 1).list("b", ["x", "y"]).set("a", "2");
    let keys: Vec<_> = message.iter().map(|(key, _)| key).collect();
    assert_eq!((keys, message.get("a")), (vec!["a", "b"], Some("2")));
    assert!(!message.is_empty());
}

#[test]
fn messages_that_break_the_grammar_are_refused() {
    for bytes in [
        &b"\x02"[..],                       // a section ends that has not begun
        b"\x01\x01s",                       // a section that does not end
        b"\x03\x01k",                       // a key without a value
        b"\x03\x01k\x00\x02v",              // a value cut short
        b"\x03\x05k",                       // a name cut short
        b"\x04\x01l\x05\x00\x01v",          // a list that does not end
        b"\x04\x01l\x03\x01k\x00\x01v\x06", // a key inside a list
        b"\x04\x01l\x01\x01s\x02\x06",      // a section inside a list
        b"\x05\x00\x01v",                   // an item outside a list
        b"\x06",                            // a list ends that has not begun
        b"\x00",
        b"\x07",
        b"\x03\x01\xff\x00\x01v", // a key that is no text
    ] {
        assert!(Message::parse(bytes).is_err(), "{bytes:?}");
    }
    for bytes in [&b""[..], b"\x08", b"\x02x", b"\x03\x04log", b"\x03\x03logs"] {
        assert!(Packet::parse(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn sections_nest_to_the_bound_and_no_deeper() {
    let nested = |depth: usize| [b"\x01\x01s".repeat(depth), b"\x02".repeat(depth)].concat();
    assert!(Message::parse(&nested(MAX_DEPTH)).is_ok());
    let deeper = Message::parse(&nested(MAX_DEPTH + 1));
    assert_eq!(deeper, Err(Malformed::BadLength("VICI section nesting")));
    assert!(Message::parse(&b"\x01\x01s".repeat(100_000)).is_err());
}

#[test]
fn frames_are_cut_wherever_the_stream_is_split() {
    let stream = [REKEY, REGISTER, LIST_SA].concat();
    for split in 0..stream.len() {
        let (first, second) = stream.split_at(split);
        let mut reader = FrameReader::new();
        let mut frames = Vec::new();
        for bytes in [first, second] {
            reader.push(bytes);
            frames.extend(std::iter::from_fn(|| reader.next_frame().unwrap()));
        }
        let lengths: Vec<_> = frames.iter().map(Vec::len).collect();
        assert_eq!(
            lengths,
            [REKEY.len() - 4, REGISTER.len() - 4, LIST_SA.len() - 4]
        );
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused_before_its_bytes_arrive() {
    let length = u32::try_from(MAX_SEGMENT).unwrap();
    let mut reader = FrameReader::new();
    reader.push(&length.to_be_bytes());
    assert_eq!(reader.next_frame(), Ok(None));
    for length in [length + 1, u32::MAX] {
        let mut reader = FrameReader::new();
        reader.push(&length.to_be_bytes());
        assert_eq!(
            reader.next_frame(),
            Err(Malformed::BadLength("VICI segment"))
        );
    }
}

#[test]
fn values_and_names_beyond_the_format_are_cut() {
    let mut message = Message::new();
    message.set("k".repeat(300), "v".repeat(70_000));
    let mut out = Vec::new();
    message.encode(&mut out);
    let again = Message::parse(&out).unwrap();
    assert_eq!(again.get(&"k".repeat(255)).map(str::len), Some(65_535));
}
