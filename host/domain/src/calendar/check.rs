//! What is wrong with a cron expression, and where. It comes before the libraries: they say less, and take some
//! mistakes for something else.
//!
//! What it refuses although the dialect's library would take it is what nobody can have meant: names of another field,
//! steps beyond the field, an `L` that says nothing, text that the library skips.

use super::Dialect;
use super::field::{self, Field, Unit};

/// Refuses characters that are in no expression.
pub fn characters(expression: &str) -> Result<(), String> {
    if let Some((at, c)) = expression.chars().enumerate().find(|(_, c)| !is_possible(*c)) {
        let what = if c.is_control() { "a control character".into() } else { format!("`{c}`") };
        return Err(format!(
            "character {} is {what}; letters, digits and signs of ASCII are possible",
            at + 1
        ));
    }
    if expression.trim().is_empty() {
        return Err("it is empty; every minute, say, is `* * * * *`".into());
    }
    Ok(())
}

/// Refuses mistakes in the fields; what passes is left to the library.
pub fn fields(expression: &str, dialect: Dialect) -> Result<(), String> {
    let fields = field::fields(expression, dialect)?;
    fields.into_iter().try_for_each(|field| Checker { field, dialect }.list())
}

fn is_possible(c: char) -> bool {
    c.is_ascii() && (!c.is_control() || c.is_whitespace())
}

/// A field under examination.
struct Checker<'a> {
    field: Field<'a>,
    dialect: Dialect,
}

type Checked<T> = Result<T, String>;

impl<'a> Checker<'a> {
    fn list(&self) -> Checked<()> {
        let both = self.field.unit == Unit::Weekday && self.dialect != Dialect::Rust;
        let text = self.field.text.strip_prefix('+').filter(|_| both).unwrap_or(self.field.text);
        let mut rest = text;
        loop {
            let (item, more) = match rest.split_once(',') {
                Some((item, more)) => (item, Some(more)),
                None => (rest, None),
            };
            // An item keeps its place in the field, white space inside of it too.
            let item = if item.trim().is_empty() { &item[..0] } else { item.trim() };
            if item.is_empty() && text.contains(',') {
                return Err(self.mistake(item, "there is a comma with nothing beside it"));
            }
            if matches!(item, "*" | "?") && text.contains(',') && self.dialect != Dialect::Rust {
                return Err(self.mistake(item, format!("`{item}` is all there is, and can't be in a list")));
            }
            self.item(item)?;
            match more {
                Some(more) => rest = more,
                None => return Ok(()),
            }
        }
    }

    fn item(&self, item: &'a str) -> Checked<()> {
        let unit = self.field.unit;
        if self.dialect == Dialect::Rust {
            return self.stepped(item);
        }
        let upper = item.to_ascii_uppercase();
        match (unit, upper.as_str()) {
            (Unit::Day, "L" | "LW") => return Ok(()),
            (Unit::Day, "W") => {
                return Err(self.mistake(item, "`W` has no day before it; write one as in `15W`, or `LW`"));
            }
            (Unit::Day, _) if upper.starts_with("L-") => {
                return Err(
                    self.mistake(item, format!("`{item}` is not known; `L`, `LW` and `15W`, say, are"))
                );
            }
            (Unit::Weekday, "L") => {
                return Err(self.mistake(item, "`L` has no day before it; write one as in `5L`"));
            }
            _ => {}
        }
        if unit == Unit::Day && upper.ends_with('W') {
            return self.number(&item[..item.len() - 1]).map(|_| ());
        }
        if unit != Unit::Weekday {
            return self.stepped(item);
        }
        if let Some((days, nth)) = item.split_once('#') {
            if matches!(days, "*" | "?") {
                return Err(self.mistake(item, format!("`{item}` has no day before the `#`")));
            }
            self.stepped(days)?;
            return match nth {
                "L" | "l" => Ok(()),
                _ => self.bounded(nth, 1, 5).map(|_| ()),
            };
        }
        match item.strip_suffix(['L', 'l']) {
            Some(days) if days.contains(['-', '/']) => {
                Err(self.mistake(item, format!("`{item}` is no single day; write `{days}#L`")))
            }
            Some(day) => self.value(day).map(|_| ()),
            None => self.stepped(item),
        }
    }

    /// `A`, `A-B`, `*`, and each with a step.
    fn stepped(&self, item: &'a str) -> Checked<()> {
        let Some((range, step)) = item.split_once('/') else { return self.range(item) };
        let (range, step) = (range.trim_end(), step.trim_start());
        let (_, greatest) = self.field.unit.bounds(self.dialect);
        if range.is_empty() {
            return Err(self.mistake(item, format!("`{item}` has nothing before the `/`; write `*{item}`")));
        }
        self.range(range)?;
        let is_single = !range.contains(['-', '*', '?']);
        let named = is_single && range.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_single && (self.dialect != Dialect::Rust || named) {
            let words = format!(
                "`{item}` has a step but no range; write `{range}-{}/{step}`",
                self.spell(greatest, range)
            );
            return Err(self.mistake(item, words));
        }
        self.bounded(step, 1, self.field.unit.step_max(self.dialect)).map(|_| ())
    }

