//! From text to operations: a scanner and a parser by recursive descent, as deep as [`DEPTH_MAX`] and no deeper.
//! Source: `apache/rocketmq: filter/src/main/java/org/apache/rocketmq/filter/parser/SelectorParser.jj`.

use super::{Comparison, Literal, Node, SqlError, TextSearch, Value, order};
use std::cmp::Ordering;

/// Nested operations of one expression. It comes from a client, and each level takes stack.
const DEPTH_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(String),
    Number(Literal),
    Name(String),
    Word(Word),
    Sign(&'static str),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const WORDS: [(&str, Word); 12] = [
    ("NOT", Word::Not),
    ("AND", Word::And),
    ("OR", Word::Or),
    ("BETWEEN", Word::Between),
    ("IN", Word::In),
    ("TRUE", Word::True),
    ("FALSE", Word::False),
    ("NULL", Word::Null),
    ("IS", Word::Is),
    ("CONTAINS", Word::Contains),
    ("STARTSWITH", Word::StartsWith),
    ("ENDSWITH", Word::EndsWith),
];
/// Longest first.
const SIGNS: [&str; 11] = ["<>", ">=", "<=", "=", ">", "<", "(", ")", ",", "+", "-"];

pub(super) fn parse(text: &str) -> Result<Node, SqlError> {
    let mut parser = Parser {
        text,
        at: 0,
        token: Token::End,
        token_at: 0,
        depth: 0,
    };
    parser.advance()?;
    let node = parser.or()?;
    // As in Java nothing asks for the text's end here.
    parser.truth(node)
}

