//! Protobuf messages by their descriptors: fields of the right kinds, with what means something in them, and such as
//! only look like it.

use crate::mutate::{Grow, damage};
use crate::random::Random;
use innkeeper_api::proto::DESCRIPTORS;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;

/// A call of the protocol.
pub struct Call {
    /// `Service/Method`.
    pub path: String,
    pub streams: bool,
    input: String,
}

/// The protocol.
pub struct Protocol {
    messages: BTreeMap<String, DescriptorProto>,
    pub calls: Vec<Call>,
}

/// Fields that a message of a message may have in all: messages that contain themselves end some time.
const DEPTH_MAX: u64 = 4;

/// What texts of any field may be.
const TEXTS: Grow = Grow {
    corpus: &[b"mine", b"mine-hourly", b"other", b"default", b"a", b""],
    tokens: &[
        "mine",
        "*",
        "é",
        "\u{202e}",
        "\0",
        "\n",
        "\x1b[31m",
        "/",
        "=",
        "@",
        "%",
        "'",
        "\"",
        "a.b.c",
        "innkeeper.",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "x=y",
        "0 3 * * *",
        "Europe/Berlin",
        "18446744073709551616",
    ],
};

impl Protocol {
    pub fn new() -> Self {
        let described = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let (mut messages, mut calls) = (BTreeMap::new(), Vec::new());
        for file in described.file {
            let package = format!(".{}", file.package());
            for message in file.message_type {
                add(&mut messages, &package, message);
            }
            for service in file.service.iter().filter(|_| package == ".innkeeper.v1") {
                calls.extend(service.method.iter().map(|method| Call {
                    path: format!("{}/{}", service.name(), method.name()),
                    streams: method.server_streaming(),
                    input: method.input_type().into(),
                }));
            }
        }
        Self { messages, calls }
    }

    /// A message that a call takes, encoded. Half of them are made with care: what they say may well be meant.
    pub fn message(&self, random: &mut Random, call: &Call, known: &dyn Known) -> Vec<u8> {
        let care = if random.chance(50) { Care::Taken } else { Care::None };
        let mut bytes = self.of_type(random, &call.input, 0, By { care, known });
        if care == Care::None && random.chance(20) {
            damage(random, &mut bytes, &TEXTS);
        }
        bytes
    }

    fn of_type(&self, random: &mut Random, name: &str, depth: u64, by: By<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(message) = self.messages.get(name) else { return bytes };
        // Mostly one of a `oneof`, and mostly what is needed: more would be refused for the same few reasons.
        let chosen = random.below(8) as i32;
        for field in &message.field {
            let wanted = match field.oneof_index {
                Some(_) if !field.proto3_optional() => field.number() % 3 == chosen % 3 || random.chance(10),
                _ => random.chance(match by.care {
                    Care::Taken => by.known.percent(field.name()),
                    Care::None if depth == 0 => 70,
                    Care::None => 45,
                }),
            };
            let times = match (wanted, field.label()) {
                (false, _) => 0,
                (true, Label::Repeated) => 1 + random.below(3),
                (true, _) => 1,
            };
            for _ in 0..times {
                self.field(random, field, depth, by, &mut bytes);
            }
        }
        bytes
    }

