//! Rust sources as tokens, and the paths that they name.

/// A source file: its words and punctuation, without comments, strings and attributes' texts.
pub(crate) struct Source {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    line: usize,
    /// Inside a `#[cfg(test)]` module.
    test: bool,
}

/// A path that the shipped code names, written from the crate root where it stays in the crate.
#[derive(Debug, PartialEq)]
pub(crate) struct Reference {
    pub(crate) path: String,
    pub(crate) imported: bool,
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let mut tokens = tokenize(text);
        mark_tests(&mut tokens);
        Self { tokens }
    }

    /// Lines on which `word` stands, tests included.
    pub(crate) fn lines_of<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.tokens
            .iter()
            .filter(move |token| token.text == word)
            .map(|token| token.line)
    }

    /// Modules declared in this file: their names begin paths that stay in the room.
    pub(crate) fn children(&self) -> Vec<&str> {
        let pairs = self.tokens.windows(2).filter(|pair| pair[0].text == "mod");
        pairs.map(|pair| pair[1].text.as_str()).collect()
    }

    /// All paths outside tests. `module` is where the file hangs in the crate.
    pub(crate) fn references(&self, module: &[String]) -> Vec<Reference> {
        let mut walk = Walk {
            tokens: &self.tokens,
            at: 0,
            found: Vec::new(),
        };
        let mut module = module.to_vec();
        // For each open brace: whether it opened a module.
        let mut braces = Vec::new();
        while let Some(token) = walk.tokens.get(walk.at) {
            let before = walk.found.len();
            match token.text.as_str() {
                "use" => {
                    walk.at += 1;
                    walk.use_tree(&mut Vec::new());
                }
                "mod" if walk.word(2) == "{" => {
                    module.push(walk.word(1).to_owned());
                    braces.push(true);
                    walk.at += 3;
                }
                "{" => {
                    braces.push(false);
                    walk.at += 1;
                }
                "}" => {
                    if braces.pop() == Some(true) {
                        module.pop();
                    }
                    walk.at += 1;
                }
                text if is_word(text) => walk.inline_path(),
                _ => walk.at += 1,
            }
            for reference in walk.found.iter_mut().skip(before) {
                reference.path = from_root(&reference.path, &module);
            }
        }
        walk.found
    }
}

/// Replaces a leading `self` or chain of `super` by the module it means.
fn from_root(path: &str, module: &[String]) -> String {
    let mut parts = path.split("::").peekable();
    let mut base = match parts.peek() {
        Some(&("self" | "super")) => module,
        _ => return path.to_owned(),
    };
    while let Some(step) = parts.next_if(|part| ["self", "super"].contains(part)) {
        if step == "super" {
            base = base.split_last().map_or(base, |(_, above)| above);
        }
    }
    let rest = parts.map(str::to_owned);
    [vec!["crate".to_owned()], base.to_vec(), rest.collect()]
        .concat()
        .join("::")
}

struct Walk<'a> {
    tokens: &'a [Token],
    at: usize,
    found: Vec<Reference>,
}