struct Parser<'a> {
    text: &'a str,
    /// Where the next token is looked for.
    at: usize,
    token: Token,
    token_at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error<T>(&self, reason: impl Into<String>) -> Result<T, SqlError> {
        Err(SqlError {
            at: self.text[..self.token_at].chars().count() + 1,
            reason: reason.into(),
        })
    }

    // --- tokens -----------------------------------------------------------------------------------------------------

    fn advance(&mut self) -> Result<Token, SqlError> {
        self.skip();
        self.token_at = self.at;
        let next = self.scan()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// Passes over blanks and comments. A line comment needs its line's end.
    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            let comment = if trimmed.starts_with("--") {
                trimmed.find(['\n', '\r']).map(|end| end + 1)
            } else {
                (trimmed.strip_prefix("/*"))
                    .and_then(|inside| inside.find("*/"))
                    .map(|end| end + 4)
            };
            match comment {
                Some(len) => self.at += len,
                None => return,
            }
        }
    }

    fn scan(&mut self) -> Result<Token, SqlError> {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first == '\'' {
            return self.scan_text();
        }
        if first.is_ascii_alphabetic() || first == '_' || first == '$' {
            let len = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$'))
                .unwrap_or(rest.len());
            self.at += len;
            let name = &rest[..len];
            let word = WORDS
                .iter()
                .find(|(word, _)| name.eq_ignore_ascii_case(word));
            return Ok(match word {
                Some((_, word)) => Token::Word(*word),
                None => Token::Name(name.into()),
            });
        }
        if first.is_ascii_digit() || first == '.' {
            return self.scan_number();
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => self.error(format!("{first:?} begins nothing known")),
        }
    }

    /// `'it''s'`: a doubled quote stands for one.
    fn scan_text(&mut self) -> Result<Token, SqlError> {
        let mut text = String::new();
        let mut rest = &self.text[self.at + 1..];
        loop {
            let Some(quote) = rest.find('\'') else {
                return self.error("a text has no closing quote");
            };
            text.push_str(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest.strip_prefix('\'') {
                Some(after) => {
                    text.push('\'');
                    rest = after;
                }
                None => break,
            }
        }
        self.at = self.text.len() - rest.len();
        Ok(Token::Text(text))
    }

    fn scan_number(&mut self) -> Result<Token, SqlError> {
        let rest = &self.text[self.at..];
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        let mut len = whole;
        let mut float = false;
        if rest[len..].starts_with('.') {
            let fraction = digits(&rest[len + 1..]);
            if whole + fraction == 0 {
                return self.error("a point without a digit");
            }
            float = true;
            len += 1 + fraction;
        }
        if rest[len..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
            let power = digits(&rest[len + 1 + sign..]);
            if power > 0 {
                float = true;
                len += 1 + sign + power;
            }
        }
        if float {
            self.at += len;
            let value: f64 = rest[..len].parse().unwrap_or(f64::INFINITY);
            // Java compares with Double.MIN_VALUE, its smallest positive number: 0.0 is below.
            if !value.is_finite() || value <= 0.0 {
                return self.error(format!("{} is out of range", &rest[..len]));
            }
            return Ok(Token::Number(Literal::Double(value)));
        }
        if rest.starts_with('0') {
            // A number of several digits begins with none of them 0: the next digit is a token of its own.
            self.at += 1;
            return Ok(Token::Number(Literal::Int(0)));
        }
        let Ok(value) = rest[..len].parse::<i64>() else {
            return self.error(format!("{} does not fit 64 bits", &rest[..len]));
        };
        self.at += len + usize::from(rest[len..].starts_with(['l', 'L']));
        Ok(Token::Number(match i32::try_from(value) {
            Ok(value) => Literal::Int(value),
            Err(_) => Literal::Long(value),
        }))
    }

    fn takes(&mut self, token: &Token) -> Result<bool, SqlError> {
        let is = self.token == *token;
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn word(&mut self, word: Word) -> Result<bool, SqlError> {
        self.takes(&Token::Word(word))
    }

    fn sign(&mut self, sign: &'static str) -> Result<bool, SqlError> {
        self.takes(&Token::Sign(sign))
    }

    fn expect_sign(&mut self, sign: &'static str) -> Result<(), SqlError> {
        if self.sign(sign)? {
            return Ok(());
        }
        self.error(format!("{sign} is missing"))
    }

    fn expect_text(&mut self) -> Result<String, SqlError> {
        match self.token.clone() {
            Token::Text(text) => {
                self.advance()?;
                Ok(text)
            }
            _ => self.error("a text in quotes is missing"),
        }
    }

    // --- grammar ----------------------------------------------------------------------------------------------------

    /// One level further down, or on along a chain whose operations nest to the left.
    fn deeper(&mut self) -> Result<(), SqlError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error(format!("more than {DEPTH_MAX} nested operations"));
        }
        Ok(())
    }

    /// The operation as one that yields a truth.
    fn truth(&self, node: Node) -> Result<Node, SqlError> {
        match node {
            Node::Property(_) => Ok(Node::Cast(Box::new(node))),
            node if node.is_boolean() => Ok(node),
            _ => self.error("it yields no boolean value"),
        }
    }

    fn or(&mut self) -> Result<Node, SqlError> {
        let first = self.and()?;
        if self.token != Token::Word(Word::Or) {
            return Ok(first);
        }
        let mut nodes = vec![self.truth(first)?];
        while self.word(Word::Or)? {
            let next = self.and()?;
            nodes.push(self.truth(next)?);
        }
        Ok(Node::Or(nodes))
    }

    fn and(&mut self) -> Result<Node, SqlError> {
        let first = self.equality()?;
        if self.token != Token::Word(Word::And) {
            return Ok(first);
        }
        let mut nodes = vec![self.truth(first)?];
        while self.word(Word::And)? {
            let next = self.equality()?;
            nodes.push(self.truth(next)?);
        }
        Ok(Node::And(nodes))
    }

    fn equality(&mut self) -> Result<Node, SqlError> {
        let before = self.depth;
        let mut left = self.comparison()?;
        loop {
            let null = || Box::new(Node::Truth(None));
            left = if self.sign("=")? {
                let right = self.comparison()?;
                self.equal(left, right)?
            } else if self.sign("<>")? {
                let right = self.comparison()?;
                Node::Not(Box::new(self.equal(left, right)?))
            } else if self.word(Word::Is)? {
                let not = self.word(Word::Not)?;
                if !self.word(Word::Null)? {
                    return self.error("IS goes with NULL or NOT NULL");
                }
                let is_null = Node::Equal(Box::new(left), null());
                if not {
                    Node::Not(Box::new(is_null))
                } else {
                    is_null
                }
            } else {
                self.depth = before;
                return Ok(left);
            };
            self.deeper()?;
        }
    }

    fn equal(&self, left: Node, right: Node) -> Result<Node, SqlError> {
        if left == Node::Truth(None) || right == Node::Truth(None) {
            return self.error("NULL cannot be compared; IS NULL asks for it");
        }
        if matches!((&left, &right), (Node::Truth(_), Node::Literal(_))) {
            return self.error("a boolean cannot be compared with another literal");
        }
        Ok(Node::Equal(Box::new(left), Box::new(right)))
    }

    fn comparison(&mut self) -> Result<Node, SqlError> {
        let before = self.depth;
        let mut left = self.unary()?;
        loop {
            let comparison = match self.token {
                Token::Sign(">") => Some(Comparison::Greater),
                Token::Sign(">=") => Some(Comparison::GreaterOrEqual),
                Token::Sign("<") => Some(Comparison::Less),
                Token::Sign("<=") => Some(Comparison::LessOrEqual),
                _ => None,
            };
            if let Some(comparison) = comparison {
                self.advance()?;
                let right = self.unary()?;
                left = self.compare(left, comparison, right)?;
                self.deeper()?;
                continue;
            }
            let not = self.word(Word::Not)?;
            let search = match self.token {
                Token::Word(Word::Contains) => Some(TextSearch::Contains),
                Token::Word(Word::StartsWith) => Some(TextSearch::StartsWith),
                Token::Word(Word::EndsWith) => Some(TextSearch::EndsWith),
                _ => None,
            };
            left = if let Some(search) = search {
                self.advance()?;
                let text = self.expect_text()?;
                Node::Text {
                    of: Box::new(left),
                    search,
                    text,
                    not,
                }
            } else if self.word(Word::Between)? {
                let low = self.unary()?;
                if !self.word(Word::And)? {
                    return self.error("BETWEEN goes with AND");
                }
                let high = self.unary()?;
                self.between(left, low, high, not)?
            } else if self.word(Word::In)? {
                self.in_list(left, not)?
            } else if not {
                return self
                    .error("NOT goes with BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH here");
            } else {
                self.depth = before;
                return Ok(left);
            };
            self.deeper()?;
        }
    }

    fn compare(&self, left: Node, comparison: Comparison, right: Node) -> Result<Node, SqlError> {
        for node in [&left, &right] {
            if matches!(node, Node::Literal(Literal::Text(_))) || node.is_boolean() {
                return self.error("only numbers and properties are less or greater");
            }
        }
        Ok(Node::Compare(Box::new(left), comparison, Box::new(right)))
    }

    fn between(&self, of: Node, low: Node, high: Node, not: bool) -> Result<Node, SqlError> {
        if !not {
            self.check_bounds(&low, &high)?;
        }
        let (from, to) = if not {
            (Comparison::Less, Comparison::Greater)
        } else {
            (Comparison::GreaterOrEqual, Comparison::LessOrEqual)
        };
        let sides = vec![
            self.compare(of.clone(), from, low)?,
            self.compare(of, to, high)?,
        ];
        Ok(if not {
            Node::Or(sides)
        } else {
            Node::And(sides)
        })
    }

    fn check_bounds(&self, low: &Node, high: &Node) -> Result<(), SqlError> {
        fn constant(node: &Node) -> Option<Value<'_>> {
            match node {
                Node::Literal(literal) => Some(literal.value()),
                Node::Truth(truth) => Some(truth.map_or(Value::Null, Value::Bool)),
                _ => None,
            }
        }
        let (Some(low), Some(high)) = (constant(low), constant(high)) else {
            return Ok(());
        };
        if matches!(low, Value::Null) || matches!(high, Value::Null) {
            return self.error("a bound of BETWEEN cannot be NULL");
        }
        match order(high, low) {
            Ok(Ordering::Equal | Ordering::Greater) => Ok(()),
            _ => self.error("the bounds of BETWEEN are reversed"),
        }
    }

    fn in_list(&mut self, left: Node, not: bool) -> Result<Node, SqlError> {
        self.expect_sign("(")?;
        let mut list = vec![self.expect_text()?];
        while self.sign(",")? {
            list.push(self.expect_text()?);
        }
        self.expect_sign(")")?;
        match left {
            Node::Property(name) => Ok(Node::In { name, list, not }),
            _ => self.error("IN goes with a property"),
        }
    }

    fn unary(&mut self) -> Result<Node, SqlError> {
        self.deeper()?;
        let node = if self.sign("+")? {
            self.unary()?
        } else if self.sign("-")? {
            Node::Negate(Box::new(self.unary()?))
        } else if self.word(Word::Not)? {
            let node = self.unary()?;
            Node::Not(Box::new(self.truth(node)?))
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn primary(&mut self) -> Result<Node, SqlError> {
        let node = match self.token.clone() {
            Token::Text(text) => Node::Literal(Literal::Text(text)),
            Token::Number(number) => Node::Literal(number),
            Token::Name(name) => Node::Property(name),
            Token::Word(Word::True) => Node::Truth(Some(true)),
            Token::Word(Word::False) => Node::Truth(Some(false)),
            Token::Word(Word::Null) => Node::Truth(None),
            Token::Sign("(") => {
                self.advance()?;
                let node = self.or()?;
                self.expect_sign(")")?;
                return Ok(node);
            }
            _ => return self.error("a value, a property or ( is missing"),
        };
        self.advance()?;
        Ok(node)
    }
}
