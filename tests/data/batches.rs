//! Plans and packed batches: every row once, no document touched by another.

use hooke::data::batch::Batch;
use hooke::data::encode::Example;
use hooke::data::plan::StepPlan;
use hooke::ops::cross_entropy::IGNORE;
use hooke::rng::{Sequence, Stream};

fn random_examples(seed: u64, n: usize) -> Vec<Example> {
    let mut random = Sequence::new(seed, Stream::Test, [0, 0]);
    (0..n)
        .map(|line| {
            let len = random.next_below(9) as usize;
            let ids = (0..len).map(|_| random.next_below(1000)).collect();
            let trained = (0..len).map(|i| i > 0 && random.next_below(2) == 0).collect();
            Example { ids, trained, line }
        })
        .collect()
}

#[test]
fn packing_keeps_every_document_to_itself() {
    for seed in 0..300 {
        let examples = random_examples(seed, seed as usize % 7);
        let batch = Batch::pack(&examples.iter().collect::<Vec<_>>());
        let documents: Vec<&Example> = examples.iter().filter(|e| !e.ids.is_empty()).collect();
        let total: usize = documents.iter().map(|e| e.ids.len()).sum();
        assert_eq!(batch.input_tokens(), total);
        assert_eq!(batch.targets.len(), total);
        assert_eq!(batch.positions.len(), total);
        assert_eq!(batch.cu_seqlens.len(), documents.len() + 1);
        assert_eq!((batch.cu_seqlens[0], *batch.cu_seqlens.last().unwrap()), (0, total as i32));
        assert_eq!(
            batch.trained_tokens(),
            documents.iter().map(|e| e.trained_tokens()).sum::<usize>()
        );
        for (document, bounds) in documents.iter().zip(batch.cu_seqlens.windows(2)) {
            let range = bounds[0] as usize..bounds[1] as usize;
            // What the document alone would give: nothing of its neighbours can be in it.
            let alone = Batch::pack(&[document]);
            assert_eq!(batch.tokens[range.clone()], alone.tokens);
            assert_eq!(batch.targets[range.clone()], alone.targets);
            assert_eq!(batch.positions[range], alone.positions);
            assert_eq!(alone.targets.last(), Some(&IGNORE));
        }
    }
}

#[test]
fn targets_are_the_next_token_where_it_is_trained() {
    let example = |ids: &[u32], trained: &[bool]| Example {
        ids: ids.to_vec(),
        trained: trained.to_vec(),
        line: 1,
    };
    let a = example(&[5, 6, 7, 8], &[false, false, true, true]);
    let b = example(&[9], &[true]);
    let batch = Batch::pack(&[&a, &b]);
    assert_eq!(batch.tokens, [5, 6, 7, 8, 9]);
    assert_eq!(batch.targets, [IGNORE, 7, 8, IGNORE, IGNORE]);
    assert_eq!(batch.positions, [0, 1, 2, 3, 0]);
    assert_eq!(batch.cu_seqlens, [0, 4, 5]);
}

#[test]
fn an_epoch_visits_every_row_once_and_drops_none() {
    for seed in 0..200_u64 {
        let mut random = Sequence::new(seed, Stream::Test, [4, 0]);
        let mut pick = |bound: u32| 1 + random.next_below(bound) as usize;
        let (n, batch_size, accumulation) = (pick(40), pick(9), pick(5));
        let plan = StepPlan::new(n, batch_size, accumulation, 2.0, None, seed).unwrap();
        assert_eq!(plan.num_steps(), 2 * plan.steps_per_epoch());
        let mut orders = Vec::new();
        for epoch in 0..2 {
            let mut order = Vec::new();
            for within in 0..plan.steps_per_epoch() {
                let step = plan.micro_batches(epoch * plan.steps_per_epoch() + within);
                assert!((1..=accumulation).contains(&step.len()));
                assert!(step.len() <= plan.max_micro_batches());
                assert!(step.iter().all(|micro| (1..=batch_size).contains(&micro.len())));
                let is_last = within + 1 == plan.steps_per_epoch();
                let rows: usize = step.iter().map(Vec::len).sum();
                assert!(is_last || rows == batch_size * accumulation, "only the last is partial");
                order.extend(step.concat());
            }
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>());
            orders.push(order);
        }
        assert!(n < 10 || orders[0] != orders[1], "epochs are shuffled apart");
    }
}

#[test]
fn the_number_of_steps_is_that_of_transformers() {
    // (rows, batch, accumulation, epochs, max_steps) -> steps: transformers' Trainer,
    // ceil(epochs * ceil(ceil(rows / batch) / accumulation)), or max_steps.
    for (rows, batch, accumulation, epochs, max_steps, want) in [
        (10, 4, 1, 1.0, None, 3),
        (10, 4, 2, 1.0, None, 2),
        (10, 4, 2, 3.0, None, 6),
        (10, 4, 1, 0.5, None, 2),
        (10, 4, 1, 0.001, None, 1),
        (10, 4, 1, 1.5, None, 5),
        (10, 100, 100, 1.0, None, 1),
        (10, 4, 1, 1.0, Some(7), 7),
        (10, 4, 1, f64::NAN, Some(1), 1),
        (1, usize::MAX, usize::MAX, 1.0, None, 1),
    ] {
        let plan = StepPlan::new(rows, batch, accumulation, epochs, max_steps, 1).unwrap();
        assert_eq!(plan.num_steps(), want, "{rows} {batch} {accumulation} {epochs} {max_steps:?}");
        for step in 0..want {
            assert!(!plan.micro_batches(step).is_empty());
        }
    }
}

#[test]
fn any_step_can_be_asked_for_alone() {
    let plan = || StepPlan::new(23, 3, 2, 5.0, None, 9).unwrap();
    let forwards = plan();
    let forwards: Vec<_> = (0..20).map(|step| forwards.micro_batches(step)).collect();
    for step in (0..20).rev() {
        assert_eq!(plan().micro_batches(step), forwards[step as usize]);
    }
    let other_seed = StepPlan::new(23, 3, 2, 5.0, None, 10).unwrap();
    assert_ne!(other_seed.micro_batches(0), forwards[0]);
    assert_eq!(plan().epochs_after(6), 1.5);
}

#[test]
fn plans_that_cannot_run_are_refused() {
    let plan = |rows, batch, accumulation, epochs, max_steps| {
        StepPlan::new(rows, batch, accumulation, epochs, max_steps, 1).unwrap_err().to_string()
    };
    let few = "expected at least 1, got 0";
    assert_eq!(plan(1, 0, 1, 1.0, None), format!("--per-device-train-batch-size: {few}"));
    assert_eq!(plan(1, 1, 0, 1.0, None), format!("--gradient-accumulation-steps: {few}"));
    assert_eq!(plan(1, 1, 1, 1.0, Some(0)), format!("--max-steps: {few}"));
    for epochs in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let want = format!("--num-train-epochs: expected a positive number, got {epochs}");
        assert_eq!(plan(1, 1, 1, epochs, None), want);
    }
    assert!(plan(1, 1, 1, 1e30, None).starts_with("--num-train-epochs: expected at most"));
    assert!(plan(1, 1, 1, 1.0, Some(u64::MAX)).starts_with("--max-steps: expected at most"));
    assert!(plan(0, 1, 1, 1.0, None).starts_with("0 rows to train on"));
}
