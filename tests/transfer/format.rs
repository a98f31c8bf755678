//! The format of a backup's file, read and written again here by what its description says.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

const FIRST_LINE: &[u8] = b"innkeeper backup 1\n";

/// A record: its kind, and its content.
pub type Record = (u8, Vec<u8>);

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn length(bytes: &mut &[u8]) -> usize {
    u32::from_le_bytes(take(bytes, 4).try_into().unwrap()) as usize
}

/// The records of a file that is whole.
pub fn records(file: &[u8]) -> Vec<Record> {
    let mut rest = file.strip_prefix(FIRST_LINE).expect("a backup");
    let mut records = Vec::new();
    while !rest.is_empty() {
        let kind = take(&mut rest, 1)[0];
        let count = length(&mut rest);
        let content = take(&mut rest, count).to_vec();
        let check = Sha256::digest(&file[..file.len() - rest.len()]);
        let check = if kind == b'e' { &check[..] } else { &check[..8] };
        assert_eq!(take(&mut rest, check.len()), check);
        records.push((kind, content));
    }
    records
}

/// A file of these records.
pub fn file(records: &[Record]) -> Vec<u8> {
    let mut file = FIRST_LINE.to_vec();
    for (kind, content) in records {
        file.push(*kind);
        file.extend_from_slice(&(content.len() as u32).to_le_bytes());
        file.extend_from_slice(content);
        let check = Sha256::digest(&file);
        file.extend_from_slice(if *kind == b'e' { &check[..] } else { &check[..8] });
    }
    file
}

/// Every table with its columns and its rows, as text and in order. PostgreSQL's texts have no NUL.
pub fn tables(file: &[u8]) -> BTreeMap<String, (Value, Vec<String>)> {
    let mut tables = BTreeMap::new();
    let mut table = String::new();
    for (kind, content) in records(file) {
        match kind {
            b't' => {
                let told: Value = serde_json::from_slice(&content).unwrap();
                table = told["table"].as_str().unwrap().into();
                tables.insert(table.clone(), (told["columns"].clone(), Vec::new()));
            }
            b'r' => tables.get_mut(&table).unwrap().1.push(row(&content)),
            _ => {}
        }
    }
    tables.values_mut().for_each(|(_, rows)| rows.sort());
    tables
}

fn row(mut content: &[u8]) -> String {
    let mut text = String::new();
    while !content.is_empty() {
        text += &match take(&mut content, 1)[0] {
            0 => "null".to_string(),
            1 => i64::from_le_bytes(take(&mut content, 8).try_into().unwrap()).to_string(),
            kind => {
                let count = length(&mut content);
                let bytes = take(&mut content, count);
                match kind {
                    2 => format!("{:?}", std::str::from_utf8(bytes).unwrap().replace('\0', "\u{fffd}")),
                    3 => hex::encode(bytes),
                    kind => panic!("a value of kind {kind}"),
                }
            }
        };
        text += " ";
    }
    text
}
