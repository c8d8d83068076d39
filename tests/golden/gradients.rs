//! Hidden states, logits and every gradient against PyTorch; the same bits however it is computed.

use candle_core::Tensor;
use clsgen::{
    config::Parameters,
    model::{ActivationCheckpointing, Gradients, LoraDropout, Model, TrainingContext},
    ops::{Offsets, cross_entropy},
};

use crate::fixture::*;

fn offsets(batch: &[Sequence]) -> Offsets {
    Offsets::from_lengths(&batch.iter().map(|s| s.ids().len()).collect::<Vec<_>>())
}

fn context(memory: ActivationCheckpointing, trains: Parameters) -> TrainingContext {
    TrainingContext { memory, trains, ..KEEP }
}

/// Adds the gradient of the joint loss over `batch`, a part of a step over `all`; gives (sum of L_gen, sum of L_cls).
pub fn joint(
    model: &Model,
    batch: &[Sequence],
    all: &[Sequence],
    context: &TrainingContext,
    gradients: &mut Gradients,
) -> (f64, f64) {
    let tokens = all.iter().map(|s| s.target.len()).sum::<usize>() as f32;
    let records = all.len() as f32;
    let ids: Vec<u32> = batch.iter().flat_map(Sequence::ids).collect();
    let offsets = offsets(batch);
    let (hidden, saved) = model.llama.forward(&ids, &offsets, context).unwrap();
    let mut d_hidden = hidden.zeros_like().unwrap();
    let mut gen_sum = 0.0;
    let mut cls_sum = 0.0;
    for (i, (sequence, range)) in batch.iter().zip(offsets.ranges()).enumerate() {
        let t_n = range.start + sequence.prompt.len() - 1;
        let targets = rows(&hidden, t_n..t_n + sequence.target.len());
        let logits = model.llama.logits(&targets).unwrap();
        let (losses, lse) = cross_entropy::forward(&logits, &sequence.target).unwrap();
        gen_sum += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
        let dlogits =
            cross_entropy::backward(logits, &sequence.target, &lse, &vec![1.0 / tokens; losses.len()]).unwrap();
        let d_rows = model.llama.logits_backward(&dlogits, &targets, context.trains, gradients).unwrap();
        let key = context.dropout.as_ref().map(|d| (d.seed, [d.record_keys[i]]));
        let (logits, head) =
            model.head.forward(&rows(&hidden, t_n..t_n + 1), key.as_ref().map(|(s, k)| (*s, k.as_slice()))).unwrap();
        let (losses, lse) = cross_entropy::forward(&logits, &[sequence.class]).unwrap();
        cls_sum += f64::from(losses[0]);
        let dlogits = cross_entropy::backward(logits, &[sequence.class], &lse, &[1.0 / records]).unwrap();
        let d_h_n = model.head.backward(head, &dlogits, gradients).unwrap();
        let at = |n: usize| Tensor::arange(t_n as u32, (t_n + n) as u32, &CPU).unwrap();
        d_hidden =
            d_hidden.index_add(&at(sequence.target.len()), &d_rows, 0).unwrap().index_add(&at(1), &d_h_n, 0).unwrap();
    }
    model.llama.backward(saved, &d_hidden, gradients).unwrap();
    (gen_sum / f64::from(tokens), cls_sum / f64::from(records))
}

#[test]
fn hidden_states_and_logits_are_pytorchs() {
    for case in CASES {
        let batch = batch(case);
        let expected = expected(case);
        for (kind, model) in [("base", untuned(case)), ("lora", tuned(case))] {
            for (s, sequence) in batch.iter().enumerate() {
                let ids = sequence.ids();
                let (hidden, saved) = model.llama.forward(&ids, &Offsets::from_lengths(&[ids.len()]), &KEEP).unwrap();
                let layers = model.llama.config.num_hidden_layers;
                for (i, ours) in saved.hidden_states()[..layers].iter().copied().chain([&hidden]).enumerate() {
                    let name = format!("{kind}.{s}.hidden.{i}");
                    assert_close(&format!("{case} {name}"), ours, &expected[&name], 1e-5);
                }
                let name = format!("{kind}.{s}.logits");
                assert_close(&format!("{case} {name}"), &model.llama.logits(&hidden).unwrap(), &expected[&name], 1e-5);
                if kind == "lora" {
                    let t_n = sequence.prompt.len() - 1;
                    let (logits, _) = model.head.forward(&rows(&hidden, t_n..t_n + 1), None).unwrap();
                    assert_close(
                        &format!("{case} cls {s}"),
                        &logits.squeeze(0).unwrap(),
                        &expected[&format!("lora.{s}.cls")],
                        1e-5,
                    );
                }
            }
        }
    }
}

