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

/// What follows a record of this kind, when this is the hash of everything up to there.
fn check(kind: u8, hash: &Sha256) -> Vec<u8> {
    let check = hash.clone().finalize();
    if kind == b'e' { check.to_vec() } else { check[..8].to_vec() }
}

/// The records of a file that is whole.
pub fn records(file: &[u8]) -> Vec<Record> {
    let mut rest = file.strip_prefix(FIRST_LINE).expect("a backup");
    let (mut records, mut hash) = (Vec::new(), Sha256::new_with_prefix(FIRST_LINE));
    while !rest.is_empty() {
        let begin = rest;
        let kind = take(&mut rest, 1)[0];
        let count = length(&mut rest);
        let content = take(&mut rest, count).to_vec();
        hash.update(&begin[..begin.len() - rest.len()]);
        let expected = check(kind, &hash);
        let found = take(&mut rest, expected.len());
        assert_eq!(found, expected);
        hash.update(found);
        records.push((kind, content));
    }
    records
}

/// A file of these records.
pub fn file(records: &[Record]) -> Vec<u8> {
    let (mut file, mut hash) = (FIRST_LINE.to_vec(), Sha256::new_with_prefix(FIRST_LINE));
    for (kind, content) in records {
        let record = [&[*kind], &(content.len() as u32).to_le_bytes()[..], content].concat();
        hash.update(&record);
        let check = check(*kind, &hash);
        hash.update(&check);
        file.extend([record, check].concat());
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
