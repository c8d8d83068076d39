//! Prefill and decode against the full forward pass and against HF's greedy generation.

use candle_core::Tensor;
use clsgen::{
    model::{Model, kv_cache::SequenceCache},
    ops::Offsets,
};
use serde::Deserialize;

use crate::fixture::*;

fn full(model: &Model, ids: &[u32]) -> Tensor {
    model.llama.forward(ids, &Offsets::from_lengths(&[ids.len()]), &KEEP).unwrap().0
}

fn prefill(model: &Model, ids: &[u32], cache: SequenceCache) -> (Tensor, SequenceCache) {
    let mut caches = [cache];
    let last = model.llama.prefill(ids, &Offsets::from_lengths(&[ids.len()]), &mut caches).unwrap();
    let [cache] = caches;
    (last, cache)
}

#[test]
fn prefill_and_decode_equal_the_full_forward() {
    for case in CASES {
        let model = tuned(case);
        for sequence in batch(case) {
            let ids = sequence.ids();
            let expected = full(&model, &ids);
            for prompt in [1, 3, ids.len() - 1] {
                let (last, mut cache) = prefill(&model, &ids[..prompt], SequenceCache::default());
                assert_close("prefill", &last, &rows(&expected, prompt - 1..prompt), 1e-5);
                for at in prompt..ids.len() {
                    let row = model.llama.decode(&ids[at..=at], &mut [&mut cache]).unwrap();
                    assert_close(&format!("{case} decode at {at}"), &row, &rows(&expected, at..at + 1), 1e-5);
                    let logits = model.llama.decode_logits(&row).unwrap();
                    assert_close("logits", &logits, &model.llama.logits(&rows(&expected, at..at + 1)).unwrap(), 1e-5);
                }
                assert_eq!(cache.len(), ids.len());
            }
        }
    }
}

#[test]
fn a_batch_of_prompts_gives_the_bits_of_each_alone_and_of_the_training_forward() {
    for case in CASES {
        let model = tuned(case);
        let batch = batch(case);
        let ids: Vec<u32> = batch.iter().flat_map(|s| s.prompt.clone()).collect();
        let offsets = Offsets::from_lengths(&batch.iter().map(|s| s.prompt.len()).collect::<Vec<_>>());
        let mut caches: Vec<SequenceCache> = batch.iter().map(|_| SequenceCache::default()).collect();
        let together = model.llama.prefill(&ids, &offsets, &mut caches).unwrap();
        assert_eq!(bits(&together), bits(&model.llama.prefill_hidden_only(&ids, &offsets).unwrap()));
        let mut singles = Vec::new();
        for (i, sequence) in batch.iter().enumerate() {
            let (last, cache) = prefill(&model, &sequence.prompt, SequenceCache::default());
            let row = rows(&together, i..i + 1);
            assert_eq!(bits(&row), bits(&last), "{case} {i}");
            let n = sequence.prompt.len();
            assert_eq!(bits(&row), bits(&rows(&full(&model, &sequence.ids()), n - 1..n)), "{case} {i}");
            singles.push(cache);
        }
        for step in 0..80 {
            let tokens = [4 + step % 9, 5 + step % 7, 6 + step % 5];
            let mut all: Vec<&mut SequenceCache> = caches.iter_mut().collect();
            let together = model.llama.decode(&tokens, &mut all).unwrap();
            for (i, cache) in singles.iter_mut().enumerate() {
                let alone = model.llama.decode(&tokens[i..=i], &mut [cache]).unwrap();
                assert_eq!(bits(&rows(&together, i..i + 1)), bits(&alone), "{case} row {i} step {step}");
                let logits = |h: &Tensor| model.llama.decode_logits(h).unwrap();
                assert_eq!(bits(&rows(&logits(&together), i..i + 1)), bits(&logits(&alone)));
            }
        }
    }
}

#[test]
fn samples_share_a_prefix_without_seeing_each_other() {
    for case in CASES {
        let model = tuned(case);
        let prompt = batch(case)[2].prompt.clone();
        let (_, prefix) = prefill(&model, &prompt, SequenceCache::default());
        let mut samples = [prefix.clone(), prefix.clone()];
        let tails = [[5_u32, 9, 13], [6, 5, 4]];
        for at in 0..3 {
            let [a, b] = &mut samples;
            let hidden = model.llama.decode(&[tails[0][at], tails[1][at]], &mut [a, b]).unwrap();
            for (i, tail) in tails.iter().enumerate() {
                let ids = [prompt.as_slice(), &tail[..=at]].concat();
                let expected = rows(&full(&model, &ids), ids.len() - 1..ids.len());
                assert_close(&format!("{case} sample {i}"), &rows(&hidden, i..i + 1), &expected, 1e-5);
            }
        }
        // More of the prompt behind a prefix, then the whole as one prefix.
        let (last, longer) = prefill(&model, &tails[0], prefix.clone());
        let ids = [prompt.as_slice(), &tails[0]].concat();
        assert_close("continued prefill", &last, &rows(&full(&model, &ids), ids.len() - 1..ids.len()), 1e-5);
        let mut whole = longer.clone();
        assert_eq!(whole.len(), ids.len());
        let hidden = model.llama.decode(&[7], &mut [&mut whole]).unwrap();
        let ids = [ids.as_slice(), &[7]].concat();
        assert_close("joined prefix", &hidden, &rows(&full(&model, &ids), ids.len() - 1..ids.len()), 1e-5);
        assert_eq!(prefix.len(), prompt.len());
    }
}

#[derive(Deserialize)]
struct Greedy {
    prompt: Vec<u32>,
    max_new_tokens: usize,
    eos: Vec<u32>,
    generated: Vec<u32>,
}

#[test]
fn greedy_ids_are_those_of_hf_generate() {
    for case in CASES {
        let model = tuned(case);
        for run in json::<Vec<Greedy>>(&folder(case).join("generate.json")) {
            let (mut hidden, mut cache) = prefill(&model, &run.prompt, SequenceCache::default());
            let mut ours = Vec::new();
            while ours.len() < run.max_new_tokens {
                let next = model.llama.decode_logits(&hidden).unwrap().argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
                ours.push(next);
                if run.eos.contains(&next) {
                    break;
                }
                hidden = model.llama.decode(&[next], &mut [&mut cache]).unwrap();
            }
            assert_eq!(ours, run.generated, "{case}");
        }
    }
}