    fn field(
        &self,
        random: &mut Random,
        field: &FieldDescriptorProto,
        depth: u64,
        by: By<'_>,
        to: &mut Vec<u8>,
    ) {
        let tag = (field.number() as u64) << 3;
        let of_bytes = |content: Vec<u8>, to: &mut Vec<u8>| {
            varint(tag | 2, to);
            varint(content.len() as u64, to);
            to.extend(content);
        };
        match field.r#type() {
            Type::String => {
                let text = by.text(random, field.name());
                of_bytes(text.unwrap_or_else(|| crate::mutate::text(random, &TEXTS)).into(), to);
            }
            Type::Bytes => {
                let text = by.text(random, field.name());
                let content = text.map_or_else(|| crate::mutate::bytes(random, &TEXTS), Into::into);
                of_bytes(content, to);
            }
            Type::Message if field.type_name() == ".google.protobuf.Timestamp" => {
                of_bytes(by.seconds(random, instant), to);
            }
            Type::Message if field.type_name() == ".google.protobuf.Duration" => {
                of_bytes(by.seconds(random, duration), to);
            }
            Type::Message if depth < DEPTH_MAX => {
                of_bytes(self.of_type(random, field.type_name(), depth + 1, by), to);
            }
            Type::Message | Type::Group => {}
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                varint(tag | 1, to);
                to.extend(by.number(random, field.name()).to_le_bytes());
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                varint(tag | 5, to);
                to.extend((by.number(random, field.name()) as u32).to_le_bytes());
            }
            Type::Bool => {
                varint(tag, to);
                varint(random.below(2), to);
            }
            Type::Enum => {
                varint(tag, to);
                varint(random.below(9), to);
            }
            _ => {
                varint(tag, to);
                varint(by.number(random, field.name()), to);
            }
        }
    }
}

/// Who knows what fields may be.
pub trait Known {
    /// A text that means something there; none if it isn't known.
    fn text(&self, random: &mut Random, field: &str) -> Option<String>;

    /// The same of a number.
    fn number(&self, random: &mut Random, field: &str) -> u64;

    /// How often, in a hundred times, somebody who means what he says fills the field.
    fn percent(&self, field: &str) -> u64;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    Taken,
    None,
}

/// How a message is made.
#[derive(Clone, Copy)]
struct By<'a> {
    care: Care,
    known: &'a dyn Known,
}

impl By<'_> {
    fn text(self, random: &mut Random, field: &str) -> Option<String> {
        let any = self.care == Care::None && random.chance(5);
        self.known.text(random, field).filter(|_| !any)
    }

    fn number(self, random: &mut Random, field: &str) -> u64 {
        if self.care == Care::Taken { self.known.number(random, field) } else { number(random) }
    }

    fn seconds(self, random: &mut Random, of: fn(&mut Random) -> i64) -> Vec<u8> {
        seconds_and_nanos(of(random), self.care, random)
    }
}

fn add(messages: &mut BTreeMap<String, DescriptorProto>, within: &str, message: DescriptorProto) {
    let name = format!("{within}.{}", message.name());
    for nested in message.nested_type.clone() {
        add(messages, &name, nested);
    }
    messages.insert(name, message);
}

fn varint(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn number(random: &mut Random) -> u64 {
    match random.below(8) {
        0..=3 => random.below(10),
        4 => random.below(100_000),
        5 => random.pick(&[u64::MAX, i64::MAX as u64, 1 << 63, u32::MAX.into(), 1 << 31]).unwrap_or(0),
        6 => random.pick(&[65_536, 1 << 20, 64 << 20, 1 << 30, 1 << 40]).unwrap_or(0),
        _ => random.number(),
    }
}

/// Seconds since 1970, mostly of these years.
fn instant(random: &mut Random) -> i64 {
    match random.below(10) {
        0 => random.number() as i64,
        1 => random
            .pick(&[i64::MIN, i64::MAX, -377_705_116_800, 253_402_300_799, 253_402_300_800, -1, 0])
            .unwrap_or(0),
        2 => random.below(10_000_000_000) as i64,
        _ => crate::host::now().as_second() + random.below(20_000_000) as i64 - 10_000_000,
    }
}

fn duration(random: &mut Random) -> i64 {
    match random.below(10) {
        0 => random.pick(&[i64::MIN, i64::MAX, -1, 315_576_000_000, 31_622_400, 86_401]).unwrap_or(0),
        1 => 0,
        2..=5 => random.below(120) as i64,
        _ => random.below(100_000) as i64,
    }
}

fn seconds_and_nanos(seconds: i64, care: Care, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![1 << 3];
    varint(seconds as u64, &mut bytes);
    if care == Care::None && random.chance(20) {
        let nanos =
            random.pick(&[1, 999, 1_000, 999_999_999, 1_000_000_000, -1, i32::MAX, i32::MIN]).unwrap_or(0);
        bytes.push(2 << 3);
        varint(i64::from(nanos) as u64, &mut bytes);
    }
    bytes
}
