//! The order of a result's columns.
//!
//! The driver hands out each row as an unordered map and keeps the server's list of fields to itself. So the order is read
//! from the statement's last `RETURN` (or `YIELD`), and used only where it names exactly the columns that came back; else
//! they are sorted by name, which is also the server's order for `RETURN *`.

/// `names` (the columns of a row, in any order) in the statement's order.
pub(super) fn ordered(statement: &str, mut names: Vec<String>) -> Vec<String> {
    names.sort();
    if let Some(stated) = stated(statement) {
        let mut sorted = stated.clone();
        sorted.sort();
        if sorted == names {
            return stated;
        }
    }
    names
}

/// The columns that the statement says it returns. `None` where it does not: `RETURN *`, or a procedure called alone.
pub(super) fn stated(statement: &str) -> Option<Vec<String>> {
    let tokens = tokens(statement);
    let words: Vec<(usize, String)> = tokens
        .iter()
        .enumerate()
        .filter(|(at, token)| {
            // A property may be called like a clause: `n.order`.
            let property =
                at.checked_sub(1).and_then(|at| tokens.get(at)).is_some_and(|it| it.text(statement) == ".");
            token.depth == 0 && token.kind == Kind::Word && !property
        })
        .map(|(at, token)| (at, token.text(statement).to_ascii_uppercase()))
        .collect();
    let (clause, name) = words.iter().rfind(|(_, word)| word == "RETURN").or_else(|| {
        // `SHOW … YIELD` and `CALL … YIELD` end a statement of their own; a YIELD before other clauses has a RETURN too.
        words.iter().rfind(|(_, word)| word == "YIELD")
    })?;
    let ends: &[&str] = if name == "RETURN" {
        &["ORDER", "SKIP", "OFFSET", "LIMIT", "UNION"]
    } else {
        &["WHERE", "ORDER", "SKIP", "OFFSET", "LIMIT"]
    };
    let end = words
        .iter()
        .find(|(at, word)| at > clause && ends.contains(&word.as_str()))
        .map_or(tokens.len(), |(at, _)| *at);
    let mut items = tokens.get(clause + 1..end)?;
    if items.first().is_some_and(|first| first.text(statement).eq_ignore_ascii_case("DISTINCT")) {
        items = items.get(1..)?;
    }
    items
        .split(|token| token.depth == 0 && token.kind == Kind::Comma)
        .map(|item| column(statement, item))
        .collect()
}

/// The name of one item: its alias, or its text as it was written.
fn column(statement: &str, item: &[Token]) -> Option<String> {
    let alias = item.iter().rposition(|token| {
        token.depth == 0 && token.kind == Kind::Word && token.text(statement).eq_ignore_ascii_case("AS")
    });
    let named = match alias {
        Some(at) => item.get(at + 1..)?,
        None => item,
    };
    let (first, last) = (named.first()?, named.last()?);
    let text = statement.get(first.start..last.end)?.trim_end_matches(';').trim_end();
    match text {
        "*" | "" => None,
        _ if named.len() == 1 && first.kind == Kind::Quoted && text.starts_with('`') => {
            Some(text.get(1..text.len() - 1)?.replace("``", "`"))
        }
        _ => Some(text.to_owned()),
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Kind {
    /// Letters, digits, `_` and `$`.
    Word,
    /// A string or an identifier in backticks.
    Quoted,
    Comma,
    Other,
}

#[derive(Debug)]
struct Token {
    start: usize,
    end: usize,
    kind: Kind,
    /// How many brackets of any kind are open around it; a bracket itself counts as inside.
    depth: usize,
}

impl Token {
    fn text<'a>(&self, statement: &'a str) -> &'a str {
        statement.get(self.start..self.end).unwrap_or_default()
    }
}

