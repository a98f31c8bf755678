//! Good examples, damaged.

use crate::random::Random;

/// What inputs are made of.
pub struct Grow<'a> {
    /// Good ones.
    pub corpus: &'a [&'a [u8]],
    /// What means something to the reader.
    pub tokens: &'a [&'a str],
}

/// Bytes that an input may grow to.
const GROWN_MAX: usize = 64 * 1024;

/// One of the examples, as it is or damaged in a few places.
pub fn bytes(random: &mut Random, of: &Grow<'_>) -> Vec<u8> {
    let mut bytes = random.pick(of.corpus).unwrap_or_default().to_vec();
    if random.chance(90) {
        damage(random, &mut bytes, of);
    }
    bytes
}

/// The same of text.
pub fn text(random: &mut Random, of: &Grow<'_>) -> String {
    String::from_utf8_lossy(&bytes(random, of)).into_owned()
}

/// Damages in 1 to 8 places.
pub fn damage(random: &mut Random, bytes: &mut Vec<u8>, of: &Grow<'_>) {
    // Few, mostly: what is damaged much is refused early.
    let places = 1 + random.below(8).min(random.below(8));
    for _ in 0..places {
        once(random, bytes, of);
    }
    bytes.truncate(GROWN_MAX);
}

fn once(random: &mut Random, bytes: &mut Vec<u8>, of: &Grow<'_>) {
    let place = random.below(bytes.len() as u64 + 1) as usize;
    let most = random.below(7);
    let length = random.below(1 << most) as usize;
    let end = (place + length).min(bytes.len());
    match random.below(10) {
        0 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
        1 if place < bytes.len() => {
            bytes[place] = random.pick(&[0, 1, 0x20, 0x7f, 0x80, 0xff, b'0', b'9', b'\n', b'-']).unwrap_or(0);
        }
        2 => drop(bytes.drain(place..end)),
        3 => bytes.truncate(place),
        4 => {
            let chunk = bytes[place..end].to_vec();
            let to = random.below(bytes.len() as u64 + 1) as usize;
            bytes.splice(to..to, chunk);
        }
        5 => {
            let other = random.pick(of.corpus).unwrap_or_default();
            let from = random.below(other.len() as u64 + 1) as usize;
            let to = (from + length * 4).min(other.len());
            bytes.splice(place..end, other[from..to].iter().copied());
        }
        6 => {
            let token = random.pick(of.tokens).unwrap_or("\0").repeat(1 << random.below(8));
            bytes.splice(place..place, token.into_bytes());
        }
        7 => {
            let number = random.pick(&NUMBERS).unwrap_or_default();
            bytes.splice(place..end, number.bytes());
        }
        _ => {
            let token = random.pick(of.tokens).unwrap_or("\0");
            let from = if random.chance(50) { end } else { place };
            bytes.splice(place..from, token.bytes());
        }
    }
}

/// Numbers at which something often ends.
pub const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "59",
    "60",
    "255",
    "256",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e400",
    "0.1",
];
