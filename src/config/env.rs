//! `${NAME}` in values.

use super::finding::Findings;
use super::tree::{Kind, Value};

/// How an environment variable is looked up. Passed in, so that a test needs no environment.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A variable that is set and not empty.
pub(super) fn non_empty(env: Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|text| !text.is_empty())
}

/// Expands every text in `value`, once: what a variable holds is not looked at again.
pub(super) fn expand_all(value: &mut Value, path: &str, env: Env<'_>, findings: &mut Findings<'_>) {
    match &mut value.kind {
        Kind::Null | Kind::Bad => (),
        Kind::Seq(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand_all(item, &format!("{path}[{index}]"), env, findings);
            }
        }
        Kind::Map(entries) => {
            for (key, item) in entries {
                let dot = if path.is_empty() { "" } else { "." };
                expand_all(item, &format!("{path}{dot}{}", key.name), env, findings);
            }
        }
        Kind::Scalar(scalar) => match expand(&scalar.text, env) {
            Ok(Some(text)) => {
                let written = std::mem::replace(&mut scalar.text, text);
                scalar.written.get_or_insert(written);
            }
            Ok(None) => (),
            Err(message) => {
                findings.fault(path, value.at, &message);
                value.kind = Kind::Bad;
            }
        },
    }
}

/// `text` with its variables filled in; `None` when it has none.
///
/// # Errors
/// A sentence that names the variable, never a value.
fn expand(text: &str, env: Env<'_>) -> Result<Option<String>, String> {
    if !text.contains("$$") && !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inner, after) = after.split_once('}').ok_or_else(|| {
                "`${` is not closed; write `}` after the name, or `$$` for a plain `$`".to_owned()
            })?;
            out.push_str(&variable(inner, env)?);
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// The value for what stands between the braces.
fn variable(inner: &str, env: Env<'_>) -> Result<String, String> {
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("`${…}` holds no name of an environment variable; write `$$` for a plain `$`".to_owned());
    }
    if rest.is_empty() {
        return env(name).ok_or_else(|| {
            format!("environment variable {name} is not set (write ${{{name}:-}} to allow that)")
        });
    }
    let value = non_empty(env, name);
    if let Some(default) = rest.strip_prefix(":-") {
        return Ok(value.unwrap_or_else(|| default.to_owned()));
    }
    if let Some(reason) = rest.strip_prefix(":?") {
        let reason = if reason.is_empty() { "it must be set" } else { reason };
        return value.ok_or_else(|| format!("environment variable {name} is not set: {reason}"));
    }
    Err(format!("after ${{{name} comes `}}`, `:-` and a default, or `:?` and a reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}$$".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_filled_in_once() {
        let cases = [
            ("plain", None),
            ("costs $5", None),
            ("${A}", Some("one")),
            ("x${A}y${A}", Some("xoneyone")),
            ("${NESTED}", Some("${A}$$")),
            ("${EMPTY}", Some("")),
            ("${EMPTY:-two}", Some("two")),
            ("${MISSING:-}", Some("")),
            ("${MISSING:-a:b}", Some("a:b")),
            ("${A:?why}", Some("one")),
            ("$${A}", Some("${A}")),
            ("$$$x$", Some("$$x$")),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env).unwrap().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_one_is_named() {
        let cases = [
            ("${B}", "environment variable B is not set (write ${B:-} to allow that)"),
            ("${B:?ask the team}", "environment variable B is not set: ask the team"),
            ("${EMPTY:?}", "environment variable EMPTY is not set: it must be set"),
            ("${B", "`${` is not closed; write `}` after the name, or `$$` for a plain `$`"),
            ("${}", "`${…}` holds no name of an environment variable; write `$$` for a plain `$`"),
            ("${B+x}", "after ${B comes `}`, `:-` and a default, or `:?` and a reason"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env).unwrap_err(), expected, "{text}");
        }
    }
}
