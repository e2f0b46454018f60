//! Generation on the embedded model: determinism, batching, ends.

use crate::support::{embedded_model, random_model, tiny_config};
use hooke::checkpoint::model_dir::ModelDir;
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::generate::{FinishReason, GenerateConfig, Sampling, generate};
use hooke::model::Model;
use hooke::model::config::Family;

fn embedded() -> Model {
    let dir = ModelDir::open(&embedded_model()).unwrap();
    let weights = dir.load(&Device::Cpu, DType::F32).unwrap();
    Model::new(&Device::Cpu, dir.config().clone(), weights, 128).unwrap()
}

fn config(temperature: f64, eos_token_ids: &[u32]) -> GenerateConfig {
    GenerateConfig {
        max_new_tokens: 24,
        sampling: Sampling { temperature, top_p: 0.95, top_k: 50, seed: 11 },
        eos_token_ids: eos_token_ids.to_vec(),
        num_tokens: 1024,
    }
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![2, 70, 71, 72, 80], vec![2, 400], vec![2, 100, 101, 300, 301, 302, 9]]
}

#[test]
fn a_completion_does_not_depend_on_the_batch() {
    let model = embedded();
    for temperature in [0.0, 0.9] {
        let together = generate(&model, &prompts(), 0, &config(temperature, &[])).unwrap();
        for (row, prompt) in prompts().into_iter().enumerate() {
            let alone = generate(&model, &[prompt], row as u32, &config(temperature, &[])).unwrap();
            assert_eq!(alone[0], together[row], "row {row} at temperature {temperature}");
        }
    }
}

#[test]
fn rows_and_seeds_draw_differently() {
    let model = embedded();
    let same = vec![prompts()[0].clone(); 2];
    let completions = generate(&model, &same, 0, &config(1.0, &[])).unwrap();
    assert_ne!(completions[0].ids, completions[1].ids);
    let mut other = config(1.0, &[]);
    other.sampling.seed = 12;
    assert_ne!(generate(&model, &same, 0, &other).unwrap()[0].ids, completions[0].ids);
}

#[test]
fn greedy_is_the_likeliest_continuation_computed_from_scratch() {
    use hooke::model::Input;
    use hooke::model::activations::{Activations, Keep};
    use hooke::model::head::Head;
    let model = embedded();
    let prompt = prompts()[0].clone();
    let completion =
        &generate(&model, std::slice::from_ref(&prompt), 0, &config(0.0, &[])).unwrap()[0];
    assert_eq!(completion.finish_reason, FinishReason::Length);
    let mut text: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
    for &id in &completion.ids {
        let n = text.len();
        let positions: Vec<i32> = (0..n as i32).collect();
        let input = Input { tokens: &text, positions: &positions, cu_seqlens: &[0, n as i32] };
        let mut acts = Activations::new(&model, n, 1, Keep::OneLayer).unwrap();
        model.forward(input, &mut acts).unwrap();
        let mut head = Head::new(&model, 1).unwrap();
        let logits = model.logits(&acts, &[n - 1], &mut head).unwrap().to_f64_vec().unwrap();
        let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // The cache computes the same function in another order: allow rounding between ties.
        assert!(best - logits[id as usize] < 1e-4, "{} chosen, best {best}", logits[id as usize]);
        text.push(id as i32);
    }
}

#[test]
fn an_end_token_ends_its_own_row_only() {
    let model = embedded();
    let free = generate(&model, &prompts(), 0, &config(0.0, &[])).unwrap();
    let eos = free[0].ids[3];
    let first = |ids: &[u32]| ids.iter().position(|&id| id == eos);
    let ended = generate(&model, &prompts(), 0, &config(0.0, &[eos])).unwrap();
    for (free, ended) in free.iter().zip(&ended) {
        match first(&free.ids) {
            Some(at) => {
                assert_eq!(ended.ids, free.ids[..=at]);
                assert_eq!(ended.finish_reason, FinishReason::Eos);
            }
            None => assert_eq!(ended, free),
        }
    }
    assert_eq!(ended[0].finish_reason, FinishReason::Eos);
}

#[test]
fn tokens_that_no_text_uses_are_never_chosen() {
    let model = random_model::<f32>(&tiny_config(Family::Llama), 1);
    let restricted = GenerateConfig { num_tokens: 3, ..config(2.0, &[]) };
    let completion = &generate(&model, &[vec![1, 2]], 0, &restricted).unwrap()[0];
    assert_eq!(completion.ids.len(), 24);
    assert!(completion.ids.iter().all(|&id| id < 3), "{:?}", completion.ids);
}

#[test]
fn an_empty_prompt_and_one_without_room_are_errors() {
    let model = embedded();
    let error = generate(&model, &[vec![]], 0, &config(0.0, &[])).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    let error = generate(&model, &[vec![5; 120]], 0, &config(0.0, &[])).unwrap_err().to_string();
    assert!(error.contains("at most 8"), "{error}");
    let endless = GenerateConfig { max_new_tokens: usize::MAX, ..config(0.0, &[]) };
    let error = generate(&model, &[vec![5; 120]], 0, &endless).unwrap_err().to_string();
    assert!(error.contains("at most 8"), "{error}");
}
