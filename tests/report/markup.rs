//! A checker of markup: tags close in order, attributes are quoted, nothing refers elsewhere.

/// What is wrong with a page, if anything is.
pub(crate) fn check(page: &str) -> Result<(), String> {
    for reference in [
        "http:", "https:", "//cdn", "src=", "href=", "url(", "@import", "<script",
    ] {
        if page.contains(reference) {
            return Err(format!("the page is not self-contained: {reference}"));
        }
    }
    let body = page
        .strip_prefix("<!DOCTYPE html>\n")
        .ok_or("no document type")?;
    let mut open: Vec<&str> = Vec::new();
    let mut rest = body;
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        if text.contains('>') && open.last() != Some(&"style") {
            return Err(format!("a stray > in {text:?}"));
        }
        if text.split('&').skip(1).any(|entity| !is_entity(entity)) {
            return Err(format!("a bare & in {text:?}"));
        }
        let end = tag.find('>').ok_or("a tag does not end")?;
        let inner = &tag[1..end];
        rest = &tag[end + 1..];
        if inner.matches('"').count() % 2 != 0 {
            return Err(format!("a quote is open in <{inner}>"));
        }
        if let Some(name) = inner.strip_prefix('/') {
            let opened = open.pop();
            if opened != Some(name) {
                return Err(format!("</{name}> closes {opened:?}"));
            }
        } else if !inner.ends_with('/') {
            open.push(inner.split_whitespace().next().ok_or("an empty tag")?);
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("not closed: {open:?}"))
    }
}

fn is_entity(text: &str) -> bool {
    ["amp;", "lt;", "gt;", "quot;"]
        .iter()
        .any(|name| text.starts_with(name))
}