fn tokens(statement: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    let mut rest = statement.char_indices().peekable();
    while let Some((start, char)) = rest.next() {
        let next = rest.peek().map(|(_, next)| *next);
        let mut end = start + char.len_utf8();
        let mut at = depth;
        let kind = match char {
            _ if char.is_whitespace() => continue,
            '/' if next == Some('/') => {
                while rest.next_if(|(_, char)| *char != '\n').is_some() {}
                continue;
            }
            '/' if next == Some('*') => {
                let mut before = ' ';
                for (_, char) in rest.by_ref().skip(1) {
                    if before == '*' && char == '/' {
                        break;
                    }
                    before = char;
                }
                continue;
            }
            '\'' | '"' | '`' => {
                let mut escaped = false;
                while let Some((at, inner)) = rest.next() {
                    end = at + inner.len_utf8();
                    if escaped {
                        escaped = false;
                    } else if inner == '\\' && char != '`' {
                        escaped = true;
                    } else if inner == char {
                        // A doubled backtick is one backtick of the name.
                        if char != '`' || rest.next_if(|(_, next)| *next == '`').is_none() {
                            break;
                        }
                    }
                }
                Kind::Quoted
            }
            '(' | '[' | '{' => {
                depth += 1;
                at = depth;
                Kind::Other
            }
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                Kind::Other
            }
            ',' => Kind::Comma,
            _ if is_word(char) => {
                while let Some((at, char)) = rest.next_if(|(_, char)| is_word(*char)) {
                    end = at + char.len_utf8();
                }
                Kind::Word
            }
            _ => Kind::Other,
        };
        tokens.push(Token { start, end, kind, depth: at });
    }
    tokens
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_' || char == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(statement: &str) -> Vec<String> {
        stated(statement).unwrap_or_default()
    }

    #[test]
    fn the_order_is_that_of_the_last_return() {
        for (statement, expected) in [
            ("MATCH (n) RETURN n.name, n.vmid AS id", vec!["n.name", "id"]),
            ("RETURN count( n ), coalesce(a, b) AS c ORDER BY c LIMIT 3;", vec!["count( n )", "c"]),
            ("MATCH (n) RETURN DISTINCT n.b AS b,\n  n.a AS a // b, a\nSKIP 1", vec!["b", "a"]),
            (
                "CALL (n) { RETURN 1 AS x } RETURN x AS `a, ``b``` , [y IN z | {k: y}] AS l",
                vec!["a, `b`", "l"],
            ),
            ("RETURN 1 AS z UNION ALL RETURN 2 AS z", vec!["z"]),
            ("RETURN 'RETURN a, b' AS text, /* AS c, */ \"\\\"\" AS q", vec!["text", "q"]),
            ("SHOW INDEXES YIELD type, properties AS p WHERE type = 'RANGE'", vec!["type", "p"]),
            ("MATCH (n) RETURN n.order AS o, n.limit", vec!["o", "n.limit"]),
            ("CALL db.labels() YIELD label RETURN label AS b, 1 AS a", vec!["b", "a"]),
        ] {
            assert_eq!(columns(statement), expected, "{statement}");
        }
    }

    #[test]
    fn an_order_that_is_not_the_rows_own_is_not_used() {
        let names = || vec!["b".to_owned(), "a".to_owned()];
        assert_eq!(ordered("MATCH (b)--(a) RETURN *", names()), ["a", "b"]);
        assert_eq!(ordered("CALL something()", names()), ["a", "b"]);
        assert_eq!(ordered("RETURN 1 AS x, 2 AS y", names()), ["a", "b"]);
        assert_eq!(ordered("RETURN 1 AS b, 2 AS a", names()), ["b", "a"]);
    }

    #[test]
    fn nothing_that_is_written_makes_it_panic() {
        for statement in [
            "",
            "RETURN",
            "RETURN ,",
            "RETURN `",
            "RETURN 'a",
            "RETURN /*",
            ")))",
            "RETURN a AS",
            "yield",
            "RETURN ä AS `ö`",
        ] {
            let _ = stated(statement);
        }
    }
}
