//! `{% generation %}` blocks, transformers' way to mark what the assistant says.
//!
//! minijinja has no such tag. It is rewritten, before the template is compiled, into tags that
//! print a variable where the block begins and ends:
//! `{%- generation %}` becomes `{%- if true %}{{ hooke_begin }}{% endif %}`. A block tag stays at
//! both ends, so blanks and newlines around it are trimmed as they would be around the original.

/// Printed where a block begins.
pub(super) const BEGIN: &str = "hooke_begin";
/// Printed where a block ends.
pub(super) const END: &str = "hooke_end";

/// The template without generation tags, and whether there were any.
///
/// Errors with a description if a block is not closed or was never opened.
pub(super) fn rewrite(source: &str) -> Result<(String, bool), &'static str> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let (mut depth, mut found) = (0_usize, false);
    while let Some(at) = rest.find('{') {
        let (text, tag) = rest.split_at(at);
        out += text;
        let len = tag_len(tag);
        let (tag, after) = tag.split_at(len);
        rest = after;
        match block_name(tag) {
            Some(("generation", open, close)) => {
                (depth, found) = (depth + 1, true);
                out += &format!("{open} if true %}}{{{{ {BEGIN} }}}}{{% endif {close}");
            }
            Some(("endgeneration", open, close)) => {
                depth = depth.checked_sub(1).ok_or("endgeneration without generation")?;
                out += &format!("{open} if true %}}{{{{ {END} }}}}{{% endif {close}");
            }
            Some(("raw", ..)) => {
                let (raw, after) = rest.split_at(raw_len(rest));
                out += tag;
                out += raw;
                rest = after;
            }
            _ => out += tag,
        }
    }
    out += rest;
    if depth > 0 { Err("generation without endgeneration") } else { Ok((out, found)) }
}

/// Length of the tag (or of the lone brace) that `text` begins with. Inside `{{ }}` and `{% %}`
/// strings are skipped, since they may hold closing braces.
fn tag_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let close = match bytes.get(1) {
        Some(b'#') => return text.find("#}").map_or(text.len(), |at| at + 2),
        Some(b'{') => b"}}",
        Some(b'%') => b"%}",
        _ => return 1,
    };
    let mut quote = None;
    let mut i = 2;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(_), b'\\') => i += 1,
            (Some(q), byte) if q == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(bytes[i]),
            (None, _) if bytes[i..].starts_with(close) => return i + 2,
            (None, _) => {}
        }
        i += 1;
    }
    text.len()
}

/// The first word of a block tag, its opening (`{%`, `{%-`, `{%+`) and its closing, if the tag
/// holds nothing but the word.
fn block_name(tag: &str) -> Option<(&str, &str, &str)> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let trimmed = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let open = &tag[..2 + inner.len() - trimmed.len()];
    let name = trimmed.strip_suffix(['-', '+']).unwrap_or(trimmed);
    let close = &tag[open.len() + name.len()..];
    let name = name.trim();
    name.bytes().all(|byte| byte.is_ascii_alphabetic()).then_some((name, open, close))
}

/// Length of what precedes the tag that ends a raw block.
fn raw_len(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let start = from + at;
        let inner = text[start + 2..].trim_start_matches(['-', '+']).trim_start();
        if inner.starts_with("endraw") {
            return start;
        }
        from = start + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::rewrite;
    use crate::data::jinja::environment;
    use minijinja::context;

    fn render(source: &str) -> String {
        let (source, _) = rewrite(source).unwrap();
        environment(0)
            .render_str(&source, context! { hooke_begin => "<", hooke_end => ">", x => "x" })
            .unwrap()
    }

    /// The right-hand sides are what jinja2 with transformers' extension prints, with `<` and `>`
    /// put at the indices it reports.
    #[test]
    fn blanks_around_the_tags_are_trimmed_as_transformers_trims_them() {
        for (source, want) in [
            ("a{% generation %}b{% endgeneration %}c", "a<b>c"),
            ("a\n  {% generation %}\n  b\n  {% endgeneration %}\nc", "a\n<  b\n>c"),
            ("a {%- generation -%} b {%- endgeneration -%} c", "a<b>c"),
            ("a {%generation%} b {%endgeneration%} c", "a < b > c"),
            ("  {%+ generation %}b{% endgeneration %}", "  <b>"),
            ("{% if true %}{% generation %}{{ x }}{% endgeneration %}{% endif %}", "<x>"),
        ] {
            assert_eq!(render(source), want, "{source:?}");
        }
    }

    #[test]
    fn text_that_only_looks_like_a_tag_is_left_alone() {
        for source in [
            "{% raw %}{% generation %}{% endraw %}",
            "{# {% generation %} #}a",
            "{{ '{% generation %}' }}",
            "{{ \"%}\\\"{% generation %}\" }}",
            "{ generation } {",
            "{% set generation = 1 %}{{ generation }}",
            "{% unclosed",
        ] {
            assert_eq!(rewrite(source), Ok((source.to_owned(), false)));
        }
    }

    #[test]
    fn unbalanced_tags_are_errors() {
        assert!(rewrite("{% generation %}a").is_err());
        assert!(rewrite("a{% endgeneration %}").is_err());
    }
}
