//! How messages are read: as prost does, but for requests of more fields than any needs. A field of two bytes becomes a
//! hundred times as many when it is decoded, so fields are counted before that, and count as bytes under way. Keys and
//! lengths are read by prost's own functions, so that nothing counts otherwise than it is decoded.
//!
//! Clients read answers with it too. These are not bounded: they come from a host that its user trusts.

use crate::budget;
use crate::proto::DESCRIPTORS;
use bytes::Buf;
use innkeeper_domain::limits::FIELDS_PER_MESSAGE_MAX;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::LazyLock;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a field counts when it is decoded, in bytes: a text in a list that has grown to twice its length.
const FIELD_BYTES: usize = 64;

/// What a message in a message counts beside its fields: twice the largest in a list, for the same reason.
const STRUCT_BYTES: usize = 384;

/// Messages within each other; prost reads no more.
const DEPTH_MAX: usize = 100;

static SHAPES: LazyLock<Shapes> =
    LazyLock::new(|| Shapes::of(&FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default()));

/// The codec of all services.
pub(crate) struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder { shape: SHAPES.request(&U::full_name()), inner: ProstDecoder::default() }
    }
}

pub(crate) struct BoundedDecoder<U> {
    /// None: it is no request.
    shape: Option<&'static Shape>,
    inner: ProstDecoder<U>,
}

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if let Some(shape) = self.shape {
            // tonic gathers a message in one piece.
            debug_assert_eq!(source.chunk().len(), source.remaining());
            let count = Count::of(&SHAPES, shape, source.chunk())?;
            budget::take(count.bytes())?;
        }
        self.inner.decode(source)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.inner.buffer_settings()
    }
}

/// What a message becomes when it is decoded.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    fields: usize,
    /// Those of them that are messages.
    messages: usize,
}

/// Why no more is counted.
enum Stop {
    /// Prost will find the same mistake, and say so.
    Malformed,
    TooMany,
}

impl From<DecodeError> for Stop {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

impl Count {
    /// Counts the fields of a message, with those of the messages in it; those before a mistake, if there is one.
    fn of(shapes: &Shapes, shape: &Shape, message: &[u8]) -> Result<Self, Status> {
        let mut count = Self::default();
        match count.message(shapes, shape, message, 1) {
            Ok(()) | Err(Stop::Malformed) => Ok(count),
            Err(Stop::TooMany) => Err(Status::invalid_argument(format!(
                "the request has more than {FIELDS_PER_MESSAGE_MAX} fields, those of the messages in it included; no \
                 request needs so many"
            ))),
        }
    }

