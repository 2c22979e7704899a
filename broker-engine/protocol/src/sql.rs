//! SQL92 filter expressions: compiled once, evaluated on a message's property string without copying it.
//!
//! Three-valued: only TRUE lets a message pass, and an operation that has no meaning for its operands (a text that is no number
//! compared with a number) lets nothing pass. What Java's classes do in odd corners, this does: `-` of a text is null, a
//! boolean equals no number, an expression is read as far as it makes sense and what follows is not looked at.
//! Source: `apache/rocketmq: filter/.../expression/*.java`, `filter/.../parser/SelectorParser.java`.

mod parser;

use crate::properties;
use std::cmp::Ordering;

/// A compiled expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {reason}")]
#[allow(missing_docs)]
pub struct SqlError {
    pub at: usize,
    pub reason: String,
}

/// One operation. `&&` and `||` hold all their operands, so that a long chain is not a deep tree.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Literal(Literal),
    /// TRUE, FALSE and NULL are expressions that have a truth of their own; other literals are not.
    Truth(Option<bool>),
    Property(String),
    Negate(Box<Node>),
    Not(Box<Node>),
    /// A bare name where a truth is asked for: a property is a text, never TRUE.
    Cast(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Equal(Box<Node>, Box<Node>),
    Compare(Box<Node>, Comparison, Box<Node>),
    In {
        name: String,
        list: Vec<String>,
        not: bool,
    },
    Text {
        of: Box<Node>,
        search: TextSearch,
        text: String,
        not: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Int(i32),
    Long(i64),
    Double(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TextSearch {
    Contains,
    StartsWith,
    EndsWith,
}

/// What an operation yields.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

/// An operation has no meaning for its operands; Java throws.
#[derive(Debug)]
struct Meaningless;

impl Expression {
    /// Compiles an expression. The error says where and why.
    pub fn parse(text: &str) -> Result<Expression, SqlError> {
        parser::parse(text).map(Expression)
    }

    /// Whether a message with these properties passes.
    pub fn matches(&self, message_properties: &str) -> bool {
        matches!(self.0.evaluate(message_properties), Ok(Value::Bool(true)))
    }
}

impl Node {
    /// Whether it yields a truth (Java's `BooleanExpression`).
    fn is_boolean(&self) -> bool {
        !matches!(self, Node::Literal(_) | Node::Property(_) | Node::Negate(_))
    }

    fn evaluate<'a>(&'a self, message: &'a str) -> Result<Value<'a>, Meaningless> {
        Ok(match self {
            Node::Literal(literal) => literal.value(),
            Node::Truth(truth) => truth.map_or(Value::Null, Value::Bool),
            Node::Property(name) => properties::get(message, name).map_or(Value::Null, Value::Text),
            Node::Negate(node) => match node.evaluate(message)? {
                Value::Int(n) => Value::Int(n.wrapping_neg()),
                Value::Long(n) => Value::Long(n.wrapping_neg()),
                Value::Double(n) => Value::Double(-n),
                Value::Null | Value::Bool(_) | Value::Text(_) => Value::Null,
            },
            Node::Not(node) => match node.evaluate(message)? {
                Value::Bool(truth) => Value::Bool(!truth),
                _ => Value::Null,
            },
            Node::Cast(node) => match node.evaluate(message)? {
                Value::Null => Value::Null,
                Value::Bool(truth) => Value::Bool(truth),
                _ => Value::Bool(false),
            },
            Node::And(nodes) => chain(nodes, message, false)?,
            Node::Or(nodes) => chain(nodes, message, true)?,
            Node::Equal(left, right) => equal(left.evaluate(message)?, right.evaluate(message)?)?,
            Node::Compare(left, comparison, right) => {
                let (left, right) = (left.evaluate(message)?, right.evaluate(message)?);
                comparison.of(left, right)?
            }
            Node::In { name, list, not } => match properties::get(message, name) {
                None => Value::Null,
                Some(value) => Value::Bool(list.iter().any(|text| text == value) != *not),
            },
            Node::Text {
                of,
                search,
                text,
                not,
            } => match of.evaluate(message)? {
                Value::Text(value) if !text.is_empty() => {
                    Value::Bool(search.finds(value, text) != *not)
                }
                _ => Value::Bool(false),
            },
        })
    }
}

/// AND is decided by the first FALSE, OR by the first TRUE (`decisive`); else a null makes the whole null.
fn chain<'a>(
    nodes: &'a [Node],
    message: &'a str,
    decisive: bool,
) -> Result<Value<'a>, Meaningless> {
    let mut whole = Value::Bool(!decisive);
    for node in nodes {
        match node.evaluate(message)? {
            Value::Bool(truth) if truth == decisive => return Ok(Value::Bool(decisive)),
            Value::Bool(_) => {}
            _ => whole = Value::Null,
        }
    }
    Ok(whole)
}

fn equal<'a>(left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, Meaningless> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => Value::Bool(true),
        (Value::Null, _) => Value::Null,
        (_, Value::Null) => Value::Bool(false),
        (left, right) => Value::Bool(order(left, right)? == Ordering::Equal),
    })
}

