//! The whole model: gradients against differences, packing, the cache.

use crate::support::{flat, random_model, tiny_config, zero_gradients};
use hooke::model::activations::{Activations, Keep};
use hooke::model::backward::BackwardScratch;
use hooke::model::cache::KvCache;
use hooke::model::config::{Family, ModelConfig, RopeScaling};
use hooke::model::head::Head;
use hooke::model::losses::Losses;
use hooke::model::params::Params;
use hooke::model::{Input, Model};
use hooke::ops::cross_entropy::IGNORE;
use hooke::testing::compare::{assert_close, compare};
use rayon::ThreadPoolBuilder;

/// Documents of 1, 3 and 5 tokens; some targets ignored.
const TOKENS: [i32; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 16];
const POSITIONS: [i32; 9] = [0, 0, 1, 2, 0, 1, 2, 3, 4];
const CU_SEQLENS: [i32; 4] = [0, 1, 4, 9];
const TARGETS: [i32; 9] = [IGNORE, 4, 1, IGNORE, 9, IGNORE, 6, 16, 2];

fn input() -> Input<'static> {
    Input { tokens: &TOKENS, positions: &POSITIONS, cu_seqlens: &CU_SEQLENS }
}

fn configs() -> Vec<(&'static str, ModelConfig)> {
    let llama = tiny_config(Family::Llama);
    let biased = ModelConfig { qkv_bias: true, o_bias: true, mlp_bias: true, ..llama.clone() };
    let scaled = ModelConfig {
        rope_scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 16,
        },
        tie_word_embeddings: true,
        ..llama.clone()
    };
    vec![
        ("llama", llama),
        ("llama with every bias", biased),
        ("llama3 rope, tied", scaled),
        ("qwen2", tiny_config(Family::Qwen2)),
        ("qwen3", tiny_config(Family::Qwen3)),
    ]
}

fn losses_and_gradient(model: &Model, scale: f64) -> (Vec<f64>, Params) {
    let mut acts = Activations::new(model, 9, 3, Keep::AllLayers).unwrap();
    let mut scratch = BackwardScratch::new(model, 9).unwrap();
    let mut head = Head::new(model, 9).unwrap();
    let mut grads = zero_gradients(model);
    let mut losses = Losses::new(model.device(), 6, model.dtype()).unwrap();
    let (acts, scratch, head) = (&mut acts, &mut scratch, &mut head);
    model
        .forward_backward(input(), &TARGETS, scale, acts, &mut grads, scratch, head, &mut losses)
        .unwrap();
    (losses.read().unwrap(), grads)
}

fn losses(model: &Model, input: Input<'_>, targets: &[i32], keep: Keep) -> Vec<f64> {
    let t = input.tokens.len();
    let mut acts = Activations::new(model, t, input.cu_seqlens.len() - 1, keep).unwrap();
    model.forward(input, &mut acts).unwrap();
    model.losses(&acts, targets, &mut Head::new(model, t).unwrap()).unwrap()
}

/// Perturbs every weight in turn; four-point differences as in `testing::gradcheck`, but in
/// place, and of a step so small that the fifth derivative of a norm over small embeddings does
/// not matter.
#[test]
fn every_gradient_of_every_family_matches_finite_differences() {
    const H: f64 = 2e-4;
    for (name, config) in configs() {
        let mut model = random_model::<f64>(&config, 1);
        let (_, grads) = losses_and_gradient(&model, 0.5);
        let mut acts = Activations::new(&model, 9, 3, Keep::OneLayer).unwrap();
        let mut head = Head::new(&model, 9).unwrap();
        let specs = model.weights.layout().specs().to_vec();
        for spec in specs {
            let analytic = grads.view(&spec.span).to_f64_vec().unwrap();
            let numeric: Vec<f64> = (0..analytic.len())
                .map(|i| {
                    let mut at = |offset: f64| {
                        model.weights.view_mut(&spec.span).host::<f64>()[i] += offset;
                        model.forward(input(), &mut acts).unwrap();
                        let sum: f64 =
                            model.losses(&acts, &TARGETS, &mut head).unwrap().iter().sum();
                        model.weights.view_mut(&spec.span).host::<f64>()[i] -= offset;
                        0.5 * sum
                    };
                    (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * H)
                })
                .collect();
            // Rounding is 1.5 ε|f|/h, about 1e-11; truncation h⁴ f⁽⁵⁾/30 stays below 1e-8.
            assert_close(&format!("{name}: {}", spec.name), &numeric, &analytic, 1e-7);
        }
    }
}

#[test]
fn single_precision_gradients_are_those_of_double() {
    for (name, config) in configs() {
        let (want_losses, want) = losses_and_gradient(&random_model::<f64>(&config, 1), 0.5);
        let (losses, got) = losses_and_gradient(&random_model::<f32>(&config, 1), 0.5);
        assert_close(name, &losses, &want_losses, 5e-6);
        for spec in want.layout().specs() {
            let got = got.view(&spec.span).to_f64_vec().unwrap();
            let c = compare(&got, &want.view(&spec.span).to_f64_vec().unwrap());
            // Rounding of about a hundred chained f32 operations.
            assert!(c.norm_rel < 2e-5, "{name}: {}: {c:?}", spec.name);
        }
    }
}

