//! A tiny random Llama with a byte-level tokenizer: everything the engine promises, checked on bits.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device};
use serde_json::{Map, Value, json};

use super::{Budget, Completed, Engine, Finish, Request, Sampling, constrain::Constraint};
use crate::{
    config::{Activation, Parameters},
    error::Result,
    labels::Labels,
    model::{
        ActivationCheckpointing, ClsHead, Llama, LlamaConfig, Model, TrainingContext, kv_cache::SequenceCache, peft,
        source,
    },
    ops::{
        Offsets,
        rope::{RopeParameters, RopeScaling},
    },
    prompt::{TextTokenizer, TokenizerFiles, Verdict},
    rng::{Rng, streams},
};

/// End of turn: the first id after the 256 bytes.
pub(super) const EOT: u32 = 256;
pub(super) const WIDE: Budget = Budget { tokens: usize::MAX, rows: 64 };

/// GPT-2's byte alphabet: printable bytes stand for themselves, the others for characters from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// A token a byte, and an end-of-turn token.
pub(super) fn byte_tokenizer() -> TextTokenizer {
    tokenizer_with_stops(&[])
}

/// The same with further stop tokens, as a `generation_config.json` names them.
pub(super) fn tokenizer_with_stops(stops: &[u32]) -> TextTokenizer {
    let vocab: Map<String, Value> = (0..=255).map(|b| (byte_char(b).to_string(), json!(b))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": EOT, "content": "<|eot|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []},
    });
    let files = TokenizerFiles {
        tokenizer: tokenizer.to_string().into_bytes(),
        tokenizer_config: Some(json!({"eos_token": "<|eot|>"}).to_string().into_bytes()),
        generation_config: Some(json!({"eos_token_id": stops}).to_string().into_bytes()),
        ..TokenizerFiles::default()
    };
    TextTokenizer::from_files(&files).unwrap()
}

pub(super) fn model() -> Model {
    let config = LlamaConfig {
        vocab_size: 257,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 512,
        attention_bias: false,
        mlp_bias: false,
        tie_word_embeddings: false,
        bos_token_id: None,
        eos_token_ids: vec![EOT],
        rope: RopeParameters { theta: 10_000.0, scaling: RopeScaling::None },
    };
    let llama = Llama::random(config, candle_core::DType::F32, 11, &Device::Cpu).unwrap();
    Model::new(llama, ClsHead::new(32, 16, 2, Activation::Gelu, 0.1, 11, &Device::Cpu).unwrap())
}

/// A model with bf16 weights, and so with keys and values in bf16.
pub(super) fn bf16_model() -> Model {
    let llama = golden("gqa", DType::BF16);
    let head = ClsHead::new(llama.config.hidden_size, 16, 2, Activation::Gelu, 0.1, 11, &Device::Cpu).unwrap();
    Model::new(llama, head)
}

fn golden(case: &str, dtype: DType) -> Llama {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model").join(case);
    let mut llama =
        Llama::load(&source::resolve(dir.to_str().unwrap(), &[], false).unwrap(), dtype, &Device::Cpu).unwrap();
    peft::load_adapter(&mut llama, &dir.join("adapter")).unwrap();
    llama
}

/// Prompts of 3 to 60 tokens.
pub(super) fn requests(count: usize, samples: usize, sampling: Sampling) -> Vec<Request> {
    let rng = Rng::new(5, streams::NOTES);
    (0..count)
        .map(|i| Request {
            key: 1000 + i as u64,
            prompt: (0..3 + rng.below(0, i as u64, 58))
                .map(|j| rng.below(1 + i as u64, j as u64, 256) as u32)
                .collect(),
            samples,
            max_new_tokens: 12 + i,
            sampling,
            want_probability: true,
            continuations: Vec::new(),
        })
        .collect()
}

pub(super) fn hot() -> Sampling {
    Sampling { temperature: 1.2, top_p: 0.9, seed: 3 }
}

