//! What holds in every time zone there is.

use crate::generate::DIALECTS;
use crate::library::Library;
use crate::minutes::{Watch, any_hour, calendar, near, rules, watch_hour};
use crate::random::{Random, first_seed};
use innkeeper_domain::calendar::{Fold, Gap};
use jiff::{Timestamp, tz::TimeZone};

/// Some of a zone's changes, from those of the nineteenth century to those that rules foresee.
fn changes(random: &mut Random, zone: &TimeZone) -> Vec<i64> {
    let from = Timestamp::from_second(-6_000_000_000).unwrap();
    let all = zone.following(from).map(|change| change.timestamp().as_second());
    // The search ends with the year 2200.
    let all: Vec<i64> = all.take_while(|change| *change < 7_200_000_000).collect();
    (0..2).filter_map(|_| random.pick(&all)).collect()
}

fn names() -> Vec<String> {
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    assert!(names.len() > 400, "{} zones", names.len());
    names
}

#[test]
fn every_change_of_every_zone_is_as_looking_says() {
    let seed = first_seed();
    println!("INN_SEED={seed}");
    let mut random = Random::new(seed);
    let mut looked_at = 0;
    for name in names() {
        let zone = TimeZone::get(&name).unwrap();
        for change in changes(&mut random, &zone) {
            let offset = |at| zone.to_offset(Timestamp::from_second(at).unwrap()).seconds();
            let whole = |seconds: i64| seconds % 60 == 0;
            let minutes = whole(change) && whole(offset(change).into()) && whole(offset(change - 1).into());
            // Where a clock was not at whole minutes of UTC, every second of some hours is looked at.
            let (around, step) = if minutes { (86_400, 60) } else { (2 * 3600, 1) };
            let watch = Watch::new(&name, change - around, change + around, step);
            for case in 0..if minutes { 3 } else { 1 } {
                let dialect = DIALECTS[case % 2 * 2];
                let expression = near(&mut random, dialect, watch_hour(&zone, change));
                let (gap, fold) = rules(&mut random);
                looked_at += watch.compare(&expression, dialect, gap, fold);
            }
        }
    }
    assert!(looked_at > 10_000, "only {looked_at} times were due");
}

#[test]
fn times_go_on_from_any_of_them_in_every_zone() {
    let seed = first_seed();
    println!("INN_SEED={seed}");
    let mut random = Random::new(seed);
    for name in names() {
        let zone = TimeZone::get(&name).unwrap();
        let recent = 1_700_000_000 + random.below(300_000_000) as i64;
        for change in changes(&mut random, &zone).into_iter().chain([recent]) {
            let dialect = random.pick(&DIALECTS).unwrap();
            let expression = near(&mut random, dialect, watch_hour(&zone, change));
            let (gap, fold) = rules(&mut random);
            let calendar = calendar(&expression, dialect, &name, gap, fold);
            let library = Library::read(&expression, dialect).unwrap();
            let begin = Timestamp::from_second(change - random.below(200_000) as i64).unwrap();
            let mut last = begin;
            for next in calendar.times_after(begin).take(6) {
                let told =
                    format!("`{expression}` ({dialect}) in {name}, {gap:?}, {fold:?}: {last}, then {next}");
                assert!(next > last, "{told}");
                let between = (next.as_second() - last.as_second()) as u64;
                let later = last.as_second() + random.below(between) as i64;
                let again = calendar.next_after(Timestamp::from_second(later).unwrap());
                assert_eq!(again, Some(next), "{told}, from {later}");
                let civil =
                    |at: i64| at + i64::from(zone.to_offset(Timestamp::from_second(at).unwrap()).seconds());
                let at = next.as_second();
                let after_gap = gap == Gap::RunAfter
                    && !any_hour(&expression, dialect)
                    && (civil(at - 1) + 1..civil(at)).any(|skipped| library.matches(skipped));
                let twice = fold == Fold::Twice || any_hour(&expression, dialect);
                let again = || shown_before(&zone, at);
                assert!(after_gap || library.matches(civil(at)), "{told}: nothing is due then");
                assert!(after_gap || twice || !again(), "{told}: it was due before");
                last = next;
            }
        }
    }
}

/// Whether a zone's clock has shown before what it shows then.
fn shown_before(zone: &TimeZone, at: i64) -> bool {
    let instant = |at| Timestamp::from_second(at).unwrap();
    let offset = |at| i64::from(zone.to_offset(instant(at)).seconds());
    let changes = zone.preceding(instant(at + 1)).map(|change| change.timestamp().as_second());
    changes.take_while(|change| at - change < 93_600).any(|change| {
        let before = offset(change - 1);
        let earlier = at + offset(at) - before;
        earlier < change && offset(earlier) == before
    })
}
