//! Headers as they are written, and whatever else may come.

use proptest::prelude::*;

use super::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn decode(bytes: &[u8]) -> Result<Option<Ends>, Error> {
    match bytes.first_chunk::<FIXED>() {
        Some(fixed) if bytes.starts_with(&SIGNATURE) => {
            body_length(fixed)?;
            decode_v2(fixed, &bytes[FIXED..])
        }
        _ => decode_v1(bytes),
    }
}

#[test]
fn headers_are_as_the_specification_writes_them() {
    let v4 = ends("192.168.0.1:56324", "192.168.0.11:443");
    assert_eq!(encode(ProxyProtocol::V1, v4), b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\xa8\0\x01\xc0\xa8\0\x0b\xdc\x04\x01\xbb";
    assert_eq!(encode(ProxyProtocol::V2, v4), v2);
    let v6 = ends("[2001:db8::1]:1", "[2001:db8::2]:2");
    assert_eq!(encode(ProxyProtocol::V1, v6), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
    assert_eq!(encode(ProxyProtocol::V2, v6)[12..16], [0x21, 0x21, 0, 36]);
    assert!(encode(ProxyProtocol::None, v4).is_empty());
}

#[test]
fn a_connection_of_the_balancers_own_has_its_own_ends() {
    assert_eq!(decode(b"PROXY UNKNOWN\r\n"), Ok(None));
    assert_eq!(decode(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Ok(None));
    assert_eq!(decode(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), Ok(None));
    assert_eq!(decode(b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x02ab"), Ok(None), "a Unix socket");
}

#[test]
fn extensions_behind_the_addresses_are_passed_over() {
    let told = ends("192.168.0.1:1", "192.168.0.2:2");
    let mut bytes = encode(ProxyProtocol::V2, told);
    bytes[15] += 4;
    bytes.extend([4, 0, 1, 0]);
    assert_eq!(decode(&bytes), Ok(Some(told)));
}

#[test]
fn what_is_no_header_is_refused() {
    for (bytes, error) in [
        (&b"GET / HTTP/1.0\r\n"[..], Error::NoHeader),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n", Error::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2", Error::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n", Error::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 1 65536\r\n", Error::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n", Error::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n", Error::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.5  2\r\n", Error::Line),
        (b"PROXY TCP4 ::1 1.2.3.5 1 2\r\n", Error::Line),
        (b"PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n", Error::Line),
        (b"PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n", Error::Line),
        (b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0", Error::Version(0x11)),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd", Error::Length),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", Error::Length),
    ] {
        assert_eq!(decode(bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

fn any_end() -> impl Strategy<Value = (IpAddr, IpAddr, u16, u16)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr, u16, u16)>().prop_map(|(a, b, p, q)| (a.into(), b.into(), p, q)),
        any::<(Ipv6Addr, Ipv6Addr, u16, u16)>().prop_map(|(a, b, p, q)| (a.into(), b.into(), p, q)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((a, b, p, q) in any_end()) {
        let ends = Ends { source: SocketAddr::new(a, p), destination: SocketAddr::new(b, q) };
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let bytes = encode(version, ends);
            prop_assert!(version == ProxyProtocol::V2 || bytes.len() <= LONGEST_LINE);
            prop_assert_eq!(decode(&bytes), Ok(Some(ends)));
        }
    }

    #[test]
    fn anything_at_all_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let _ = decode(&[b"PROXY ", &bytes[..]].concat());
        let _ = decode(&[&SIGNATURE, &bytes[..]].concat());
    }

    #[test]
    fn a_header_with_a_wrong_byte_is_read_or_refused((a, b, p, q) in any_end(), at in 0_usize..60, byte: u8, v1: bool) {
        let ends = Ends { source: SocketAddr::new(a, p), destination: SocketAddr::new(b, q) };
        let mut bytes = encode(if v1 { ProxyProtocol::V1 } else { ProxyProtocol::V2 }, ends);
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = decode(&bytes);
        bytes.truncate(at);
        prop_assert!(decode(&bytes).is_err(), "half a header is none");
    }
}