#[test]
fn every_gradient_is_pytorchs_kept_or_recomputed() {
    for case in CASES {
        let batch = batch(case);
        let expected = expected(case);
        for (kind, model, trains) in
            [("lora", tuned(case), Parameters::Lora), ("full", untuned(case), Parameters::Full)]
        {
            let mut kept = Gradients::new();
            let (generation, classification) =
                joint(&model, &batch, &batch, &context(ActivationCheckpointing::Keep, trains), &mut kept);
            model.llama.tie_gradients(&mut kept).unwrap();
            let losses = values(&expected[&format!("{kind}.loss")]);
            assert!(
                (generation - f64::from(losses[1])).abs() < 1e-5 * f64::from(losses[1]),
                "{case} {kind} {generation} {losses:?}"
            );
            assert!(
                (classification - f64::from(losses[2])).abs() < 1e-5 * f64::from(losses[2]),
                "{case} {kind} {classification} {losses:?}"
            );

            let prefix = format!("{kind}.grad.");
            let names: Vec<&str> = expected.keys().filter_map(|name| name.strip_prefix(&prefix)).collect();
            assert_eq!(names, kept.keys().collect::<Vec<_>>(), "{case} {kind}");
            assert_eq!(names, model.trainable(trains).unwrap().keys().collect::<Vec<_>>(), "{case} {kind}");
            for (name, gradient) in &kept {
                let theirs = &expected[&format!("{prefix}{name}")];
                assert_close(&format!("{case} {kind} {name}"), gradient, theirs, 1e-4);
            }
            for memory in [ActivationCheckpointing::Recompute, ActivationCheckpointing::KeepLast(1)] {
                let mut again = Gradients::new();
                joint(&model, &batch, &batch, &context(memory, trains), &mut again);
                model.llama.tie_gradients(&mut again).unwrap();
                for (name, gradient) in &kept {
                    assert_eq!(bits(gradient), bits(&again[name]), "{case} {kind} {memory:?} {name}");
                }
            }
        }
    }
}

#[test]
fn a_batch_gives_the_bits_of_its_sequences_alone() {
    for case in CASES {
        let batch = batch(case);
        for (model, trains) in [(tuned(case), Parameters::Lora), (untuned(case), Parameters::Full)] {
            let dropout = |keys: &[u64]| {
                (trains == Parameters::Lora).then(|| LoraDropout { seed: 5, record_keys: keys.to_vec() })
            };
            let together =
                TrainingContext { dropout: dropout(&[10, 11, 12]), ..context(ActivationCheckpointing::Keep, trains) };
            let ids: Vec<u32> = batch.iter().flat_map(Sequence::ids).collect();
            let offsets = offsets(&batch);
            let (hidden, _) = model.llama.forward(&ids, &offsets, &together).unwrap();
            let mut of_batch = Gradients::new();
            joint(&model, &batch, &batch, &together, &mut of_batch);
            let mut one_by_one = Gradients::new();
            for (i, range) in offsets.ranges().enumerate() {
                let alone = TrainingContext { dropout: dropout(&[10 + i as u64]), ..together.clone() };
                let (single, _) =
                    model.llama.forward(&batch[i].ids(), &Offsets::from_lengths(&[range.len()]), &alone).unwrap();
                assert_eq!(bits(&rows(&hidden, range)), bits(&single), "{case} {trains:?} sequence {i}");
                joint(&model, &batch[i..=i], &batch, &alone, &mut one_by_one);
            }
            for gradients in [&mut of_batch, &mut one_by_one] {
                model.llama.tie_gradients(gradients).unwrap();
            }
            for (name, gradient) in &of_batch {
                assert_eq!(bits(gradient), bits(&one_by_one[name]), "{case} {trains:?} {name}");
            }
        }
    }
}

#[test]
fn dropout_changes_the_adapters_alone_and_its_gradient_is_the_slope() {
    let model = tuned("bias");
    let batch = batch("bias");
    let with = |keys: Vec<u64>| TrainingContext { dropout: Some(LoraDropout { seed: 3, record_keys: keys }), ..KEEP };
    let loss = |context: &TrainingContext| {
        let mut gradients = Gradients::new();
        let (generation, classification) = joint(&model, &batch, &batch, context, &mut gradients);
        (generation + classification, gradients)
    };
    let plain = loss(&KEEP).0;
    let (dropped, gradients) = loss(&with(vec![1, 2, 3]));
    assert_ne!(plain, dropped);
    assert_ne!(dropped, loss(&with(vec![1, 2, 4])).0);
    // Move every adapter tensor a little along its gradient: the loss must rise by h·‖g‖².
    let norm: f64 = gradients.values().flat_map(values).map(|g| f64::from(g).powi(2)).sum();
    let h = 2e-3 / norm.sqrt();
    let handles = model.trainable(Parameters::Lora).unwrap();
    let step = |by: f64| {
        for (name, gradient) in &gradients {
            let moved = (&handles[name] + (gradient * by).unwrap()).unwrap();
            handles[name].slice_set(&moved, 0, 0).unwrap();
        }
    };
    step(h);
    let up = loss(&with(vec![1, 2, 3])).0;
    step(-2.0 * h);
    let down = loss(&with(vec![1, 2, 3])).0;
    let slope = (up - down) / (2.0 * h);
    assert!((slope / norm - 1.0).abs() < 5e-3, "slope {slope}, squared norm {norm}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let model = tuned("gqa");
    let batch = batch("gqa");
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut gradients = Gradients::new();
        let losses = pool.install(|| joint(&model, &batch, &batch, &KEEP, &mut gradients));
        (losses, gradients.iter().map(|(name, g)| (name.clone(), bits(g))).collect::<Vec<_>>())
    };
    assert_eq!(run(1), run(3));
}