/// Logits as bits, and each sample's ids, finish and token count.
pub(super) type Answer = (Option<Vec<u32>>, Vec<(Vec<u32>, Finish, usize)>);

/// Runs all samples; results by key, logits as bits.
pub(super) fn run(model: &Model, budget: Budget, requests: &[Request]) -> BTreeMap<u64, Answer> {
    let mut results = BTreeMap::new();
    let tokenizer = byte_tokenizer();
    Engine::new(model, &tokenizer, budget)
        .run_all(requests.iter().cloned(), &mut |done| file(requests, &mut results, done))
        .unwrap();
    assert_eq!(results.len(), requests.len());
    results
}

fn file(requests: &[Request], results: &mut BTreeMap<u64, Answer>, done: Completed) -> Result<()> {
    let generations = done.generations.into_iter().map(|g| (g.ids, g.finish, g.generated_tokens)).collect();
    results.insert(
        requests[done.index].key,
        (done.logits.map(|l| l.into_iter().map(f32::to_bits).collect()), generations),
    );
    Ok(())
}

/// The last row's logits after a training forward over everything so far.
fn full_forward(model: &Model, ids: &[u32]) -> Vec<f32> {
    let memory = ActivationCheckpointing::Keep;
    let context = TrainingContext { dropout: None, memory, trains: Parameters::Lora, read_from: None };
    let (hidden, _) = model.llama.forward(ids, &Offsets::from_lengths(&[ids.len()]), &context).unwrap();
    let last = hidden.narrow(0, ids.len() - 1, 1).unwrap().contiguous().unwrap();
    model.llama.logits(&last).unwrap().to_vec2().unwrap().remove(0)
}

#[test]
fn greedy_equals_a_loop_of_full_forwards() {
    let model = model();
    let requests = requests(5, 1, Sampling::greedy());
    let results = run(&model, WIDE, &requests);
    for request in &requests {
        let mut ids = request.prompt.clone();
        let mut finish = Finish::Length;
        while ids.len() < request.prompt.len() + request.max_new_tokens {
            let logits = full_forward(&model, &ids);
            let next =
                (0..logits.len()).reduce(|best, i| if logits[i] > logits[best] { i } else { best }).unwrap() as u32;
            if next == EOT {
                finish = Finish::Stop;
                break;
            }
            ids.push(next);
        }
        let (generated, found, _) = &results[&request.key].1[0];
        assert_eq!((&generated[..], *found), (&ids[request.prompt.len()..], finish));
    }
}

#[test]
fn results_do_not_depend_on_batch_budget_order_or_threads() {
    for model in [model(), bf16_model()] {
        check_independence(&model);
    }
}

fn check_independence(model: &Model) {
    let mut requests = requests(9, 3, hot());
    let vocab = model.llama.config.vocab_size as u32;
    requests.iter_mut().flat_map(|request| &mut request.prompt).for_each(|id| *id %= vocab);
    let alone = run(model, Budget { tokens: usize::MAX, rows: 1 }, &requests);
    assert!(alone.values().any(|(_, g)| g[0].0 != g[1].0), "samples of one prompt differ");
    for budget in
        [Budget { tokens: usize::MAX, rows: 7 }, Budget { tokens: 500, rows: 64 }, Budget { tokens: 1, rows: 64 }, WIDE]
    {
        assert_eq!(alone, run(model, budget, &requests), "{budget:?}");
    }
    let backwards: Vec<Request> = requests.iter().rev().cloned().collect();
    assert_eq!(alone, run(model, WIDE, &backwards));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(alone, pool.install(|| run(model, Budget { tokens: 700, rows: 5 }, &requests)), "{threads} threads");
    }
}