#[test]
fn a_document_does_not_depend_on_what_it_is_packed_with() {
    for (name, config) in configs() {
        let model = random_model::<f32>(&config, 2);
        let packed = losses(&model, input(), &TARGETS, Keep::AllLayers);
        for w in CU_SEQLENS.windows(2) {
            let range = w[0] as usize..w[1] as usize;
            let cu_seqlens = [0, w[1] - w[0]];
            let alone = Input {
                tokens: &TOKENS[range.clone()],
                positions: &POSITIONS[range.clone()],
                cu_seqlens: &cu_seqlens,
            };
            let alone = losses(&model, alone, &TARGETS[range.clone()], Keep::AllLayers);
            assert_eq!(alone, packed[range], "{name}");
        }
    }
}

#[test]
fn a_change_in_one_document_leaves_the_others_bit_for_bit() {
    let model = random_model::<f32>(&tiny_config(Family::Llama), 2);
    let before = losses(&model, input(), &TARGETS, Keep::OneLayer);
    let mut tokens = TOKENS;
    tokens[2] = 11;
    let changed = Input { tokens: &tokens, ..input() };
    let after = losses(&model, changed, &TARGETS, Keep::OneLayer);
    assert_eq!(before[..2], after[..2], "what came before the change");
    assert_ne!(before[2], after[2], "the changed document");
    assert_eq!(before[4..], after[4..], "the next document");
}

#[test]
fn keeping_one_layer_computes_the_same_as_keeping_all() {
    for (name, config) in configs() {
        let model = random_model::<f32>(&config, 3);
        let all = losses(&model, input(), &TARGETS, Keep::AllLayers);
        assert_eq!(all, losses(&model, input(), &TARGETS, Keep::OneLayer), "{name}");
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let model = random_model::<f32>(&tiny_config(Family::Qwen3), 4);
    let run = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (losses, grads) = pool.install(|| losses_and_gradient(&model, 1.0));
        (losses, flat(&grads))
    };
    assert_eq!(run(1), run(3));
}

fn last_logits(model: &Model, acts: &Activations, rows: &[usize]) -> Vec<f64> {
    let mut head = Head::new(model, 16).unwrap();
    model.logits(acts, rows, &mut head).unwrap().to_f64_vec().unwrap()
}

#[test]
fn a_token_at_a_time_over_the_cache_gives_the_logits_of_the_whole() {
    for (name, config) in configs() {
        let model = random_model::<f64>(&config, 5);
        // Two sequences of unequal length, 3 and 2 tokens, continued by 4 more.
        let texts = [[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 0]];
        let prompt = [3, 1, 4, 2, 7];
        let input = Input { tokens: &prompt, positions: &[0, 1, 2, 0, 1], cu_seqlens: &[0, 3, 5] };
        let mut cache = KvCache::new(&model, 2, 8).unwrap();
        let mut acts = Activations::new(&model, 5, 2, Keep::OneLayer).unwrap();
        model.prefill(input, &mut cache, &mut acts).unwrap();
        let starts = [3, 2];
        for step in 0..4 {
            let tokens = [texts[0][starts[0] + step], texts[1][starts[1] + step]];
            model.decode(&tokens, &mut cache, &mut acts).unwrap();
            let got = last_logits(&model, &acts, &[0, 1]);
            for (i, text) in texts.iter().enumerate() {
                let n = starts[i] + step + 1;
                let positions: Vec<i32> = (0..n as i32).collect();
                let whole =
                    Input { tokens: &text[..n], positions: &positions, cu_seqlens: &[0, n as i32] };
                let mut acts = Activations::new(&model, n, 1, Keep::OneLayer).unwrap();
                model.forward(whole, &mut acts).unwrap();
                let want = last_logits(&model, &acts, &[n - 1]);
                let v = config.vocab_size;
                assert_close(name, &got[i * v..(i + 1) * v], &want, 1e-12);
            }
        }
    }
}

#[test]
fn a_full_cache_and_an_oversized_batch_are_errors() {
    let model = random_model::<f32>(&tiny_config(Family::Llama), 6);
    let mut cache = KvCache::new(&model, 1, 2).unwrap();
    let mut acts = Activations::new(&model, 2, 1, Keep::OneLayer).unwrap();
    let two = Input { tokens: &[1, 2], positions: &[0, 1], cu_seqlens: &[0, 2] };
    model.prefill(two, &mut cache, &mut acts).unwrap();
    let error = model.decode(&[3], &mut cache, &mut acts).unwrap_err().to_string();
    assert!(error.contains("up to 2 tokens"), "{error}");
    let error = model.forward(input(), &mut acts).unwrap_err().to_string();
    assert!(error.contains("up to 2 tokens in up to 1 documents"), "{error}");
}

#[test]
fn ids_and_positions_that_do_not_exist_are_errors() {
    let model = random_model::<f32>(&tiny_config(Family::Llama), 6);
    let mut acts = Activations::new(&model, 2, 1, Keep::OneLayer).unwrap();
    for (tokens, positions) in [([1, 17], [0, 1]), ([1, -1], [0, 1]), ([1, 2], [0, 64])] {
        let input = Input { tokens: &tokens, positions: &positions, cu_seqlens: &[0, 2] };
        assert!(model.forward(input, &mut acts).is_err(), "{tokens:?} {positions:?}");
    }
}
