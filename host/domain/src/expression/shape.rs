//! What an expression may look like, so that evaluating it costs little more than reading what it looks at.
//!
//! A loop goes through something that the input has, or through what another loop has picked of it; one within a
//! loop, through a part of that one's element. So all loops of one nest together go through each element of the input
//! once at most. Where a loop's body looks at anything but its own element, each round may cost as much as the whole
//! input: such expressions look at smaller inputs only. So do those with much to do in their loops, and those that make
//! much of what they look at: a sum copies what it adds up, and a sum of sums copies it again.

use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_JOINS_MAX};
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

/// The functions and macros that can be called.
pub(super) const FUNCTIONS: [&str; 16] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "type",
    "has",
    "all",
    "exists",
    "exists_one",
    "filter",
    "map",
];

/// What an expression looks at, and what evaluating it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub has_loops: bool,
    /// What its loops look at beside their own elements.
    pub joined: Joined,
    /// How often it goes through what it looks at, at the most.
    pub times: usize,
    /// The fields, from a variable on, by which it names what it looks at.
    pub parts: Vec<Vec<String>>,
}

/// What loops look at beside their own elements, and do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Joined {
    Nothing,
    Compared,
    /// It is copied in each round.
    Copied,
}

/// What is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misshapen {
    Variable(String),
    Function(String),
    Loop(&'static str),
    Nested,
}

/// Whether no part of the text is nested so deeply that reading it needs much stack.
pub(super) fn is_flat(text: &str) -> bool {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let prefixes = text.bytes().filter(|byte| matches!(byte, b'?' | b'!' | b'-')).count();
    deepest <= EXPRESSION_DEPTH_MAX && prefixes <= 4 * EXPRESSION_DEPTH_MAX
}

/// Checks an expression that can name these variables.
pub(super) fn check(expression: &IdedExpr, variables: &[&str]) -> Result<Shape, Misshapen> {
    let shape = Shape { has_loops: false, joined: Joined::Nothing, times: 0, parts: Vec::new() };
    let mut walk = Walk { variables, loops: Vec::new(), depth: 0, copies: 0, joins: 0, shape };
    walk.expression(expression)?;
    if walk.joins > EXPRESSION_JOINS_MAX {
        return Err(Misshapen::Loop("its loops look too often at more than their own elements"));
    }
    Ok(walk.shape)
}

struct Walk<'a> {
    variables: &'a [&'a str],
    /// The elements' names of the loops around, and those of what each gathers, the innermost last.
    loops: Vec<(&'a str, &'a str)>,
    depth: usize,
    /// How often what is named here is copied: by the sums, lists and maps around.
    copies: usize,
    /// How often a loop's body names something else than its own element.
    joins: usize,
    shape: Shape,
}

