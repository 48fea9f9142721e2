//! Values as the text protocol shows them.

use super::*;

fn one(wire: Wire, meaning: &Meaning, bytes: &[u8]) -> String {
    let (mut out, mut rest) = (Vec::new(), bytes);
    read(&mut rest, wire, meaning, &mut out).unwrap();
    assert!(rest.is_empty());
    for cut in 0..bytes.len() {
        assert!(read(&mut &bytes[..cut], wire, meaning, &mut Vec::new()).is_err(), "cut at {cut}");
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn floats_as_mysql_writes_them() {
    let double = |v: f64| one(Wire::Double, &Meaning::Float(None), &v.to_le_bytes());
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (123_456.789, "123456.789"),
        (1e14, "100000000000000"),
        (1e15, "1e15"),
        (1.5e20, "1.5e20"),
        (3_509_748_953_427_287.5, "3509748953427287.5"),
        (-1_081_444_921_863_641.2, "-1081444921863641.2"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (0.000_012_34, "0.00001234"),
    ] {
        assert_eq!(double(value), text);
    }
    let float = |v: f32| one(Wire::Float, &Meaning::Float(None), &v.to_le_bytes());
    assert_eq!(float(1.1), "1.1");
    assert_eq!(float(1_234_567.0), "1234570");
    assert_eq!(float(0.000_012_345_67), "0.0000123457");
    assert_eq!(one(Wire::Float, &Meaning::Float(Some(2)), &1.005f32.to_le_bytes()), "1.00");
}

#[test]
fn times() {
    assert_eq!(one(Wire::Time(0), &Meaning::Time, &[0x80, 0x10, 0x83]), "01:02:03");
    // -00:00:01 and -00:00:00.1, as MySQL's own comment gives them.
    assert_eq!(one(Wire::Time(0), &Meaning::Time, &[0x7f, 0xff, 0xff]), "-00:00:01");
    assert_eq!(one(Wire::Time(1), &Meaning::Time, &[0x7f, 0xff, 0xff, 0xf6]), "-00:00:00.1");
    assert_eq!(one(Wire::Timestamp(0), &Meaning::Timestamp, &[0; 4]), "0000-00-00 00:00:00");
    let at = 1_709_208_000u32.to_be_bytes();
    assert_eq!(one(Wire::Timestamp(0), &Meaning::Timestamp, &at), "2024-02-29 12:00:00");
    assert_eq!(one(Wire::DateTime(0), &Meaning::DateTime, &[0x80, 0, 0, 0, 0]), "0000-00-00 00:00:00");
}

#[test]
fn a_column_that_is_something_else_is_refused() {
    let mut bytes = [0u8; 8].as_slice();
    assert_eq!(read(&mut bytes, Wire::Integer(4), &Meaning::Utf8, &mut Vec::new()), Err(Unreadable));
    assert_eq!(Wire::of(140, [1, 0]), Err(Unreadable));
    assert_eq!(Wire::of(246, [2, 3]), Err(Unreadable));
}
