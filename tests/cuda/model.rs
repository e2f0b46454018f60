//! Whole models on the stand-in GPU against the CPU: every activation, every gradient, training
//! with each kind of optimizer state, and generation.

use super::{bits, cuda, device};
use crate::support::{random_model, tiny_config};
use hooke::data::batch::Batch;
use hooke::data::encode::Example;
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::generate::{GenerateConfig, Sampling, generate};
use hooke::model::activations::{Activations, Keep, LayerActivations};
use hooke::model::backward::BackwardScratch;
use hooke::model::config::{Family, ModelConfig};
use hooke::model::head::Head;
use hooke::model::losses::Losses;
use hooke::model::params::Params;
use hooke::model::{Input, Model};
use hooke::ops::cross_entropy::IGNORE;
use hooke::ops::{Heads, elementwise};
use hooke::optim::adamw::AdamWConfig;
use hooke::optim::states::OptimStates;
use hooke::testing::compare::compare;
use hooke::train::memory::{StepLimits, plan, plan_scratch};
use hooke::train::step::{StepOutcome, Trainer};
use std::collections::HashMap;

const FAMILIES: [Family; 3] = [Family::Llama, Family::Qwen2, Family::Qwen3];

/// As [`tiny_config`], with a head size that the bf16 kernels know and the odd feed-forward size of
/// a real model's kind.
fn config(family: Family) -> ModelConfig {
    ModelConfig {
        hidden_size: 40,
        heads: Heads { num_heads: 2, num_kv_heads: 1, head_dim: 32 },
        intermediate_size: 43,
        ..tiny_config(family)
    }
}

/// The model of [`random_model`] on a device, its weights rounded to `dtype`.
fn model_on(device: &Device, config: &ModelConfig, dtype: DType) -> Model {
    let source = random_model::<f32>(config, 1);
    let layout = source.weights.layout();
    let mut staged = Params::zeros(device, "weights", layout, DType::F32).unwrap();
    staged.flat_mut().copy_from(&source.weights.flat()).unwrap();
    let mut weights = Params::zeros(device, "weights", layout, dtype).unwrap();
    elementwise::cast(device, weights.flat_mut(), staged.flat()).unwrap();
    Model::new(device, config.clone(), weights, config.max_position_embeddings).unwrap()
}

/// The same on the CPU, with the weights as bf16 holds them, in f32.
fn rounded_on_cpu(config: &ModelConfig) -> Model {
    let mut model = random_model::<f32>(config, 1);
    for x in model.weights.flat_mut().host::<f32>() {
        *x = half::bf16::from_f32(*x).to_f32();
    }
    model
}

const TOKENS: [i32; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 16];
const POSITIONS: [i32; 9] = [0, 0, 1, 2, 0, 1, 2, 3, 4];
const CU_SEQLENS: [i32; 4] = [0, 1, 4, 9];
const TARGETS: [i32; 9] = [IGNORE, 4, 1, IGNORE, 9, IGNORE, 6, 16, 2];

fn input() -> Input<'static> {
    Input { tokens: &TOKENS, positions: &POSITIONS, cu_seqlens: &CU_SEQLENS }
}

/// Everything that one forward and backward pass computes, by name.
fn trace(model: &Model) -> Vec<(String, Vec<f64>)> {
    let mut acts = Activations::new(model, 11, 4, Keep::AllLayers).unwrap();
    let mut scratch = BackwardScratch::new(model, 11).unwrap();
    let mut head = Head::new(model, 11).unwrap();
    let mut losses = Losses::new(model.device(), 9, model.dtype()).unwrap();
    let layout = model.weights.layout();
    let stat = model.dtype().accumulator();
    let mut grads = Params::zeros(model.device(), "gradients", layout, stat).unwrap();
    let (scratch, head) = (&mut scratch, &mut head);
    model
        .forward_backward(input(), &TARGETS, 0.5, &mut acts, &mut grads, scratch, head, &mut losses)
        .unwrap();
    let mut all = Vec::new();
    for i in 0..=model.config().num_layers {
        all.push((format!("residual {i}"), acts.residual(i).to_f64_vec().unwrap()));
    }
    for i in 0..model.config().num_layers {
        let LayerActivations { norm1, qkv, attention, lse, norm2, gate_up, swiglu, rstd1, .. } =
            acts.layer(i);
        let named = [
            ("norm1", norm1),
            ("rstd1", rstd1),
            ("qkv", qkv),
            ("attention", attention),
            ("lse", lse),
            ("norm2", norm2),
            ("gate_up", gate_up),
            ("swiglu", swiglu),
        ];
        for (name, tensor) in named {
            all.push((format!("{name} {i}"), tensor.rows(9).to_f64_vec().unwrap()));
        }
    }
    all.push(("final norm".into(), acts.final_norm().to_f64_vec().unwrap()));
    all.push(("losses".into(), losses.read().unwrap()));
    for spec in layout.specs() {
        all.push((format!("grad {}", spec.name), grads.view(&spec.span).to_f64_vec().unwrap()));
    }
    all
}