impl<'a> Walk<'a> {
    fn expression(&mut self, expression: &'a IdedExpr) -> Result<(), Misshapen> {
        // A sum of many is nested too, but cheaply.
        if self.depth > 32 * EXPRESSION_DEPTH_MAX {
            return Err(Misshapen::Nested);
        }
        self.depth += 1;
        // Each round of a loop takes one step more.
        self.shape.times += usize::from(!self.loops.is_empty());
        let copies = self.copies;
        self.copies = copies_within(&expression.expr, copies);
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            of if let Some((name, fields)) = named(of) => self.name(name, fields)?,
            Expr::Ident(_) => {}
            Expr::Select(select) => self.expression(&select.operand)?,
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.expression(element))?,
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.expression(&entry.key)?;
                        self.expression(&entry.value)?;
                    }
                }
            }
            Expr::Struct(made) => return Err(Misshapen::Function(made.type_name.clone())),
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(repeated) => self.comprehension(repeated)?,
        }
        self.copies = copies;
        self.depth -= 1;
        Ok(())
    }

    fn name(&mut self, name: &str, fields: Vec<String>) -> Result<(), Misshapen> {
        let place = self.loops.iter().rposition(|(element, gathered)| name == *element || name == *gathered);
        if place.is_none() {
            if !self.variables.contains(&name) {
                return Err(Misshapen::Variable(name.into()));
            }
            self.shape.parts.push(fields);
        }
        let is_own = place.is_some_and(|place| place + 1 == self.loops.len());
        if !self.loops.is_empty() && !is_own {
            self.joins += 1;
            let joined = if self.copies > 0 { Joined::Copied } else { Joined::Compared };
            self.shape.joined = self.shape.joined.max(joined);
        }
        self.shape.times += 1 + self.copies;
        Ok(())
    }

    fn call(&mut self, call: &'a CallExpr) -> Result<(), Misshapen> {
        let name = call.func_name.as_str();
        let is_operator = name.starts_with(['_', '!', '-', '@']);
        if !is_operator && !FUNCTIONS.contains(&name) {
            return Err(Misshapen::Function(name.into()));
        }
        call.target.iter().try_for_each(|target| self.expression(target))?;
        call.args.iter().try_for_each(|argument| self.expression(argument))
    }

    fn comprehension(&mut self, repeated: &'a ComprehensionExpr) -> Result<(), Misshapen> {
        self.shape.has_loops = true;
        let element = self.loops.last().map(|(element, _)| *element);
        if !goes_through_given(&repeated.iter_range, element) {
            return Err(Misshapen::Loop(match element {
                None => "a loop goes through what the input has, or what `filter` or `map` picks of it",
                Some(_) => "a loop within a loop goes through a part of the outer one's element",
            }));
        }
        self.expression(&repeated.iter_range)?;
        self.expression(&repeated.accu_init)?;
        self.loops.push((&repeated.iter_var, &repeated.accu_var));
        for part in [&repeated.loop_cond, &repeated.loop_step, &repeated.result] {
            self.expression(part)?;
        }
        self.loops.pop();
        Ok(())
    }
}

/// How often the parts of an expression are copied that is itself copied so often.
fn copies_within(expression: &Expr, copies: usize) -> usize {
    match expression {
        Expr::List(_) | Expr::Map(_) => copies + 1,
        Expr::Call(call) => match call.func_name.as_str() {
            operators::ADD => copies + 1,
            operators::CONDITIONAL | operators::INDEX => copies,
            // What these give is small.
            _ => 0,
        },
        _ => copies,
    }
}

/// The variable and the fields that this names, if it does nothing else.
fn named(mut of: &Expr) -> Option<(&str, Vec<String>)> {
    let mut fields = Vec::new();
    loop {
        of = match of {
            Expr::Ident(name) => {
                fields.reverse();
                return Some((name, fields));
            }
            Expr::Select(select) => {
                fields.push(select.field.clone());
                &select.operand.expr
            }
            Expr::Call(call) if call.func_name == operators::INDEX => match &call.args[..] {
                [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(field)), .. }] => {
                    fields.push(field.inner().into());
                    &of.expr
                }
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// Whether what a loop goes through is a part of the input (of `element`, if that is given), of which nothing is there
/// twice; a list that is written out does as well where nothing repeats it.
fn goes_through_given(range: &IdedExpr, element: Option<&str>) -> bool {
    match &range.expr {
        Expr::Comprehension(picks) => {
            let picked = picked(&picks.loop_step);
            goes_through_given(&picks.iter_range, element)
                && picked.is_some_and(|picked| root(picked) == Some(&picks.iter_var))
        }
        Expr::List(_) => element.is_none(),
        _ => root(range).is_some_and(|root| element.is_none_or(|element| root == element)),
    }
}

/// The variable that this is a part of, or is.
fn root(path: &IdedExpr) -> Option<&str> {
    match &path.expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) if !select.test => root(&select.operand),
        Expr::Call(call) if call.func_name == operators::INDEX => match &call.args[..] {
            [of, IdedExpr { expr: Expr::Literal(_), .. }] => root(of),
            _ => None,
        },
        _ => None,
    }
}

/// What `filter` and `map` add to what they gather in each round: `gathered + [this]`, perhaps on a condition.
fn picked(step: &IdedExpr) -> Option<&IdedExpr> {
    let Expr::Call(call) = &step.expr else { return None };
    match (call.func_name.as_str(), &call.args[..]) {
        (operators::CONDITIONAL, [_, step, _]) => picked(step),
        (operators::ADD, [_, IdedExpr { expr: Expr::List(list), .. }]) => match &list.elements[..] {
            [one] => Some(one),
            _ => None,
        },
        _ => None,
    }
}
