//! What became of the rows: printed before the first step, so that nothing is lost unseen.

use super::encode::{Example, Notes};
use super::tokenizer::Tokenizer;
use crate::error::Error;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Counts over the rows of one file. `rows` = `used` + `dropped_overlong` + `dropped_untrained` +
/// `empty`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EncodeReport {
    /// The file.
    pub path: PathBuf,
    /// The limit that the overlong rows are over, in tokens.
    pub max_seq_length: usize,
    /// Rows read.
    pub rows: usize,
    /// Rows that became examples.
    pub used: usize,
    /// Rows left out because they are longer than `max_seq_length`.
    pub dropped_overlong: usize,
    /// Rows left out because no token of them is trained.
    pub dropped_untrained: usize,
    /// Rows left out because the text to learn is empty.
    pub empty: usize,
    /// Rows used, but cut to `max_seq_length`.
    pub truncated: usize,
    /// Tokens of the rows used: what goes through the model in one epoch.
    pub input_tokens: usize,
    /// Tokens of the rows used that contribute to the loss.
    pub trained_tokens: usize,
    /// Trained tokens cut off by truncation.
    pub trained_tokens_truncated: usize,
    /// Trained tokens of the rows dropped for their length.
    pub trained_tokens_dropped: usize,
    /// Used rows whose last trained token is a control token: EOS, or the template's end of turn.
    /// Only from these the model learns to stop.
    pub rows_with_eos: usize,
    /// Which control tokens those are, with the number of rows.
    pub end_tokens: BTreeMap<String, usize>,
    /// The tokenizer's own EOS, for comparison.
    pub eos_token: Option<String>,
    /// Rows in which a control token is spelt out; it becomes the token itself.
    pub rows_with_spelt_control_tokens: usize,
    /// Rows with characters that the tokenizer drops or replaces by its unknown token.
    pub lossy_rows: usize,
    /// Lengths in tokens of all rows read, before any cut: p50, p90, p99 and the largest.
    pub length_quantiles: [usize; 4],
    #[serde(skip)]
    lengths: Vec<usize>,
}

impl EncodeReport {
    pub(super) fn new(path: &Path, max_seq_length: usize) -> Self {
        Self {
            path: path.into(),
            max_seq_length,
            rows: 0,
            used: 0,
            dropped_overlong: 0,
            dropped_untrained: 0,
            empty: 0,
            truncated: 0,
            input_tokens: 0,
            trained_tokens: 0,
            trained_tokens_truncated: 0,
            trained_tokens_dropped: 0,
            rows_with_eos: 0,
            end_tokens: BTreeMap::new(),
            eos_token: None,
            rows_with_spelt_control_tokens: 0,
            lossy_rows: 0,
            length_quantiles: [0; 4],
            lengths: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, len: usize, notes: Notes) {
        self.rows += 1;
        self.lengths.push(len);
        self.rows_with_spelt_control_tokens += usize::from(notes.spells_control_token);
        self.lossy_rows += usize::from(notes.lossy);
    }

    pub(super) fn used(&mut self, example: &Example, tokenizer: &Tokenizer, last_trained: u32) {
        self.used += 1;
        self.input_tokens += example.ids.len();
        self.trained_tokens += example.trained_tokens();
        self.eos_token = tokenizer.eos().and_then(|eos| tokenizer.token(eos));
        if tokenizer.is_special(last_trained) || tokenizer.eos() == Some(last_trained) {
            self.rows_with_eos += 1;
            let token = tokenizer.token(last_trained).unwrap_or_default();
            *self.end_tokens.entry(token).or_default() += 1;
        }
    }

    pub(super) fn finish(&mut self) {
        self.lengths.sort_unstable();
        self.length_quantiles = [0.50, 0.90, 0.99, 1.0].map(|q| quantile(&self.lengths, q));
        self.lengths = Vec::new();
    }

    /// The complaint when no row is left.
    pub(super) fn nothing_left(&self) -> Error {
        let problem = format!(
            "{}: none of {} rows can be trained on: {}",
            self.path.display(),
            grouped(self.rows),
            self.reasons().join(", ")
        );
        let fix = match self.dropped_overlong {
            0 => "give rows with text to learn: `text`, a `completion`, or assistant `messages`",
            _ => "raise --max-seq-length, or choose --overlong truncate",
        };
        Error::Data { problem, fix: fix.into() }
    }

    fn reasons(&self) -> Vec<String> {
        [
            (self.dropped_overlong, format!("longer than max_seq_length {}", self.max_seq_length)),
            (self.dropped_untrained, "with no trained token".into()),
            (self.empty, "with nothing to learn but its end".into()),
        ]
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, why)| format!("{} {why}", grouped(count)))
        .collect()
    }
}

impl fmt::Display for EncodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
        writeln!(f, "data      {}", self.path.display())?;
        writeln!(f, "rows      {} read, {} used", grouped(self.rows), grouped(self.used))?;
        for reason in self.reasons() {
            writeln!(f, "          dropped: {reason}")?;
        }
        if self.truncated > 0 {
            let cut = grouped(self.truncated);
            writeln!(f, "          cut to max_seq_length {}: {cut}", self.max_seq_length)?;
        }
        writeln!(
            f,
            "tokens    {} in, {} trained ({:.1} %)",
            grouped(self.input_tokens),
            grouped(self.trained_tokens),
            percent(self.trained_tokens, self.input_tokens)
        )?;
        for (lost, how) in
            [(self.trained_tokens_truncated, "cut"), (self.trained_tokens_dropped, "dropped")]
        {
            if lost > 0 {
                writeln!(f, "          {} trained tokens lost in {how} rows", grouped(lost))?;
            }
        }
        let share = percent(self.rows_with_eos, self.used);
        write!(f, "stop      {} rows ({share:.1} %) learn to stop", grouped(self.rows_with_eos))?;
        for (token, count) in &self.end_tokens {
            write!(f, ", {} by {token}", grouped(*count))?;
        }
        writeln!(f)?;
        if let Some(eos) = &self.eos_token
            && self.end_tokens.keys().any(|token| token != eos)
        {
            writeln!(f, "          note: the tokenizer's eos_token is {eos}")?;
        }
        if self.rows_with_spelt_control_tokens > 0 {
            let count = grouped(self.rows_with_spelt_control_tokens);
            writeln!(f, "note      {count} rows spell out control tokens, which take effect")?;
        }
        if self.lossy_rows > 0 {
            let count = grouped(self.lossy_rows);
            writeln!(f, "note      {count} rows hold characters that the tokenizer does not know")?;
        }
        let [p50, p90, p99, max] = self.length_quantiles.map(grouped);
        write!(f, "length    p50 {p50}, p90 {p90}, p99 {p99}, max {max} tokens (rows as read)")
    }
}

/// The smallest element that at least a fraction `q` of them do not exceed (nearest rank).
fn quantile(sorted: &[usize], q: f64) -> usize {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// 1234567 as 1,234,567.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{grouped, quantile};

    #[test]
    fn quantiles_are_elements_by_nearest_rank() {
        let hundred: Vec<usize> = (1..=100).collect();
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|q| quantile(&hundred, q)), [50, 90, 99, 100]);
        assert_eq!([0.5, 1.0].map(|q| quantile(&[7], q)), [7, 7]);
        assert_eq!(quantile(&[1, 2], 0.5), 1);
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[test]
    fn thousands_are_grouped() {
        let shown = [0, 12, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "12", "999", "1,000", "12,345", "1,234,567"]);
    }
}
