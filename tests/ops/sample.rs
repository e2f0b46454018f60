//! sample: its contract (what it chooses is tested beside its code, and in tests/generate.rs).

use hooke::device::Device;
use hooke::ops::sample::{self, Sampling};
use hooke::tensor::{View, ViewMut};

fn message(num_ids: usize, num_tokens: usize, temperature: f64) -> String {
    let (mut ids, logits) = (vec![0i32; num_ids], [0.5f32; 6]);
    let sampling = Sampling { temperature, top_p: 1.0, top_k: 0, seed: 0 };
    let result = sample::sample(
        &Device::Cpu,
        ViewMut::from_host(&mut ids, [num_ids]),
        View::from_host(&logits, [2, 3]),
        num_tokens,
        &sampling,
        0,
        0,
    );
    result.map_or_else(|e| e.to_string(), |()| format!("{ids:?}"))
}

#[test]
fn operands_and_settings_that_do_not_fit_are_refused() {
    assert_eq!(message(2, 3, 0.0), "[0, 0]");
    assert_eq!(message(3, 3, 0.0), "sample: ids has shape [3], expected shape [2]");
    assert_eq!(message(2, 0, 0.0), "sample: num_tokens has 0, expected 1..=3");
    assert_eq!(message(2, 4, 0.0), "sample: num_tokens has 4, expected 1..=3");
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let message = message(2, 3, bad);
        assert!(message.starts_with("sample: temperature has "), "{message}");
    }
}