impl Walk<'_> {
    fn word(&self, ahead: usize) -> &str {
        self.tokens
            .get(self.at + ahead)
            .map_or("", |token| &token.text)
    }

    fn note(&mut self, path: &[String], imported: bool) {
        let index = self.at.saturating_sub(1);
        let Some(token) = self.tokens.get(index).filter(|token| !token.test) else {
            return;
        };
        let path = path.join("::");
        self.found.push(Reference {
            path,
            imported,
            line: token.line,
        });
    }

    /// One branch of an import: `a::b`, `a::{b, c as d}`, `a::*`; ends behind it.
    fn use_tree(&mut self, prefix: &mut Vec<String>) {
        let depth = prefix.len();
        loop {
            match self.word(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !["}", ""].contains(&self.word(0)) {
                        self.use_tree(prefix);
                        if self.word(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    break;
                }
                word if word == "*" || is_word(word) => {
                    let word = word.to_owned();
                    self.at += 1;
                    if word != "*" && !(word == "self" && depth > 0) {
                        prefix.push(word);
                    }
                    if self.word(0) != "::" {
                        self.note(prefix, true);
                        if self.word(0) == "as" {
                            self.at += 2;
                        }
                        break;
                    }
                }
                _ => {
                    self.at += 1;
                    break;
                }
            }
        }
        prefix.truncate(depth);
    }

    /// A path in an expression, a type or an attribute.
    fn inline_path(&mut self) {
        let mut path = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.word(0) == "::" && is_word(self.word(1)) {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        self.note(&path, false);
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Marks what stands in braces behind `#[cfg(test)] mod name`.
fn mark_tests(tokens: &mut [Token]) {
    const HEAD: [&str; 8] = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut at = 0;
    while at < tokens.len() {
        let here = &mut tokens[at..];
        if !here
            .iter()
            .map(|token| token.text.as_str())
            .take(HEAD.len())
            .eq(HEAD)
        {
            at += 1;
            continue;
        }
        let mut depth = 0_usize;
        for token in here {
            token.test = true;
            at += 1;
            depth += usize::from(token.text == "{");
            if token.text == ";" && depth == 0 {
                break;
            }
            if token.text == "}" {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
        }
    }
}

fn tokenize(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let (length, kind) = match rest {
            ['/', '/', ..] => (
                rest.iter().take_while(|c| **c != '\n').count(),
                Kind::Nothing,
            ),
            ['/', '*', ..] => (block_comment(rest), Kind::Nothing),
            ['r' | 'b' | 'c', ..] if string_prefix(rest).is_some() => {
                (string_prefix(rest).unwrap_or(1), Kind::Nothing)
            }
            ['"', ..] => (quoted(rest, '"'), Kind::Nothing),
            ['\'', ..] => (char_or_lifetime(rest), Kind::Nothing),
            [':', ':', ..] => (2, Kind::Text),
            [first, ..] if first.is_alphanumeric() || *first == '_' => (
                rest.iter()
                    .take_while(|c| c.is_alphanumeric() || **c == '_')
                    .count(),
                Kind::Text,
            ),
            [first, ..] if first.is_whitespace() => (1, Kind::Nothing),
            _ => (1, Kind::Text),
        };
        let span = &rest[..length.clamp(1, rest.len())];
        if kind == Kind::Text {
            tokens.push(Token {
                text: span.iter().collect(),
                line,
                test: false,
            });
        }
        line += span.iter().filter(|c| **c == '\n').count();
        at += span.len();
    }
    tokens
}

#[derive(PartialEq)]
enum Kind {
    Text,
    Nothing,
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// Length of a literal such as `b"…"`, `r#"…"#` or `b'…'`; `None` for an ordinary word.
fn string_prefix(rest: &[char]) -> Option<usize> {
    let letters = rest.iter().take_while(|c| "rbc".contains(**c)).count();
    let hashes = rest[letters..].iter().take_while(|c| **c == '#').count();
    let raw = rest[..letters].contains(&'r');
    let open = letters + hashes;
    match rest.get(open) {
        Some('"') if raw => {
            let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
            let body = &rest[open + 1..];
            let end = body
                .windows(close.len())
                .position(|window| window == close)?;
            Some(open + 1 + end + close.len())
        }
        Some(quote @ ('"' | '\'')) if hashes == 0 && letters == 1 => {
            Some(letters + quoted(&rest[letters..], *quote))
        }
        _ => None,
    }
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `'a'` and `'\n'` are characters; `'a` is a lifetime, of which only the tick is skipped.
fn char_or_lifetime(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', ..] => quoted(rest, '\''),
        ['\'', _, '\'', ..] => 3,
        _ => {
            1 + rest[1..]
                .iter()
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .count()
        }
    }
}
