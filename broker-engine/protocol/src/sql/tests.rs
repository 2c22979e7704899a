//! What Java's own classes make of the same expressions and properties (rocketmq-filter 5.5.0), and what no message may do.

use super::*;

/// A line per expression: one sign for each of [`MESSAGES`] (1 TRUE, 0 FALSE, n null, x thrown) or `refused`, a tab, the
/// expression, in which `\\n` is a line's end.
const GOLDEN: &str = include_str!("golden.txt");

/// Properties of each message; `_` in a value stands for a blank.
const MESSAGES: [&str; 20] = [
    "",
    "a=1",
    "a=1 b=2",
    "a=2 b=1",
    "a=abc b=b",
    "a=true b=true",
    "a=TRUE b=false",
    "a=1.0 b=1",
    "a=-1",
    "a= b=",
    "a=9223372036854775807",
    "a=2147483648",
    "a=it's",
    "a=_1_ b=1",
    "a=NaN b=1",
    "a=Infinity b=Infinity",
    "a=+1 b=1",
    "a=1f b=1",
    "a=0x10 b=16",
    "TAGS=x _a=1 $a=1 a1=1",
];

fn text(message: &str) -> String {
    let mut text = String::new();
    for pair in message.split(' ').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        properties::push(&mut text, name, &value.replace('_', " "));
    }
    text
}

fn verdicts(expression: &str) -> String {
    let Ok(compiled) = Expression::parse(expression) else {
        return "refused".into();
    };
    let verdict = |message: &&str| match compiled.0.evaluate(&text(message)) {
        Ok(Value::Bool(true)) => '1',
        Ok(Value::Bool(false)) => '0',
        Ok(_) => 'n',
        Err(Meaningless) => 'x',
    };
    MESSAGES.iter().map(verdict).collect()
}

#[test]
fn every_expression_means_what_it_means_to_java() {
    let ours: String = (GOLDEN.lines())
        .map(|line| {
            let (_, expression) = line.split_once('\t').unwrap();
            format!(
                "{}\t{expression}\n",
                verdicts(&expression.replace("\\n", "\n"))
            )
        })
        .collect();
    let differ: Vec<(&str, &str)> = ours
        .lines()
        .zip(GOLDEN.lines())
        .filter(|(ours, java)| ours != java)
        .collect();
    assert_eq!(differ, []);
}

#[test]
fn an_expression_may_be_long_but_not_deep() {
    let long = vec!["a = 1"; 10_000].join(" OR ");
    assert!(Expression::parse(&long).unwrap().matches(&text("a=1")));
    for (open, close) in [("(", ")"), ("NOT ", ""), ("- ", ""), ("+", "")] {
        let nested = |depth| format!("{}a{} = 1", open.repeat(depth), close.repeat(depth));
        assert!(Expression::parse(&nested(50)).is_ok(), "{open}");
        let error = Expression::parse(&nested(100_000)).unwrap_err();
        assert!(error.reason.contains("nested"), "{error}");
    }
    let chain = format!("a{}", " = a".repeat(100_000));
    assert!(Expression::parse(&chain).is_err());
}

#[test]
fn an_error_says_where() {
    let error = Expression::parse("tag = 'a' AND size > 'x'").unwrap_err();
    assert_eq!(
        error.to_string(),
        "at character 25: only numbers and properties are less or greater"
    );
}