impl Comparison {
    fn of<'a>(self, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, Meaningless> {
        let order = match (left, right) {
            (Value::Null, _) | (_, Value::Null) => return Ok(Value::Null),
            (Value::Text(left), Value::Text(right)) => {
                order(Value::Double(double(left)?), Value::Double(double(right)?))?
            }
            (left, right) => order(left, right)?,
        };
        Ok(Value::Bool(match self {
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }))
    }
}

impl TextSearch {
    fn finds(self, value: &str, text: &str) -> bool {
        match self {
            TextSearch::Contains => value.contains(text),
            TextSearch::StartsWith => value.starts_with(text),
            TextSearch::EndsWith => value.ends_with(text),
        }
    }
}

impl Literal {
    fn value(&self) -> Value<'_> {
        match self {
            Literal::Text(text) => Value::Text(text),
            Literal::Int(n) => Value::Int(*n),
            Literal::Long(n) => Value::Long(*n),
            Literal::Double(n) => Value::Double(*n),
        }
    }
}

/// Two values that are not null, brought to one type (`ComparisonExpression.__compare`): a text to the other's type, numbers
/// to the wider one. What cannot be brought together counts as less.
fn order(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Meaningless> {
    use Value::{Bool, Double, Int, Long, Null, Text};
    let int = |text: &str| text.parse::<i32>().map_err(|_| Meaningless);
    let long = |text: &str| text.parse::<i64>().map_err(|_| Meaningless);
    // Java reads a text as true when it says so, and as false otherwise.
    let truth = |text: &str| text.eq_ignore_ascii_case("true");
    Ok(match (left, right) {
        (Bool(a), Bool(b)) => a.cmp(&b),
        // Java casts the boolean to a text here, which throws.
        (Bool(_), Text(_)) => return Err(Meaningless),
        (Text(a), Bool(b)) => truth(a).cmp(&b),
        (Text(a), Text(b)) => a.encode_utf16().cmp(b.encode_utf16()),
        (Text(a), Int(b)) => int(a)?.cmp(&b),
        (Int(a), Text(b)) => a.cmp(&int(b)?),
        (Text(a), Long(b)) => long(a)?.cmp(&b),
        (Long(a), Text(b)) => a.cmp(&long(b)?),
        (Text(a), Double(b)) => double_order(double(a)?, b),
        (Double(a), Text(b)) => double_order(a, double(b)?),
        (Int(a), Int(b)) => a.cmp(&b),
        (Int(a), Long(b)) => i64::from(a).cmp(&b),
        (Long(a), Int(b)) => a.cmp(&i64::from(b)),
        (Long(a), Long(b)) => a.cmp(&b),
        (Int(a), Double(b)) => double_order(f64::from(a), b),
        (Double(a), Int(b)) => double_order(a, f64::from(b)),
        (Long(a), Double(b)) => double_order(a as f64, b),
        (Double(a), Long(b)) => double_order(a, b as f64),
        (Double(a), Double(b)) => double_order(a, b),
        (Null | Bool(_), _) | (_, Null | Bool(_)) => Ordering::Less,
    })
}

/// `Double.compareTo`: -0.0 is less than 0.0, and NaN is the greatest and equals itself.
fn double_order(a: f64, b: f64) -> Ordering {
    let canonical = |n: f64| if n.is_nan() { f64::NAN } else { n };
    canonical(a).total_cmp(&canonical(b))
}

/// `Double.valueOf`, hexadecimal forms apart: surrounding blanks and a type suffix are allowed.
fn double(text: &str) -> Result<f64, Meaningless> {
    let text = text.trim_matches(|c: char| c <= ' ');
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value = match bare {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let digits = bare.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(bare);
            // What Rust reads beyond Java: "inf", "nan" and further signs.
            let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && digits
                    .chars()
                    .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
            if !plain {
                return Err(Meaningless);
            }
            digits.parse().map_err(|_| Meaningless)?
        }
    };
    Ok(if text.starts_with('-') { -value } else { value })
}

#[cfg(test)]
mod tests;
