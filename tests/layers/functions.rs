//! Functions are short enough to be read at once: those of `src/`, their tests included.

use super::{code_only, sources};

/// Lines of a function at most, from `fn` to its last brace. The aim is 60.
const LONGEST: usize = 90;

/// Every function with a body: its name, the line where it begins, how many lines it has.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|c| is_word(*c)).collect();
        if code[..at].ends_with(is_word) || name.is_empty() {
            continue;
        }
        if let Some(end) = end_of_body(&code[at..]) {
            let lines = |text: &str| text.matches('\n').count() + 1;
            found.push((name, lines(&code[..at]), lines(&code[at..at + end])));
        }
    }
    found
}

/// Where the body of the function that begins here ends; none where it has none.
fn end_of_body(code: &str) -> Option<usize> {
    let mut brackets = 0;
    let mut braces = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            // Not that of `[u8; 4]`.
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn no_function_is_over_its_limit() {
    let mut long = Vec::new();
    for (path, source) in sources() {
        for (name, line, length) in functions(&code_only(&source)) {
            if length > LONGEST {
                long.push((length, format!("{length} lines: {name}, src/{path}:{line}")));
            }
        }
    }
    long.sort();
    long.reverse();
    let told: Vec<String> = long.into_iter().map(|(_, told)| told).collect();
    assert!(told.is_empty(), "over {LONGEST} lines:\n{}", told.join("\n"));
}

#[test]
fn functions_are_found_with_their_lines() {
    let code = "\
trait T {
    fn none(&self) -> [u8; 4];
}
fn one() {}
impl A {
    pub fn two<F: Fn(u8)>(f: F) -> [u8; 4]
    where
        F: Copy,
    {
        fn inner() {
        }
        if x { f(1); }
    }
}";
    let found: Vec<_> =
        functions(code).into_iter().map(|(name, line, length)| format!("{name} {line} {length}")).collect();
    assert_eq!(found, ["one 4 1", "two 6 8", "inner 10 2"]);
}
