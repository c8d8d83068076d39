//! Every key of a config file with its type, its range and what it decides: what `check` compares a file and `--set`
//! with, and what [`fingerprint`](crate::fingerprint) compares results by.

/// What a key's value may be. Of the kinds with a flag, `true` allows the empty string, which means not given; `false`
/// asks for a value where the key stands (a key may always be left out).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A string.
    Text(bool),
    /// A string usable as the name of a directory.
    Name,
    /// A path.
    Path(bool),
    /// A hub id or path of a model.
    Model(bool),
    /// The same, or the address of a server that has it.
    Server(bool),
    /// An integer in this closed range.
    Integer(i64, i64),
    /// One of these integers.
    IntegerOf(&'static [u32]),
    /// A number in this closed range.
    Number(f64, f64),
    /// A number in `(low, high]`.
    Above(f64, f64),
    /// A number in `[low, high)`.
    Below(f64, f64),
    /// Distinct numbers in `(low, high]`.
    Numbers(f64, f64),
    /// One of these strings, or a number in `(0, high]` for each class.
    Weights(&'static [&'static str], f64),
    /// `true` or `false`.
    Bool,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// At least so many distinct strings, each one of these where there are some.
    List(Option<&'static [&'static str]>, usize),
    /// Two or more distinct names of classes, each one trimmed line.
    Labels,
    /// A table of strings under names of the user's choice: the entry `data.fields` stands for every
    /// `data.fields.<name>`.
    Map,
}

use Decides::{ByContent, ByValue};
use Kind::{
    Above, Below, Bool, Integer, IntegerOf, Labels, List, Map, Model, Name, Number, Numbers, OneOf, Path, Server, Text,
    Weights,
};
use Stage::{Baselines, Cnn, Construct, Judge, Measure, Predict, Train};

use super::{HORIZONS, Stage};

const COUNT: i64 = 1_000_000_000;
const TOKENS: i64 = 10_000_000;

