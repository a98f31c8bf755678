//! Random cron expressions of three dialects, and random texts that look like some.

use crate::random::Random;
use innkeeper_domain::calendar::Dialect;

pub const DIALECTS: [Dialect; 3] = [Dialect::Crontab, Dialect::Quartz, Dialect::Rust];

/// What the second is in the expressions that are made.
#[derive(Clone, Copy, PartialEq)]
pub enum Seconds {
    /// Zero: they are due at whole minutes.
    Zero,
    Any,
}

/// An expression in a dialect, one that its library takes.
pub fn expression(random: &mut Random, dialect: Dialect, seconds: Seconds) -> String {
    let second = match seconds {
        Seconds::Zero => "0".into(),
        Seconds::Any => set(random, dialect, 0, 59),
    };
    let mut fields = vec![second, set(random, dialect, 0, 59), set(random, dialect, 0, 23)];
    if random.chance(30) {
        fields[1] = format!("*/{}", random.pick(&[5, 7, 10, 15, 20, 30]).unwrap());
    }
    fields.push(day(random, dialect));
    fields.push(if random.chance(60) { "*".into() } else { month(random, dialect) });
    fields.push(weekday(random, dialect));
    if dialect == Dialect::Crontab && seconds == Seconds::Zero && random.chance(70) {
        fields.remove(0);
    } else if random.chance(15) {
        fields.push(match random.below(3) {
            0 => "*".into(),
            1 => "2026/3".replace('/', if dialect == Dialect::Rust { "/" } else { "-2099/" }),
            _ => format!("{}-{}", 1995 + random.below(31), 2026 + random.below(70)),
        });
    }
    fields.join(" ")
}

/// A number, a list, a range, a step or all.
fn set(random: &mut Random, dialect: Dialect, least: u64, greatest: u64) -> String {
    let any = |random: &mut Random| least + random.below(greatest - least + 1);
    let range = |random: &mut Random| {
        let (one, other) = (any(random), any(random));
        format!("{}-{}", one.min(other), one.max(other))
    };
    match random.below(10) {
        0..3 => any(random).to_string(),
        3 => format!("{},{}", any(random), any(random)),
        4 => format!("{},{}", range(random), any(random)),
        5 => range(random),
        6 => format!("{}/{}", range(random), 1 + random.below(7)),
        7 if dialect == Dialect::Rust => format!("{}/{}", any(random), 1 + random.below(7)),
        7 | 8 => format!("*/{}", 1 + random.below(greatest.min(11))),
        _ => "*".into(),
    }
}

fn day(random: &mut Random, dialect: Dialect) -> String {
    match random.below(10) {
        0..5 => random.pick(&["*", "?"]).unwrap().into(),
        5..7 => set(random, dialect, 1, 31),
        _ if dialect == Dialect::Rust => format!("{},{}", 1 + random.below(31), 1 + random.below(31)),
        7 => random.pick(&["L", "LW", "L,15W", "1,L", "lw,3"]).unwrap().into(),
        8 => format!("{}W", 1 + random.below(31)),
        _ => format!("{}W,{}", 1 + random.below(31), 1 + random.below(31)),
    }
}

fn month(random: &mut Random, dialect: Dialect) -> String {
    match random.below(4) {
        0 => random.pick(&["JAN", "feb", "MAR-MAY", "Oct,Dec", "JUN-AUG"]).unwrap().into(),
        _ => set(random, dialect, 1, 12),
    }
}

fn weekday(random: &mut Random, dialect: Dialect) -> String {
    let least = u64::from(dialect != Dialect::Crontab);
    let one = |random: &mut Random| (least + random.below(7)).to_string();
    match random.below(10) {
        0..4 => random.pick(&["*", "?"]).unwrap().into(),
        4 => random.pick(&["MON-FRI", "sat,SUN", "Tue", "THU-SAT", "MON,WED,FRI"]).unwrap().into(),
        5 => set(random, dialect, least, 7),
        6 if dialect != Dialect::Rust => format!("+{}", one(random)),
        7 if dialect != Dialect::Rust => format!("{}#{}", one(random), 1 + random.below(5)),
        8 if dialect != Dialect::Rust => format!("{}L,{}", one(random), one(random)),
        9 if dialect != Dialect::Rust => {
            random.pick(&["MON-FRI#1", "FRI#2,SUNL", "+MON#L", "*/3#2"]).unwrap().into()
        }
        _ => one(random),
    }
}

/// A text that may be an expression: one that is, with some of its characters changed, taken out or put in.
pub fn scrambled(random: &mut Random, dialect: Dialect) -> String {
    const SIGNS: &[u8] = b"0123456789**,,--//##??LWlw+ @AMONFRIJSUa\t=.";
    let mut text = expression(random, dialect, Seconds::Any).into_bytes();
    for _ in 0..=random.below(3) {
        let at = random.below(text.len() as u64 + 1) as usize;
        let sign = random.pick(SIGNS).unwrap();
        match random.below(3) {
            0 if at < text.len() => text[at] = sign,
            1 if at < text.len() => _ = text.remove(at),
            _ => text.insert(at, sign),
        }
    }
    String::from_utf8(text).unwrap()
}

/// Characters without any order.
pub fn noise(random: &mut Random) -> String {
    const SIGNS: &[char] = &[
        '0',
        '5',
        '9',
        '*',
        ',',
        '-',
        '/',
        '#',
        '?',
        'L',
        'W',
        'M',
        'O',
        'N',
        ' ',
        '@',
        '\u{e4}',
        '\0',
        '\u{1f600}',
    ];
    (0..random.below(24)).map(|_| random.pick(SIGNS).unwrap()).collect()
}
