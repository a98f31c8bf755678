//! What an expression may look like, so that evaluating it costs little more than reading what it looks at.
//!
//! A loop goes through something that the input has, or through what another loop has picked of it; one within a
//! loop, through a part of that one's element. So all loops of one nest together go through each element of the input
//! once at most. Where a loop's body looks at anything but its own element, each round may cost as much as the whole
//! input: such expressions look at smaller inputs only.

use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_JOINS_MAX};
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};

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

/// What its loops look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loops {
    /// There are none.
    None,
    /// Each at its own element only.
    OverOwn,
    /// Some at more.
    Joined,
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
pub(super) fn check(expression: &IdedExpr, variables: &[&str]) -> Result<Loops, Misshapen> {
    let mut walk = Walk { variables, loops: Vec::new(), depth: 0, seen_loop: false, joins: 0 };
    walk.expression(expression)?;
    match (walk.seen_loop, walk.joins) {
        (false, _) => Ok(Loops::None),
        (true, 0) => Ok(Loops::OverOwn),
        (true, 1..=EXPRESSION_JOINS_MAX) => Ok(Loops::Joined),
        _ => Err(Misshapen::Loop("its loops look too often at more than their own elements")),
    }
}

struct Walk<'a> {
    variables: &'a [&'a str],
    /// The elements' names of the loops around, and those of what each gathers, the innermost last.
    loops: Vec<(&'a str, &'a str)>,
    depth: usize,
    seen_loop: bool,
    /// How often a loop's body names something else than its own element.
    joins: usize,
}

impl<'a> Walk<'a> {
    fn expression(&mut self, expression: &'a IdedExpr) -> Result<(), Misshapen> {
        // A sum of many is nested too, but cheaply.
        if self.depth > 32 * EXPRESSION_DEPTH_MAX {
            return Err(Misshapen::Nested);
        }
        self.depth += 1;
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(name)?,
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
        self.depth -= 1;
        Ok(())
    }

    fn name(&mut self, name: &str) -> Result<(), Misshapen> {
        match self.loops.iter().rposition(|(element, gathered)| name == *element || name == *gathered) {
            Some(place) if place + 1 == self.loops.len() => {}
            Some(_) => self.joins += 1,
            None if self.variables.contains(&name) => self.joins += usize::from(!self.loops.is_empty()),
            None => return Err(Misshapen::Variable(name.into())),
        }
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
        self.seen_loop = true;
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