/// Whole blocks are counted, so what is promised is what is held at most.
#[test]
fn what_is_held_stays_within_the_budget() {
    let model = model();
    let tokenizer = byte_tokenizer();
    let requests = requests(9, 3, hot());
    let budget = Budget { tokens: 500, rows: 64 };
    let most = std::cell::Cell::new(0);
    let look = || most.set(most.get().max(model.llama.kv_tokens_held()));
    let engine = Engine::new(&model, &tokenizer, budget);
    let mut accept = |_: usize, _: usize, _: &super::Generation| {
        look();
        false
    };
    let mut emit = |_: Completed| {
        look();
        Ok(())
    };
    engine.run(requests.iter().cloned(), &mut accept, &mut emit).unwrap();
    engine.run_all(requests.iter().cloned(), &mut emit).unwrap();
    assert!(most.get() > 256 && most.get() <= budget.tokens, "{}", most.get());
    assert_eq!(model.llama.kv_tokens_held(), 0);
}

#[test]
fn a_prompt_read_in_parts_gives_the_bits_of_the_whole() {
    for Model { llama, .. } in [model(), bf16_model()] {
        let ids: Vec<u32> = (0..150).map(|i| i * 7 % 40).collect();
        let read = |cuts: &[usize]| {
            let mut caches = [SequenceCache::default()];
            let mut rows = Vec::new();
            for cut in cuts.windows(2) {
                rows.push(
                    llama
                        .prefill(&ids[cut[0]..cut[1]], &Offsets::from_lengths(&[cut[1] - cut[0]]), &mut caches)
                        .unwrap(),
                );
            }
            let [mut cache] = caches;
            rows.extend([3, 1, 4].map(|id| llama.decode(&[id], &mut [&mut cache]).unwrap()));
            let last = &rows[rows.len() - 4..];
            last.iter().map(|row| row.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
        };
        let whole = read(&[0, 150]);
        for cut in [1, 63, 64, 65, 149] {
            assert_eq!(read(&[0, cut, 150]), whole, "cut at {cut}");
        }
    }
}

#[test]
fn trials_are_the_samples_and_stop_at_the_first_accepted() {
    let model = model();
    let tokenizer = byte_tokenizer();
    let requests = requests(6, 5, hot());
    let all = run(&model, WIDE, &requests);
    for rows in [1, 4] {
        let mut asked = BTreeMap::<usize, Vec<usize>>::new();
        let mut seen = 0;
        let wanted = |index: usize| if index == 5 { usize::MAX } else { index };
        Engine::new(&model, &tokenizer, Budget { tokens: usize::MAX, rows })
            .run(
                requests.iter().cloned(),
                &mut |index, sample, _| {
                    asked.entry(index).or_default().push(sample);
                    sample == wanted(index)
                },
                &mut |done| {
                    seen += 1;
                    let trials = (wanted(done.index).saturating_add(1)).min(5);
                    let expected = &all[&requests[done.index].key].1[..trials];
                    let ids: Vec<_> =
                        done.generations.into_iter().map(|g| (g.ids, g.finish, g.generated_tokens)).collect();
                    assert_eq!(ids, expected);
                    Ok(())
                },
            )
            .unwrap();
        assert_eq!(seen, 6);
        for (index, samples) in asked {
            assert_eq!(samples, (0..(wanted(index).saturating_add(1)).min(5)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn prefill_alone_gives_the_same_logits_and_no_text() {
    let model = model();
    let mut requests = requests(6, 1, Sampling::greedy());
    let full = run(&model, WIDE, &requests);
    for request in &mut requests {
        request.samples = 0;
    }
    requests[2].want_probability = false;
    for (i, (key, (logits, generations))) in run(&model, WIDE, &requests).into_iter().enumerate() {
        assert_eq!(logits, if i == 2 { None } else { full[&key].0.clone() });
        assert!(generations.is_empty());
    }
}

#[test]
fn an_error_of_the_receiver_ends_the_run() {
    let model = model();
    let tokenizer = byte_tokenizer();
    let mut received = 0;
    let outcome = Engine::new(&model, &tokenizer, Budget { tokens: usize::MAX, rows: 1 }).run_all(
        requests(6, 1, Sampling::greedy()).into_iter(),
        &mut |_| {
            received += 1;
            if received == 2 { Err(crate::error::Error::resources("full")) } else { Ok(()) }
        },
    );
    assert_eq!((outcome.unwrap_err().exit_code(), received), (5, 2));
}

#[test]
fn constrained_answers_always_parse() {
    let model = model();
    let tokenizer = byte_tokenizer();
    for labels in [["0:alive", "1:death"], ["FALSE", "TRUE"], ["1:d", "1:death"], ["é", "è"]] {
        let labels = Labels::two(labels[0], labels[1]);
        let verdict = Verdict::default();
        let constraint = Constraint::of(&tokenizer, &labels, &verdict, "Reasoning: ").unwrap();
        let engine = Engine::new(&model, &tokenizer, WIDE).constrained(Some(&constraint));
        for sampling in [Sampling::greedy(), hot(), Sampling { temperature: 5.0, top_p: 1.0, seed: 1 }] {
            let mut requests = requests(6, 4, sampling);
            for (i, request) in requests.iter_mut().enumerate() {
                request.max_new_tokens = constraint.min_new_tokens() + i;
            }
            engine
                .run_all(requests.iter().cloned(), &mut |done| {
                    for generation in &done.generations {
                        let parsed = verdict.parse(&generation.text, &labels, "Reasoning: ");
                        assert!(
                            parsed.parsable() && parsed.explanation.is_some_and(|e| !e.is_empty()),
                            "{:?}",
                            generation.text
                        );
                        assert!(generation.generated_tokens <= requests[done.index].max_new_tokens);
                        assert_eq!(
                            (generation.finish, generation.generated_tokens),
                            (Finish::Stop, generation.ids.len() + 1)
                        );
                    }
                    Ok(())
                })
                .unwrap();
            requests[0].max_new_tokens = constraint.min_new_tokens() - 1;
            assert_eq!(engine.run_all(requests.into_iter(), &mut |_| Ok(())).unwrap_err().exit_code(), 2);
        }
    }
}

/// `model.generate(do_sample=False)` of transformers with a PEFT adapter (tests/golden/model.py).
#[test]
fn greedy_ids_equal_those_of_transformers() {
    for case in ["gqa", "llama3", "bias"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model").join(case);
        let llama = golden(case, DType::F32);
        let head = ClsHead::new(llama.config.hidden_size, 8, 2, Activation::Gelu, 0.0, 1, &Device::Cpu).unwrap();
        let model = Model::new(llama, head);
        let runs: Vec<Value> = serde_json::from_slice(&std::fs::read(dir.join("generate.json")).unwrap()).unwrap();
        assert!(!runs.is_empty());
        for run in runs {
            let ids = |key: &str| -> Vec<u32> { serde_json::from_value(run[key].clone()).unwrap() };
            let stops = ids("eos");
            let mut expected = ids("generated");
            let length = expected.len();
            let stopped = stops.contains(expected.last().unwrap());
            expected.truncate(length - usize::from(stopped));
            let request = Request {
                key: 0,
                prompt: ids("prompt"),
                samples: 1,
                max_new_tokens: run["max_new_tokens"].as_u64().unwrap() as usize,
                sampling: Sampling::greedy(),
                want_probability: false,
                continuations: Vec::new(),
            };
            let tokenizer = tokenizer_with_stops(&stops);
            let mut found = Vec::new();
            Engine::new(&model, &tokenizer, WIDE)
                .run_all(std::iter::once(request), &mut |done| {
                    found.extend(done.generations);
                    Ok(())
                })
                .unwrap();
            let finish = if stopped { Finish::Stop } else { Finish::Length };
            let of = |found: &super::Generation| (found.ids.clone(), found.finish, found.generated_tokens);
            assert_eq!(of(&found[0]), (expected, finish, length), "{case}");
        }
    }
}
