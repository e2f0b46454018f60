//! Where the assistant speaks in a rendered conversation.
//!
//! A template is a program, so its text cannot be searched for the content: the content may be
//! trimmed, cut, or occur elsewhere too. Instead the conversation is rendered again with the
//! content of one turn replaced by a character that occurs nowhere else. What the two renderings
//! share before and after that character is template text, and what lies between is the turn. The
//! other turns stay as they are, so templates that treat history and the last turn differently
//! (Qwen3) are seen as they are.

use super::jsonl::Message;
use std::ops::Range;

/// What the template puts around every turn of the assistant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TurnFrame {
    /// What `add_generation_prompt` adds: `<|im_start|>assistant\n`. The model does not write it.
    pub(super) header: String,
    /// What follows the content, up to its first control token: `<|im_end|>`. Empty if there is
    /// none.
    pub(super) end_of_turn: String,
}

/// Why a turn cannot be trained; `turn` is its index in the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unlocated {
    pub(super) turn: Option<usize>,
    pub(super) got: String,
}

impl Unlocated {
    fn new(turn: usize, got: &str) -> Self {
        Self { turn: Some(turn), got: got.into() }
    }
}

/// Renders a conversation, with the generation prompt or without.
pub(super) type Render<'a> = &'a dyn Fn(&[Message], bool) -> Result<String, String>;

impl TurnFrame {
    /// Learns the frame from a conversation of two short turns; `control_tokens` are the
    /// spellings of special tokens, `marker` a character that the template does not use.
    pub(super) fn probe<'t>(
        render: Render<'_>,
        control_tokens: impl Iterator<Item = &'t str>,
        marker: char,
    ) -> Result<Self, Unlocated> {
        let render = |messages: &[Message], prompt| {
            render(messages, prompt).map_err(|got| Unlocated { turn: None, got })
        };
        let message = |role: &str, content: String| Message { role: role.to_owned(), content };
        let question = message("user", "a".into());
        let asked = render(std::slice::from_ref(&question), false)?;
        let prompted = render(std::slice::from_ref(&question), true)?;
        let header = prompted.strip_prefix(&asked).unwrap_or_default().to_owned();

        let answered = render(&[question, message("assistant", marker.into())], false)?;
        let tail = answered.split_once(marker).map_or("", |(_, tail)| tail);
        let end = control_tokens
            .filter(|token| !token.is_empty())
            .filter_map(|token| tail.find(token).map(|at| (at, at + token.len())))
            // The first; of several that begin there, the longest.
            .min_by_key(|&(start, end)| (start, std::cmp::Reverse(end)));
        let end_of_turn = end.map_or("", |(_, end)| &tail[..end]).to_owned();
        Ok(Self { header, end_of_turn })
    }
}

/// The trained part of every assistant turn, as byte ranges of `rendered`, in order: what the
/// model has to write after the header, content and end-of-turn token included.
///
/// `rendered` is the whole conversation. A turn that the template leaves out gives no range.
pub(super) fn locate<'t>(
    render: Render<'_>,
    rendered: &str,
    messages: &[Message],
    frame: &TurnFrame,
    control_tokens: impl Iterator<Item = &'t str> + Clone,
    marker: char,
) -> Result<Vec<Range<usize>>, Unlocated> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut probed = messages.to_vec();
    for (turn, message) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
        let content = std::mem::replace(&mut probed[turn].content, marker.into());
        let probe = render(&probed, false);
        probed[turn].content = content;
        let probe = probe.map_err(|got| Unlocated { turn: Some(turn), got })?;
        let Some((before, after)) = probe.split_once(marker) else { continue };
        if after.contains(marker) {
            return Err(Unlocated::new(turn, "a template that prints the content twice"));
        }
        let content = match content_range(rendered, before, after, &message.content) {
            Some(range) => range,
            // Some templates leave out an empty turn with all that belongs to it.
            None if message.content.trim().is_empty() => continue,
            None => return Err(Unlocated::new(turn, "a template that changes the content")),
        };

        let floor = spans.last().map_or(0, |span| span.end);
        let start = written_from(rendered, floor, content.start, frame, control_tokens.clone());
        let ended = rendered[content.end..].starts_with(&frame.end_of_turn);
        let end = content.end + if ended { frame.end_of_turn.len() } else { 0 };
        if start < floor {
            return Err(Unlocated::new(turn, "a template that prints turns in another order"));
        }
        spans.push(start..end);
    }
    Ok(spans)
}

/// What stands in `rendered` where `before` and `after` leave a gap, if it is the content, whole
/// or in part.
fn content_range(rendered: &str, before: &str, after: &str, content: &str) -> Option<Range<usize>> {
    let end = rendered.strip_suffix(after)?.len();
    let start = common_prefix(rendered, before);
    if start > end {
        return None;
    }
    let found = &rendered[start..end];
    let is_content = if start == before.len() {
        // Trimmed, or its reasoning left out.
        content.contains(found)
    } else {
        // The template took the content apart (`<think>`), so text of its own lies between; that
        // the content ends here shows that this is the place.
        found.trim_end().chars().next_back() == content.trim_end().chars().next_back()
    };
    is_content.then_some(start..end)
}

/// Bytes that two texts share at their beginning, cut to a whole character.
fn common_prefix(a: &str, b: &str) -> usize {
    let mut len = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    while !a.is_char_boundary(len) || !b.is_char_boundary(len) {
        len -= 1;
    }
    len
}

/// Where the model begins to write: after the header, if that stands before the content with
/// nothing but text between (an empty `<think>` block, say); else at the content.
fn written_from<'t>(
    rendered: &str,
    floor: usize,
    content_start: usize,
    frame: &TurnFrame,
    mut control_tokens: impl Iterator<Item = &'t str>,
) -> usize {
    if frame.header.is_empty() || floor > content_start {
        return content_start;
    }
    let Some(at) = rendered[floor..content_start].rfind(&frame.header) else {
        return content_start;
    };
    let start = floor + at + frame.header.len();
    let between = &rendered[start..content_start];
    let is_text = !control_tokens.any(|token| !token.is_empty() && between.contains(token));
    if is_text { start } else { content_start }
}
