//! The Jinja environment of chat templates, as transformers sets it up.
//!
//! `ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)` with loop controls, a
//! `tojson` that is Python's `json.dumps(ensure_ascii=False)`, and the globals `raise_exception`
//! and `strftime_now`. Python's string and dict methods come from minijinja's `pycompat`. There is
//! no loader, so a template cannot read files.

use super::strftime::strftime;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Instructions that one rendering may execute: real templates use below 1,000 per message, and
/// this is spent in well under a second.
const FUEL: u64 = 10_000_000;

/// The environment; `clock` is what `strftime_now` shows, in seconds since 1970.
pub(super) fn environment(clock: i64) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(unknown_method_callback);
    env.set_fuel(Some(FUEL));
    env.add_filter("tojson", tojson);
    // minijinja can iterate over `none` and says so, Python cannot: `tools is iterable`.
    env.add_test("iterable", |value: &Value| is_container(value) || value.is_undefined());
    env.add_test("sequence", is_container);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", move |format: &str| {
        strftime(format, clock).map_err(|directive| {
            let message = format!("strftime_now: unknown directive {directive}");
            Error::new(ErrorKind::InvalidOperation, message)
        })
    });
    env
}

/// What has a length and items in Python.
fn is_container(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
    )
}

/// What went wrong in a template, for people.
pub(super) fn explain(error: &Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "the template runs for too long".to_owned(),
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    match error.line() {
        Some(line) => format!("{what} (template line {line})"),
        None => what,
    }
}

/// `json.dumps(value, ensure_ascii=False, indent=…, separators=…, sort_keys=…)`.
fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => match (value.as_str(), usize::try_from(value.clone())) {
            (Some(text), _) => Some(text.to_owned()),
            (None, Ok(width)) => Some(" ".repeat(width.min(64))),
            (None, Err(_)) => Some(String::new()),
        },
    };
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    let _ensure_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(invalid("tojson: separators must be two strings")),
        // With an indent each item is on a line of its own, so the blank after it goes.
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let style = JsonStyle { indent, item, key, sort_keys: sort_keys.unwrap_or(false) };
    let mut out = String::new();
    style.write(&mut out, value, 0)?;
    Ok(Value::from_safe_string(out))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

struct JsonStyle {
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl JsonStyle {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        // Values built by a template cannot be cyclic, but they can be deep.
        if depth > 100 {
            return Err(invalid("tojson: nested too deeply"));
        }
        match value.kind() {
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    entries.push((json_string(&key.to_string()), value.get_item(&key)?));
                }
                if self.sort_keys {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.write_list(out, ['{', '}'], depth, entries.len(), |out, i| {
                    let (key, value) = &entries[i];
                    *out += key;
                    *out += &self.key;
                    self.write(out, value, depth + 1)
                })
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_list(out, ['[', ']'], depth, items.len(), |out, i| {
                    self.write(out, &items[i], depth + 1)
                })
            }
            ValueKind::String => {
                *out += &json_string(value.as_str().unwrap_or_default());
                Ok(())
            }
            ValueKind::None => {
                *out += "null";
                Ok(())
            }
            ValueKind::Bool => {
                *out += if value.is_true() { "true" } else { "false" };
                Ok(())
            }
            ValueKind::Number => {
                *out += &value.to_string();
                Ok(())
            }
            _ => Err(invalid("tojson: this value has no JSON form")),
        }
    }

    fn write_list(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        depth: usize,
        num_items: usize,
        mut write_item: impl FnMut(&mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line_break = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                *out += &indent.repeat(depth);
            }
        };
        out.push(open);
        for i in 0..num_items {
            if i > 0 {
                *out += &self.item;
            }
            line_break(out, depth + 1);
            write_item(out, i)?;
        }
        if num_items > 0 {
            line_break(out, depth);
        }
        out.push(close);
        Ok(())
    }
}

/// serde_json escapes a string just as Python does with `ensure_ascii=False`.
fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::{environment, explain};
    use minijinja::context;

    fn render(template: &str) -> String {
        environment(0).render_str(template, context! { text => "<a href='x'>\u{e9}\n\"" }).unwrap()
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        // The right-hand sides are json.dumps(..., ensure_ascii=False) of CPython 3.11.
        assert_eq!(render("{{ text | tojson }}"), r#""<a href='x'>é\n\"""#);
        let data = "{'b': [1, 2.5, true, none], 'a': {}, 'c': []}";
        for (arguments, want) in [
            ("", r#"{"b": [1, 2.5, true, null], "a": {}, "c": []}"#),
            ("(sort_keys=true)", r#"{"a": {}, "b": [1, 2.5, true, null], "c": []}"#),
            ("(separators=(',', ':'))", r#"{"b":[1,2.5,true,null],"a":{},"c":[]}"#),
            (
                "(indent=2)",
                "{\n  \"b\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"a\": {},\n  \
                 \"c\": []\n}",
            ),
        ] {
            assert_eq!(render(&format!("{{{{ {data} | tojson{arguments} }}}}")), want);
        }
    }

    #[test]
    fn blocks_are_trimmed_and_python_methods_exist() {
        assert_eq!(render("  {% if true %}\nx\n  {% endif %}\ny\n"), "x\ny");
        assert_eq!(render("{{ ' a</think>b '.split('</think>')[-1].strip() }}"), "b");
        assert_eq!(
            render(
                "{% for i in [1, 2, 3][::-1] %}{{ i }}{% if i == 2 %}{% break %}{% endif %}\
                 {% endfor %}"
            ),
            "32"
        );
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}"), "01 Jan 1970");
        assert_eq!(render("{{ missing }}{{ none }}{{ true }}"), "NoneTrue");
    }

    #[test]
    fn tests_of_kind_answer_as_those_of_jinja2() {
        // Columns: is iterable, is sequence, is mapping, is string; from Jinja2 3.1.6.
        for (value, want) in [
            ("none", "False False False False"),
            ("''", "True True False True"),
            ("[]", "True True False False"),
            ("{}", "True True True False"),
            ("1", "False False False False"),
        ] {
            let kinds = ["iterable", "sequence", "mapping", "string"];
            let template = kinds.map(|kind| format!("{{{{ {value} is {kind} }}}}")).join(" ");
            assert_eq!(render(&template), want, "{value}");
        }
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let bomb = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let error = environment(0).render_str(bomb, context! {}).unwrap_err();
        assert_eq!(explain(&error), "the template runs for too long (template line 1)");
    }

    #[test]
    fn an_exception_raised_by_the_template_is_reported_as_it_is() {
        let error =
            environment(0).render_str("\n{{ raise_exception('no') }}", context! {}).unwrap_err();
        assert_eq!(explain(&error), "no (template line 2)");
    }
}
