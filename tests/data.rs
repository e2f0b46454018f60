//! Rows, examples, plans and batches: what is read, what is trained, what is left out.

mod batches;
mod encoding;
mod rows;

use hooke::data::jsonl::{Message, Row};

fn text(text: &str) -> Row {
    Row::Text(text.into())
}

fn pair(prompt: &str, completion: &str) -> Row {
    Row::PromptCompletion { prompt: prompt.into(), completion: completion.into() }
}

fn messages(turns: &[(&str, &str)]) -> Row {
    let message = |&(role, content): &(&str, &str)| Message {
        role: role.to_owned(),
        content: content.to_owned(),
    };
    Row::Messages(turns.iter().map(message).collect())
}