    fn message(&mut self, shapes: &Shapes, shape: &Shape, mut rest: &[u8], depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Malformed);
        }
        while !rest.is_empty() {
            let (number, wire) = decode_key(&mut rest)?;
            match shape.get(&number) {
                Some(Field::Message(name)) if wire == WireType::LengthDelimited => {
                    self.add(1)?;
                    self.messages += 1;
                    let inner = delimited(&mut rest)?;
                    if let Some(shape) = shapes.messages.get(name) {
                        self.message(shapes, shape, inner, depth + 1)?;
                    }
                }
                Some(Field::Numbers) if wire == WireType::LengthDelimited => {
                    self.add(delimited(&mut rest)?.len())?;
                }
                _ => {
                    self.add(1)?;
                    skip_field(wire, number, &mut rest, DecodeContext::default())?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, fields: usize) -> Result<(), Stop> {
        self.fields = self.fields.saturating_add(fields);
        if self.fields > FIELDS_PER_MESSAGE_MAX { Err(Stop::TooMany) } else { Ok(()) }
    }

    fn bytes(&self) -> usize {
        self.fields * FIELD_BYTES + self.messages * STRUCT_BYTES
    }
}

/// The bytes after their length.
fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Stop> {
    let length = usize::try_from(decode_varint(rest)?).map_err(|_| Stop::Malformed)?;
    let (inner, after) = rest.split_at_checked(length).ok_or(Stop::Malformed)?;
    *rest = after;
    Ok(inner)
}

/// What is to be known of a message to count its fields, by their numbers; of the others nothing is.
type Shape = HashMap<u32, Field>;

#[derive(Debug)]
enum Field {
    /// A message of this full name.
    Message(String),
    /// Numbers that may be packed: each byte may be one.
    Numbers,
}

/// Every message, and which of them are requests.
struct Shapes {
    messages: HashMap<String, Shape>,
    requests: HashSet<String>,
}

impl Shapes {
    fn of(described: &FileDescriptorSet) -> Self {
        let mut shapes = Self { messages: HashMap::new(), requests: HashSet::new() };
        for file in &described.file {
            for message in &file.message_type {
                shapes.add(file.package(), message);
            }
            let methods = file.service.iter().flat_map(|service| &service.method);
            shapes.requests.extend(methods.map(|method| bare(method.input_type())));
        }
        shapes
    }

    fn add(&mut self, within: &str, message: &DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        self.messages.insert(name, message.field.iter().filter_map(field).collect());
    }

    /// None if nothing is called with such a message.
    fn request(&self, name: &str) -> Option<&Shape> {
        self.requests.get(name).and_then(|name| self.messages.get(name))
    }
}

fn field(field: &FieldDescriptorProto) -> Option<(u32, Field)> {
    let number = u32::try_from(field.number()).ok()?;
    match field.r#type() {
        Type::Message => Some((number, Field::Message(bare(field.type_name())))),
        Type::String | Type::Bytes | Type::Group => None,
        _ => (field.label() == Label::Repeated).then_some((number, Field::Numbers)),
    }
}

/// Descriptors name what they refer to with a dot before it.
fn bare(name: &str) -> String {
    name.trim_start_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;
    use tonic::Code;

    fn count<M: Name>(message: &[u8]) -> Result<Count, Status> {
        Count::of(&SHAPES, SHAPES.request(&M::full_name()).expect("it is a request"), message)
    }

    fn starts(start: &proto::StartRunRequest, count: usize) -> Vec<u8> {
        proto::StartRunsRequest { starts: vec![start.clone(); count] }.encode_to_vec()
    }

    #[test]
    fn fields_are_counted_where_they_are() {
        let start = proto::StartRunRequest {
            task: "hello".into(),
            // Text that could be fields, and isn't.
            input: Some(proto::Payload { content_type: String::new(), bytes: b"    \x08\x01".to_vec() }),
            deadline: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            labels: vec!["a=1".into(), String::new()],
            ..Default::default()
        };
        let counted = count::<proto::StartRunsRequest>(&starts(&start, 10)).unwrap();
        // Each a message of task, input with bytes, deadline with seconds, and two labels.
        assert_eq!(counted, Count { fields: 80, messages: 30 });
        assert_eq!(counted.bytes(), 80 * FIELD_BYTES + 30 * STRUCT_BYTES);
        let states = proto::ListRunsRequest { states: vec![1; 7], ..Default::default() };
        assert_eq!(count::<proto::ListRunsRequest>(&states.encode_to_vec()).unwrap().fields, 7);
    }

    #[test]
    fn many_fields_of_few_bytes_are_refused_wherever_they_are() {
        let empty = proto::StartRunRequest::default();
        assert!(count::<proto::StartRunsRequest>(&starts(&empty, FIELDS_PER_MESSAGE_MAX)).is_ok());
        let labels = vec![String::new(); FIELDS_PER_MESSAGE_MAX];
        for many in [
            starts(&empty, FIELDS_PER_MESSAGE_MAX + 1),
            starts(&proto::StartRunRequest { labels, ..Default::default() }, 1),
        ] {
            let refused = count::<proto::StartRunsRequest>(&many).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains("more than 100000 fields"), "{refused:?}");
        }
        let states =
            proto::ListRunsRequest { states: vec![1; FIELDS_PER_MESSAGE_MAX + 1], ..Default::default() };
        assert!(count::<proto::ListRunsRequest>(&states.encode_to_vec()).is_err());
    }

    #[test]
    fn as_many_starts_as_a_call_takes_have_far_fewer_fields() {
        use innkeeper_domain::limits::{LABELS_MAX, STARTS_PER_CALL_MAX};
        let duration = Some(prost_types::Duration { seconds: 1, nanos: 1 });
        let full = proto::StartRunRequest {
            task: "t".into(),
            input: Some(proto::Payload { content_type: "t".into(), bytes: vec![1] }),
            idempotency_key: "k".into(),
            start_deadline: duration,
            deadline: duration,
            labels: vec!["a=1".into(); LABELS_MAX],
            priority: Some(1),
        };
        let counted = count::<proto::StartRunsRequest>(&starts(&full, STARTS_PER_CALL_MAX)).unwrap();
        assert!(counted.fields * 2 < FIELDS_PER_MESSAGE_MAX, "{counted:?}");
    }

    #[test]
    fn what_is_malformed_is_left_to_prost() {
        // A good start, and then: an endless number, a length beyond the end, a group without one, field 0.
        for bad in [&[0xff; 11][..], &[0x0a, 5, 0], &[0x0b, 0x08], &[0x02, 0], &[0x0f]] {
            let message = [&[0x0a, 0][..], bad].concat();
            assert!(count::<proto::StartRunsRequest>(&message).unwrap().fields >= 1, "{bad:?}");
            assert!(proto::StartRunsRequest::decode(&message[..]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_request_is_bounded_and_no_answer() {
        let described = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let services = described.file.iter().flat_map(|file| &file.service);
        let methods: Vec<_> = services.flat_map(|service| &service.method).collect();
        assert!(methods.len() > 40, "the descriptors have {} calls", methods.len());
        for method in methods {
            assert!(SHAPES.request(&bare(method.input_type())).is_some(), "{}", method.input_type());
            assert!(SHAPES.request(&bare(method.output_type())).is_none(), "{}", method.output_type());
        }
        assert!(SHAPES.request(&proto::ListRunsResponse::full_name()).is_none());
    }
}