    fn range(&self, range: &'a str) -> Checked<()> {
        if matches!(range, "*" | "?") {
            return match range {
                "?" if !self.field.unit.may_be_any() => Err(self.mistake(
                    range,
                    "`?` is possible only as the day of the month and the day of the week; write `*`",
                )),
                _ => Ok(()),
            };
        }
        let Some((first, last)) = range.split_once('-') else { return self.value(range).map(|_| ()) };
        let (first, last) = (first.trim_end(), last.trim_start());
        if first.is_empty() || last.is_empty() {
            return Err(self.mistake(range, format!("`{range}` is a range with one end; write both")));
        }
        let (from, mut to) = (self.value(first)?, self.value(last)?);
        let names = [first, last].map(|end| end.starts_with(|c: char| c.is_ascii_alphabetic()));
        if self.dialect == Dialect::Rust && names[0] != names[1] {
            return Err(
                self.mistake(range, format!("`{range}` has a name and a number; write two of either"))
            );
        }
        if self.dialect == Dialect::Crontab && last.eq_ignore_ascii_case("SUN") {
            to = 7;
        }
        if from > to {
            return Err(self.mistake(range, self.backwards(range, (first, from), (last, to))));
        }
        Ok(())
    }

    /// What to write for a range that ends before it begins.
    fn backwards(&self, range: &str, first: (&str, u32), last: (&str, u32)) -> String {
        let (least, greatest) = self.field.unit.bounds(self.dialect);
        // The week of a crontab has Sunday at both ends.
        let greatest = if (least, greatest) == (0, 7) { 6 } else { greatest };
        let upper = if first.1 >= greatest {
            first.0.to_string()
        } else {
            format!("{}-{}", first.0, self.spell(greatest, first.0))
        };
        let lower = if last.1 <= least {
            last.0.to_string()
        } else {
            format!("{}-{}", self.spell(least, last.0), last.0)
        };
        format!("`{range}` goes backwards; write `{upper},{lower}`")
    }

    /// A number as its neighbour is written: by name, or not.
    fn spell(&self, number: u32, like: &str) -> String {
        let unit = self.field.unit;
        let named = like.starts_with(|c: char| c.is_ascii_alphabetic());
        let mut names = unit.names().iter().filter(|_| named);
        names
            .find(|name| unit.number(name, self.dialect) == Some(number))
            .map_or(number.to_string(), |name| name.to_string())
    }

    /// A number, or a name for one.
    fn value(&self, text: &'a str) -> Checked<u32> {
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphabetic()) {
            return self.number(text);
        }
        let unit = self.field.unit;
        if let Some(number) = unit.number(text, self.dialect) {
            return Ok(number);
        }
        let known = match unit.names() {
            [] => self.possible(),
            names => format!("{}, and {}", self.possible(), names.join(", ")),
        };
        let why = match text.to_ascii_uppercase().as_str() {
            "L" | "W" | "LW" if self.dialect == Dialect::Rust => {
                format!("`{text}` is not in the rust dialect, but in crontab and quartz")
            }
            "L" | "W" | "LW" => format!("`{text}` has no meaning here; {known} are possible"),
            _ if unit.names().is_empty() => format!("`{text}` is not a number; {known} are possible"),
            _ => format!("`{text}` is not known; {known} are possible"),
        };
        Err(self.mistake(text, why))
    }

    fn number(&self, text: &'a str) -> Checked<u32> {
        let (least, greatest) = self.field.unit.bounds(self.dialect);
        self.bounded(text, least, greatest)
    }

    fn bounded(&self, text: &'a str, least: u32, greatest: u32) -> Checked<u32> {
        let possible = format!("{least} to {greatest} are possible");
        if text.is_empty() {
            return Err(self.mistake(text, format!("a number is missing; {possible}")));
        }
        if !text.chars().all(|c| c.is_ascii_digit()) {
            return Err(self.mistake(text, format!("`{text}` is not a number; {possible}")));
        }
        let number = text.parse::<u32>().ok().filter(|number| (least..=greatest).contains(number));
        number.ok_or_else(|| self.mistake(text, format!("`{text}` is out of range; {possible}")))
    }

    fn possible(&self) -> String {
        let (least, greatest) = self.field.unit.bounds(self.dialect);
        format!("{least} to {greatest}")
    }

    /// Words with the place of a piece of the field.
    fn mistake(&self, piece: &str, why: impl std::fmt::Display) -> String {
        let Field { unit, text, number, start } = self.field;
        // A piece is a part of the field's own text, so that its address tells where it stands.
        let offset = (piece.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
        format!("the {} (field {number}, character {}): {why}", unit.name(), start + offset + 1)
    }
}