#[test]
fn in_single_precision_every_activation_and_gradient_is_the_cpus() {
    for family in FAMILIES {
        let want = trace(&random_model::<f32>(&config(family), 1));
        let got = trace(&model_on(&device(), &config(family), DType::F32));
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            let c = compare(got, want);
            // About a hundred chained operations of 6e-8 each, their signs mixed; see the CPU's own
            // distance from double precision in tests/model.rs.
            assert!(c.norm_rel < 2e-5, "{family:?}: {name}: {c:?}");
        }
    }
}

#[test]
fn in_bf16_every_activation_and_gradient_is_the_cpus_within_its_rounding() {
    for family in FAMILIES {
        let want = trace(&rounded_on_cpu(&config(family)));
        let got = trace(&model_on(&device(), &config(family), DType::BF16));
        assert_eq!(got.len(), want.len());
        let hidden_size = config(family).hidden_size;
        let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let want_norms: HashMap<&String, f64> =
            want.iter().map(|(name, values)| (name, norm(values))).collect();
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            let c = compare(got, want);
            // Every tensor between two kernels is rounded to 8 bits, an error of 2^-9 / sqrt(3) or
            // 1.1e-3 of its norm. Going forward about 16 such roundings add up, four times one, and
            // matrices of norm 1.5 double that. A gradient is a product of two such errors' carriers,
            // with another 16 roundings on the way back, and cancels over the few tokens here.
            // silu(gate) * up carries the errors of both its factors: sqrt(2) times one.
            let bound = match name.split(' ').next() {
                Some("grad") => 5e-2,
                Some("swiglu") => std::f64::consts::SQRT_2 * 1e-2,
                _ => 1e-2,
            };
            // A bias is a weight whose input is 1. The input of its neighbours has norm sqrt(C), so
            // their gradient divided by that is the size of what a bias's gradient sums; the sum
            // itself may cancel (a key's bias shifts all scores of a query almost alike), its
            // rounding does not.
            let weight = name.replace(".bias", ".weight");
            let of_weight = want_norms.get(&weight).filter(|_| name.ends_with(".bias"));
            let summed = of_weight.map_or(0.0, |norm| norm / (hidden_size as f64).sqrt());
            let error = c.norm_rel * want_norms[name] / want_norms[name].max(summed);
            assert!(error < bound, "{family:?}: {name}: {error:e}, {c:?}");
        }
    }
}

fn adamw(states: OptimStates) -> AdamWConfig {
    let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.95, 1e-8, 0.01);
    AdamWConfig { beta1, beta2, epsilon, weight_decay, states, seed: 7 }
}

const LIMITS: StepLimits = StepLimits { max_tokens: 9, max_documents: 3, max_micro_batches: 2 };

fn batches() -> Vec<Batch> {
    let example =
        |ids: &[u32]| Example { ids: ids.to_vec(), trained: vec![true; ids.len()], line: 1 };
    let rows = [example(&[1, 2, 3, 4, 5, 6]), example(&[7, 8, 9]), example(&[10, 11, 12, 13])];
    vec![Batch::pack(&[&rows[0], &rows[1]]), Batch::pack(&[&rows[2]])]
}

/// Three steps; the outcomes and the final weights' bits.
fn train(model: Model, states: OptimStates) -> (Vec<StepOutcome>, Vec<u8>) {
    let mut trainer = Trainer::new(model, adamw(states), 1.0, LIMITS).unwrap();
    let outcomes = (1..=3).map(|step| trainer.step(&batches(), step, 1e-2).unwrap()).collect();
    (outcomes, bits(trainer.weights()))
}

#[test]
fn three_steps_follow_the_cpu_and_two_runs_are_bitwise_equal() {
    for family in FAMILIES {
        let config = config(family);
        let (want, _) = train(rounded_on_cpu(&config), OptimStates::F32);
        for states in [OptimStates::F32, OptimStates::BF16, OptimStates::EightBit] {
            let run = || train(model_on(&device(), &config, DType::BF16), states);
            let (got, weights) = run();
            for (step, (got, want)) in got.iter().zip(&want).enumerate() {
                // The first loss differs by the rounding of activations, later ones also by that of
                // the weights, to 2^-9 where an update is 1e-2.
                let bound = if step == 0 { 5e-3 } else { 3e-2 };
                let off = (got.loss - want.loss).abs() / want.loss;
                assert!(off < bound, "{family:?}, {states}: step {step}: {got:?}, {want:?}");
                let off = (got.grad_norm - want.grad_norm).abs() / want.grad_norm;
                assert!(off < 2.0 * bound, "{family:?}, {states}: {got:?}, {want:?}");
            }
            assert!(got[2].loss < got[0].loss, "{family:?}, {states}: it learns");
            let (again, same_weights) = run();
            for (a, b) in got.iter().zip(&again) {
                assert_eq!(a.loss.to_bits(), b.loss.to_bits());
                assert_eq!(a.grad_norm.to_bits(), b.grad_norm.to_bits());
            }
            assert!(weights == same_weights, "{family:?}, {states}: other weights");
        }
    }
}

