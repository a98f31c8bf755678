//! What an expression may look like, so that evaluating it costs little more than reading what it looks at.
//!
//! A loop goes through something that the input has, or through what another loop has picked of it; one within a
//! loop, through a part of that one's element. So all loops of one nest together go through each element of the input
//! once at most. Where a loop's body looks at anything but its own element, it does so in each round. A sum copies what
//! it adds up, and a sum of sums copies it again.
//!
//! What is gone through (`Look`) is known by its place; how much that is, when there are values.

use super::place::{Look, Place, Step, size_of_text};
use crate::limits::EXPRESSION_DEPTH_MAX;
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

/// As much as so many values cost a list or an object that is written out, and each field of it.
const MADE: usize = 8;

/// As many values as a number's text has at the most: as many as 64 bytes of text are, and some.
const NUMBER_AS_TEXT: usize = 6;

/// What an expression looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub has_loops: bool,
    /// The variables that it names, or the fields of them: what it looks at has nothing else.
    pub named: Vec<Place>,
    /// What it goes through when it is evaluated, at the most.
    pub looks: Vec<Look>,
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
    let shape = Shape { has_loops: false, named: Vec::new(), looks: Vec::new() };
    let mut walk = Walk { variables, loops: Vec::new(), depth: 0, copies: 0, shape };
    walk.expression(expression)?;
    Ok(walk.shape)
}

struct Walk<'a> {
    variables: &'a [&'a str],
    /// The loops around, the innermost last.
    loops: Vec<Loop<'a>>,
    depth: usize,
    /// How often what is named here is copied: by the sums, lists and maps around.
    copies: usize,
    shape: Shape,
}

/// A loop.
struct Loop<'a> {
    /// What its body calls its element.
    element: &'a str,
    /// And what it has gathered.
    gathered: &'a str,
    elements: Elements,
}

/// What a loop goes through.
#[derive(Clone)]
struct Elements {
    at: Place,
    /// How many there are of a list that is written out, or of such a one in which they are: as often as they may have
    /// all that is looked at.
    written: Option<usize>,
    /// Whether they are that list's.
    is_written: bool,
}

impl Elements {
    /// Once for each of them.
    fn rounds(&self) -> (Option<Place>, usize) {
        ((!self.is_written).then(|| self.at.clone()), self.written.unwrap_or(1))
    }
}

impl<'a> Walk<'a> {
    fn expression(&mut self, expression: &'a IdedExpr) -> Result<(), Misshapen> {
        // A sum of many is nested too, but cheaply.
        if self.depth > 32 * EXPRESSION_DEPTH_MAX {
            return Err(Misshapen::Nested);
        }
        self.depth += 1;
        let (rounds, times) = self.rounds();
        let size = match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => size_of_text(text.inner()) * (1 + self.copies),
            // They are made, and made JSON if they are given.
            Expr::List(list) => MADE + 2 * list.elements.len(),
            Expr::Map(map) => MADE * (1 + map.entries.len()),
            _ => 1,
        };
        self.look(None, rounds, times * size);
        let copies = self.copies;
        self.copies = copies_within(&expression.expr, copies);
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            of if let Some(path) = Path::of(of) => self.path(path)?,
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

    fn path(&mut self, path: Path<'a>) -> Result<(), Misshapen> {
        let Path { root, steps, indices, .. } = path;
        let (rounds, repeats) = self.rounds();
        // Each step is looked up in every scope.
        self.look(None, rounds.clone(), repeats * steps.len() * (1 + self.loops.len()) / 2);
        let place = self.loops.iter().rposition(|of| root == of.element || root == of.gathered);
        let what = match place.and_then(|place| self.loops.get(place)) {
            // A truth value or a number, or a list that is added to where it is.
            Some(of) if root == of.gathered => return Ok(()),
            Some(of) => of.elements.at.then(&steps),
            None => self.variable(root, &steps)?,
        };
        let is_own = place.is_some_and(|place| place + 1 == self.loops.len());
        self.look(Some(what), rounds.filter(|_| !is_own), repeats * (1 + self.copies));
        self.copies = 0;
        indices.into_iter().try_for_each(|index| self.expression(index))
    }

    /// Something that a variable has.
    fn variable(&mut self, name: &str, steps: &[Step]) -> Result<Place, Misshapen> {
        if !self.variables.contains(&name) {
            return Err(Misshapen::Variable(name.into()));
        }
        let of = |steps: &[Step]| Place::Of { variable: name.into(), steps: steps.into() };
        let fields = steps.iter().take_while(|step| matches!(step, Step::Field(_))).count();
        let named = of(&steps[..fields]);
        if !self.shape.named.contains(&named) {
            self.shape.named.push(named);
        }
        Ok(of(steps))
    }

    /// What is evaluated here is evaluated so often for each of these.
    fn rounds(&self) -> (Option<Place>, usize) {
        self.loops.last().map_or((None, 1), |of| of.elements.rounds())
    }

    fn look(&mut self, what: Option<Place>, rounds: Option<Place>, times: usize) {
        match self.shape.looks.iter_mut().find(|look| look.what == what && look.rounds == rounds) {
            Some(look) => look.times = look.times.saturating_add(times),
            None => self.shape.looks.push(Look { what, rounds, times }),
        }
    }

    fn call(&mut self, call: &'a CallExpr) -> Result<(), Misshapen> {
        let name = call.func_name.as_str();
        let is_operator = name.starts_with(['_', '!', '-', '@']);
        if !is_operator && !FUNCTIONS.contains(&name) {
            return Err(Misshapen::Function(name.into()));
        }
        if name == "string" {
            let (rounds, times) = self.rounds();
            self.look(None, rounds, times * NUMBER_AS_TEXT * (1 + self.copies));
        }
        call.target.iter().try_for_each(|target| self.expression(target))?;
        call.args.iter().try_for_each(|argument| self.expression(argument))
    }

