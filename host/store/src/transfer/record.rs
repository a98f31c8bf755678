//! A row as bytes, in a backup's file: its values one after the other, each a byte that tells its kind, and
//! then
//!
//! | kind | what follows |
//! | --- | --- |
//! | 0 null | nothing |
//! | 1 a number | 8 bytes, signed, the lowest first |
//! | 2 text, 3 bytes | the length in 4 bytes, the lowest first, and as many bytes; text is UTF-8 |

use super::part::{Row, Value};

/// Appends a row. None of its values may be longer than 4 GiB; columns are bounded far below.
pub(super) fn write(row: &[Value], out: &mut Vec<u8>) {
    for value in row {
        match value {
            Value::Null => out.push(0),
            Value::Int(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Value::Text(text) => write_bytes(2, text.as_bytes(), out),
            Value::Blob(bytes) => write_bytes(3, bytes, out),
        }
    }
}

fn write_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The row; none if the bytes are not one.
pub(super) fn read(mut bytes: &[u8]) -> Option<Row> {
    let mut row = Row::new();
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        row.push(match kind {
            0 => Value::Null,
            1 => Value::Int(i64::from_le_bytes(take(&mut bytes)?)),
            2 => Value::Text(String::from_utf8(read_bytes(&mut bytes)?).ok()?),
            3 => Value::Blob(read_bytes(&mut bytes)?),
            _ => return None,
        });
    }
    Some(row)
}

fn read_bytes(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
    let (value, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(value.into())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (value, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_halves_do_not() {
        let row = vec![
            Value::Null,
            Value::Int(i64::MIN),
            Value::Text("naïve\0".into()),
            Value::Blob(vec![0xff; 300]),
            Value::Text(String::new()),
        ];
        let mut bytes = Vec::new();
        write(&row, &mut bytes);
        assert_eq!(read(&bytes).as_ref(), Some(&row));
        for length in 0..bytes.len() {
            assert_ne!(read(&bytes[..length]).as_ref(), Some(&row), "{length}");
        }
        assert_eq!(
            (read(&[9]), read(&[2, 1, 0, 0, 0, 0xff]), read(&[2, 255, 255, 255, 255])),
            (None, None, None)
        );
    }
}