/// Which stored results a key decides. There is no default: a new key does not compile without an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Decides {
    /// By its value.
    ByValue(&'static [Stage]),
    /// Not by its value but by what it led to: the command hands in the hash of a file or model, a prompt's text, the
    /// number type that `auto` came to, what a checkpoint says where the config is silent, the seed that `--seed` gave.
    ByContent(&'static [Stage]),
}

const NOTHING: Decides = ByValue(&[]);
/// How a record is read: its label, its texts.
const READING: Decides = ByValue(&[Construct, Train, Predict, Baselines, Cnn]);
const WINDOW: Decides = ByValue(&[Construct, Train, Predict, Baselines, Judge]);
const CONSTRUCTING: Decides = ByValue(&[Construct]);
const TRAINING: Decides = ByValue(&[Train]);
/// How answers are drawn. Training too: it scores dev after each epoch, and picks the best by that.
const DECODING: Decides = ByValue(&[Train, Predict]);
const ASKING: Decides = ByValue(&[Baselines]);
const MEASURING: Decides = ByValue(&[Measure]);
const NETWORK: Decides = ByValue(&[Cnn]);

/// `(key, kind, what it decides)`, table by table.
pub(super) const KEYS: &[(&str, Kind, Decides)] = &[
    ("task.name", Name, NOTHING),
    ("task.labels", Labels, ByValue(&[Construct, Train])),
    ("task.ordinal", Bool, MEASURING),
    ("task.prompt", Path(true), ByContent(&[Construct, Train])),
    (
        "data.format",
        OneOf(&["auto", "jsonl", "csv", "parquet", "lcd", "clinifact", "clinifact3", "evidence-inference"]),
        READING,
    ),
    ("data.train", Path(false), ByContent(&[Train, Cnn])),
    ("data.dev", Path(false), ByContent(&[Train, Cnn])),
    ("data.test", Path(false), NOTHING),
    ("data.fields", Map, READING),
    ("data.expect.train", Integer(0, COUNT), NOTHING),
    ("data.expect.dev", Integer(0, COUNT), NOTHING),
    ("data.expect.test", Integer(0, COUNT), NOTHING),
    ("data.horizon", IntegerOf(&HORIZONS), READING),
    ("model.base", Model(true), ByContent(&[Construct, Train, Predict, Baselines])),
    ("model.dtype", OneOf(&["auto", "f32", "bf16"]), ByContent(&[Construct, Train, Predict, Baselines, Judge])),
    (
        "model.quantize",
        OneOf(&["none", "fp8", "int8", "nf4"]),
        ByContent(&[Construct, Train, Predict, Baselines, Judge]),
    ),
    ("model.max_input_tokens", Integer(1, TOKENS), ByValue(&[Train, Predict, Baselines, Judge])),
    ("model.max_output_tokens", Integer(1, TOKENS), WINDOW),
    ("model.truncate", OneOf(&["tail", "head", "middle"]), WINDOW),
    ("model.allow_long", Bool, NOTHING),
    ("construct.teacher", Server(true), ByContent(&[Construct])),
    // Name and tokenizer are part of what `construct.teacher` leads to.
    ("construct.teacher_name", Text(false), NOTHING),
    ("construct.teacher_tokenizer", Model(false), NOTHING),
    ("construct.max_input_tokens", Integer(1, TOKENS), CONSTRUCTING),
    ("construct.max_output_tokens", Integer(1, TOKENS), CONSTRUCTING),
    ("construct.trials", Integer(1, 1000), CONSTRUCTING),
    ("construct.temperature", Number(0.0, 10.0), CONSTRUCTING),
    ("construct.top_p", Above(0.0, 1.0), CONSTRUCTING),
    ("construct.on_fail", OneOf(&["drop", "label_only", "rationalize"]), CONSTRUCTING),
    ("construct.splits", List(Some(&["train", "dev", "test"]), 1), NOTHING),
    ("construct.min_words", Integer(1, 10_000), CONSTRUCTING),
    ("construct.max_copied", Number(0.0, 1.0), CONSTRUCTING),
    ("lora.rank", Integer(1, 4096), TRAINING),
    ("lora.alpha", Above(0.0, 1e6), TRAINING),
    ("lora.dropout", Below(0.0, 1.0), TRAINING),
    (
        "lora.targets",
        List(Some(&["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]), 1),
        TRAINING,
    ),
    ("head.hidden", Integer(1, 1_000_000), TRAINING),
    ("head.activation", OneOf(&["gelu", "relu", "tanh"]), TRAINING),
    ("head.dropout", Below(0.0, 1.0), TRAINING),
    ("train.objective", OneOf(&["joint", "cls", "lm"]), TRAINING),
    ("train.epochs", Integer(1, 100_000), TRAINING),
    ("train.batch_size", Integer(1, 1_000_000), TRAINING),
    ("train.grad_accumulation", Integer(1, 1_000_000), TRAINING),
    ("train.effective_batch", Integer(1, COUNT), TRAINING),
    ("train.learning_rate", Above(0.0, 1.0), TRAINING),
    ("train.warmup_steps", Integer(0, COUNT), TRAINING),
    ("train.weight_decay", Number(0.0, 10.0), TRAINING),
    ("train.max_grad_norm", Number(0.0, 1e9), TRAINING),
    ("train.w_gen", Number(0.0, 1e6), TRAINING),
    ("train.w_cls", Number(0.0, 1e6), TRAINING),
    ("train.loss_schedule", OneOf(&["constant", "linear"]), TRAINING),
    ("train.w_gen_end", Number(0.0, 1e6), TRAINING),
    ("train.w_cls_end", Number(0.0, 1e6), TRAINING),
    ("train.label_smoothing", Below(0.0, 1.0), TRAINING),
    ("train.w_consistency", Number(0.0, 1e6), TRAINING),
    ("train.class_weights", Weights(&["none", "balanced"], 1e6), TRAINING),
    ("train.sample", OneOf(&["natural", "balanced"]), TRAINING),
    ("train.prompt_loss_weight", Number(0.0, 1.0), TRAINING),
    ("train.parameters", OneOf(&["lora", "full"]), TRAINING),
    ("train.init", OneOf(&["pretrained", "random"]), TRAINING),
    ("train.shuffle", Bool, TRAINING),
    ("train.curriculum", OneOf(&["none", "short_first"]), TRAINING),
    ("train.max_steps", Integer(1, COUNT), NOTHING),
    ("train.init_from", Path(false), ByContent(&[Train])),
    ("train.seed", Integer(0, i64::MAX), ByContent(&[Construct, Train, Predict, Measure, Baselines])),
    ("train.activation_memory", OneOf(&["auto", "keep", "recompute"]), NOTHING),
    ("train.save_every_steps", Integer(1, COUNT), NOTHING),
    ("generate.temperature", Number(0.0, 10.0), DECODING),
    ("generate.top_p", Above(0.0, 1.0), DECODING),
    ("generate.batch_tokens", Integer(1, COUNT), NOTHING),
    ("generate.constrain", Bool, DECODING),
    // It changes no text: what was trained without it is predicted with it all the same.
    ("generate.evidence", Bool, ByValue(&[Predict])),
    ("remote.concurrency", Integer(1, 1024), NOTHING),
    ("remote.timeout_s", Integer(1, 86_400), NOTHING),
    ("remote.retries", Integer(0, 100), NOTHING),
    ("remote.drop_failed", Bool, NOTHING),
    ("remote.key_env", Text(false), NOTHING),
    ("eval.judge", Server(false), ByContent(&[Judge])),
    ("eval.judge_name", Text(false), NOTHING),
    ("eval.judge_tokenizer", Model(false), NOTHING),
    ("eval.baseline_model", Server(false), ByContent(&[Baselines])),
    ("eval.baseline_model_name", Text(false), NOTHING),
    ("eval.baseline_model_tokenizer", Model(false), NOTHING),
    ("eval.judge_prompt", Path(false), ByContent(&[Judge])),
    ("eval.verbalized_prompt", Path(false), ByContent(&[Baselines])),
    ("eval.runs", Integer(1, 1000), ASKING),
    ("eval.bootstrap", Integer(0, 1_000_000), MEASURING),
    ("eval.positive", Text(false), MEASURING),
    ("eval.subgroups", List(None, 0), ByValue(&[Predict, Measure])),
    ("eval.sensitivities", Numbers(0.0, 1.0), MEASURING),
    ("eval.specificities", Numbers(0.0, 1.0), MEASURING),
    ("eval.alert_rates", Numbers(0.0, 1.0), MEASURING),
    // The lines that were made of it know its hash.
    ("eval.language_text", Path(false), NOTHING),
    (
        "eval.baselines",
        List(Some(&["verbalized", "label", "self_consistency", "token_probability", "cnn"]), 0),
        NOTHING,
    ),
    ("eval.temperature", Number(0.0, 10.0), ASKING),
    ("eval.top_p", Above(0.0, 1.0), ASKING),
    ("eval.cost_fp", Number(0.0, 1e9), MEASURING),
    ("eval.cost_fn", Number(0.0, 1e9), MEASURING),
    ("eval.calibrate", OneOf(&["none", "temperature", "platt", "isotonic"]), MEASURING),
    ("eval.force_isotonic", Bool, MEASURING),
    ("cnn.embeddings", Model(false), ByContent(&[Cnn])),
    ("cnn.max_tokens", Integer(1, TOKENS), NETWORK),
    ("cnn.filters", Integer(1, 1_000_000), NETWORK),
    ("cnn.projection", Integer(1, 1_000_000), NETWORK),
    ("cnn.dropout", Below(0.0, 1.0), NETWORK),
    ("cnn.batch_size", Integer(1, 1_000_000), NETWORK),
    ("cnn.epochs", Integer(1, 100_000), NETWORK),
    ("cnn.learning_rate", Above(0.0, 1.0), NETWORK),
    ("cnn.weight_decay", Number(0.0, 10.0), NETWORK),
    ("cnn.warmup", Below(0.0, 1.0), NETWORK),
    ("cnn.seeds", Integer(1, 1000), NOTHING),
];

/// The kind of a key, `data.fields.<name>` included.
pub(super) fn kind_of(path: &str) -> Option<Kind> {
    if let Some((_, kind, _)) = KEYS.iter().find(|(key, ..)| *key == path) {
        return Some(*kind);
    }
    let (table, name) = path.rsplit_once('.')?;
    let of_map = KEYS.iter().any(|(key, kind, _)| *key == table && *kind == Map) && !name.is_empty();
    of_map.then_some(Text(false))
}

/// The keys whose values are paths, or may be.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(|(_, kind, _)| matches!(kind, Path(_) | Model(_) | Server(_))).map(|(key, ..)| *key)
}

impl Stage {
    /// The keys that decide this stage's result, `data.fields` for its whole table, each with whether it counts by what
    /// it leads to (a file's hash) instead of by its value.
    pub fn keys(self) -> impl Iterator<Item = (&'static str, bool)> {
        KEYS.iter().filter_map(move |(key, _, decides)| match decides {
            ByValue(stages) => stages.contains(&self).then_some((*key, false)),
            ByContent(stages) => stages.contains(&self).then_some((*key, true)),
        })
    }

    /// Something for every key that counts by content.
    pub fn contents<T>(self, mut of: impl FnMut(&str) -> T) -> Vec<(&'static str, T)> {
        self.keys().filter(|(_, by_content)| *by_content).map(|(key, _)| (key, of(key))).collect()
    }
}

/// True for a table that holds keys: a section, or `data.expect`, `data.fields`.
pub(super) fn is_table(path: &str) -> bool {
    KEYS.iter().any(|(key, kind, _)| {
        (*key == path && *kind == Map) || key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The known keys that `path` may have been meant as: one that is spelt nearly like it in its section; else those of
/// its name in other sections; else what is like it anywhere.
pub(super) fn nearest(path: &str) -> Vec<&'static str> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let split = |key: &'static str| key.rsplit_once('.').unwrap_or(("", key));
    let all = || KEYS.iter().map(|(key, ..)| *key);
    let here = || all().filter(|key| split(key).0 == section);
    let near = closest(name, here().map(|key| split(key).1));
    let as_key = |near: &str| here().filter(|key| split(key).1 == near).collect();
    if let Some(near) = near.filter(|near| strsim::damerau_levenshtein(&name.to_lowercase(), near) <= SLIP) {
        return as_key(near);
    }
    let elsewhere: Vec<_> = all().filter(|key| split(key).1.eq_ignore_ascii_case(name)).collect();
    match near {
        _ if !elsewhere.is_empty() && elsewhere.len() <= SEVERAL => elsewhere,
        Some(near) => as_key(near),
        None if is_table(section) => Vec::new(),
        None => closest(path, all()).into_iter().collect(),
    }
}

/// Letters that a finger slips on in one word.
const SLIP: usize = 2;
/// Keys that a message names at the most.
const SEVERAL: usize = 4;

/// The known section most like `name`, if any is close.
pub(super) fn nearest_section(name: &str) -> Option<&'static str> {
    closest(name, KEYS.iter().filter_map(|(key, ..)| key.split('.').next()))
}

/// The candidate fewest edits away (Damerau–Levenshtein), of equals the most similar by Jaro–Winkler, of those that
/// are at least 0.8 similar.
pub(super) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .map(|candidate| {
            (strsim::jaro_winkler(&word, candidate), strsim::damerau_levenshtein(&word, candidate), candidate)
        })
        .filter(|(similarity, ..)| *similarity >= 0.8)
        .min_by(|a, b| a.1.cmp(&b.1).then(b.0.total_cmp(&a.0)))
        .map(|(.., candidate)| candidate)
}