    fn comprehension(&mut self, repeated: &'a ComprehensionExpr) -> Result<(), Misshapen> {
        self.shape.has_loops = true;
        let elements = self.elements(&repeated.iter_range);
        let elements = elements.ok_or(Misshapen::Loop(match self.loops.last() {
            None => "a loop goes through what the input has, or what `filter` or `map` picks of it",
            Some(_) => "a loop within a loop goes through a part of the outer one's element",
        }))?;
        self.expression(&repeated.iter_range)?;
        self.expression(&repeated.accu_init)?;
        self.look(Some(elements.at.clone()), None, elements.written.unwrap_or(1));
        self.loops.push(Loop { element: &repeated.iter_var, gathered: &repeated.accu_var, elements });
        // The result is what is gathered, or what that is compared with.
        self.expression(&repeated.loop_cond)?;
        self.expression(&repeated.loop_step)?;
        self.loops.pop();
        Ok(())
    }

    /// What a loop goes through: a part of the input (of the element of the loop around, if there is one), of which
    /// nothing is there twice; a list that is written out does as well where nothing repeats it.
    fn elements(&self, range: &'a IdedExpr) -> Option<Elements> {
        let around = self.loops.last();
        match &range.expr {
            Expr::Comprehension(picks) => {
                let from = self.elements(&picks.iter_range)?;
                let picked = Path::of(&picked(&picks.loop_step)?.expr)?;
                let is_part = picked.root == picks.iter_var && picked.is_there();
                is_part.then(|| Elements { at: from.at.then(&picked.steps), ..from })
            }
            Expr::List(list) if around.is_none() => {
                let sizes = list.elements.iter().map(size_of_written).sum::<Option<_>>()?;
                Some(Elements { at: Place::Anywhere, written: Some(sizes), is_written: true })
            }
            of => {
                let path = Path::of(of).filter(Path::is_there)?;
                let within = match around {
                    Some(around) if path.root == around.element => around.elements.clone(),
                    Some(_) => return None,
                    None => {
                        let at = Place::Of { variable: path.root.into(), steps: Vec::new() };
                        Elements { at, written: None, is_written: false }
                    }
                };
                let at = within.at.then(&path.steps).then(&[Step::Each]);
                Some(Elements { at, is_written: false, ..within })
            }
        }
    }
}

/// How often the parts of an expression are copied that is itself copied so often.
fn copies_within(expression: &Expr, copies: usize) -> usize {
    match expression {
        Expr::List(_) | Expr::Map(_) => copies + 1,
        Expr::Call(call) => match call.func_name.as_str() {
            operators::ADD => copies + 1,
            operators::CONDITIONAL | operators::INDEX | "string" => copies,
            // What these give is small.
            _ => 0,
        },
        _ => copies,
    }
}

/// How often what is written here may have all that is looked at; none if nobody knows.
fn size_of_written(expression: &IdedExpr) -> Option<usize> {
    let all = |parts: &[IdedExpr]| parts.iter().map(size_of_written).sum::<Option<usize>>();
    match &expression.expr {
        Expr::Literal(_) => Some(1),
        of if Path::of(of).is_some() => Some(1),
        Expr::List(list) => Some(1 + all(&list.elements)?),
        Expr::Map(map) => map.entries.iter().try_fold(1, |sum, entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => Some(sum + 1 + size_of_written(&entry.value)?),
            EntryExpr::StructField(_) => None,
        }),
        Expr::Call(call) => match call.func_name.as_str() {
            operators::ADD | operators::CONDITIONAL | operators::INDEX | "string" => {
                Some(1 + all(&call.args)? + call.target.as_deref().map_or(Some(0), size_of_written)?)
            }
            // What these give is small.
            _ => Some(1),
        },
        Expr::Unspecified | Expr::Ident(_) | Expr::Select(_) | Expr::Struct(_) | Expr::Comprehension(_) => {
            None
        }
    }
}

/// A name with what is picked of it: `data.items[0].sku`.
struct Path<'a> {
    root: &'a str,
    steps: Vec<Step>,
    /// What is evaluated to pick it.
    indices: Vec<&'a IdedExpr>,
    /// Whether it is only asked for, by `has`.
    is_asked: bool,
}

impl<'a> Path<'a> {
    /// The one that this is, if it does nothing else.
    fn of(mut of: &'a Expr) -> Option<Self> {
        let (mut steps, mut indices, mut is_asked) = (Vec::new(), Vec::new(), false);
        loop {
            of = match of {
                Expr::Ident(root) => {
                    steps.reverse();
                    return Some(Self { root, steps, indices, is_asked });
                }
                Expr::Select(select) => {
                    is_asked |= select.test;
                    steps.push(Step::Field(select.field.clone()));
                    &select.operand.expr
                }
                Expr::Call(call) if call.func_name == operators::INDEX => {
                    let [of, index] = &call.args[..] else { return None };
                    steps.push(match &index.expr {
                        Expr::Literal(LiteralValue::String(field)) => Step::Field(field.inner().into()),
                        Expr::Literal(LiteralValue::Int(_) | LiteralValue::UInt(_)) => Step::Each,
                        _ => {
                            indices.push(index);
                            Step::Any
                        }
                    });
                    &of.expr
                }
                _ => return None,
            }
        }
    }

    /// Whether it is a part of the input that its text alone tells.
    fn is_there(&self) -> bool {
        self.indices.is_empty() && !self.is_asked
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