#[test]
fn the_plan_is_what_training_takes_and_a_step_takes_nothing_more() {
    for family in FAMILIES {
        for states in [OptimStates::F32, OptimStates::BF16, OptimStates::EightBit] {
            let config = config(family);
            let cuda = cuda();
            let (tensors_before, _) = cuda.used_bytes();
            let layout = random_model::<f32>(&config, 1).weights.layout().clone();
            let positions = config.max_position_embeddings;
            let mut table =
                plan(&config, &layout, DType::BF16, adamw(states), LIMITS, positions).unwrap();
            let planned = table.total_bytes();
            let device = Device::Cuda(cuda.clone());
            device.reserve(planned).unwrap();
            let weights = Params::zeros(&device, "weights", &layout, DType::BF16).unwrap();
            let model = Model::new(&device, config.clone(), weights, positions).unwrap();
            let mut trainer = Trainer::new(model, adamw(states), 1.0, LIMITS).unwrap();
            let (tensors, scratch) = cuda.used_bytes();
            assert_eq!(tensors - tensors_before, planned, "{family:?}, {states}");
            plan_scratch(&mut table, &config, LIMITS).unwrap();
            assert!(table.section_bytes("scratch") >= scratch);
            // Weights of 0 give logits of 0, and every loss is ln V. The step is sealed: were its
            // scratch not planned, it would fail.
            let outcome = trainer.step(&batches(), 1, 1e-3).unwrap();
            assert!((outcome.loss - (config.vocab_size as f64).ln()).abs() < 1e-6);
            assert_eq!(cuda.used_bytes(), (tensors, scratch));
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_update() {
    let config = config(Family::Llama);
    let mut model = model_on(&device(), &config, DType::BF16);
    let span = model.weights.layout().get("model.norm.weight").unwrap().span;
    let poison = vec![half::bf16::NAN; span.shape.num_elems()];
    model.weights.view_mut(&span).copy_from_host(&poison).unwrap();
    let before = bits(model.weights.flat());
    let mut trainer = Trainer::new(model, adamw(OptimStates::BF16), 1.0, LIMITS).unwrap();
    let error = trainer.step(&batches(), 7, 1e-2).unwrap_err();
    assert_eq!(error.exit_code(), 6, "{error}");
    assert!(bits(trainer.weights()) == before);
}

#[test]
fn ids_that_do_not_exist_are_refused_before_a_kernel_sees_them() {
    let model = model_on(&device(), &config(Family::Llama), DType::BF16);
    let mut acts = Activations::new(&model, 9, 3, Keep::OneLayer).unwrap();
    let mut head = Head::new(&model, 9).unwrap();
    let refused = |input: Input<'_>, acts: &mut Activations| {
        let error = model.forward(input, acts).unwrap_err().to_string();
        assert!(error.contains("model.forward"), "{error}");
        error
    };
    let tokens = [3, 1, 17];
    let (positions, ends) = ([0, 1, 2], [0, 3]);
    let good = Input { tokens: &[3, 1, 16], positions: &positions, cu_seqlens: &ends };
    assert!(refused(Input { tokens: &tokens, ..good }, &mut acts).contains("17 at index 2"));
    assert!(refused(Input { positions: &[0, 64, 1], ..good }, &mut acts).contains("64"));
    assert!(refused(Input { cu_seqlens: &[0, 2], ..good }, &mut acts).contains("cu_seqlens"));
    model.forward(good, &mut acts).unwrap();
    let error = model.losses(&acts, &[1, 17, 2], &mut head).unwrap_err().to_string();
    assert!(error.contains("17 in row 1"), "{error}");
}

#[test]
fn a_head_size_without_a_kernel_is_refused_at_once() {
    let config = tiny_config(Family::Llama);
    let device = device();
    let layout = random_model::<f32>(&config, 1).weights.layout().clone();
    let weights = Params::zeros(&device, "weights", &layout, DType::BF16).unwrap();
    let error = Model::new(&device, config, weights, 64).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    let text = error.to_string();
    assert!(text.contains("heads of 32, 64, 80, 96, 128, 256, this model has 4"), "{text}");
}

fn greedy() -> GenerateConfig {
    GenerateConfig {
        max_new_tokens: 8,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 },
        eos_token_ids: Vec::new(),
        num_tokens: 17,
    }
}

#[test]
fn eight_tokens_are_generated_as_on_the_cpu() {
    let prompts = [vec![3, 1, 4], vec![5]];
    for family in FAMILIES {
        let config = config(family);
        let want = generate(&random_model::<f32>(&config, 1), &prompts, 0, &greedy()).unwrap();
        let model = model_on(&device(), &config, DType::F32);
        let got = generate(&model, &prompts, 0, &greedy()).unwrap();
        assert_eq!(got, want, "{family:?}");
        let model = model_on(&device(), &config, DType::BF16);
        let sampled = GenerateConfig {
            sampling: Sampling { temperature: 1.0, seed: 3, ..greedy().sampling },
            ..greedy()
        };
        for config in [greedy(), sampled] {
            let one = generate(&model, &prompts, 0, &config).unwrap();
            assert_eq!(one, generate(&model, &prompts, 0, &config).unwrap(), "{family:?}");
            assert!(one.iter().all(|completion| completion.ids.len() == 8));
        }
    }
}
