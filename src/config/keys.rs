//! Every key of a config file with its type and range: what `check` compares a file and `--set` with.

/// What a key's value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A string; `true` when it may be empty (not given).
    Text(bool),
    /// A string usable as the name of a directory.
    Name,
    /// A path that is not empty.
    Path,
    /// A hub id or path of a model; `true` when it may be empty.
    Model(bool),
    /// An integer in this closed range.
    Integer(i64, i64),
    /// One of these integers.
    IntegerOf(&'static [i64]),
    /// A number in this closed range.
    Number(f64, f64),
    /// A number in `(low, high]`.
    Above(f64, f64),
    /// A number in `[low, high)`.
    Below(f64, f64),
    /// `true` or `false`.
    Bool,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// Distinct strings, from these where given, at least so many.
    List(Option<&'static [&'static str]>, usize),
    /// Two distinct verdicts, each one trimmed line.
    Labels,
    /// A table of any names, each with a string: `path` stands for `path.<name>`.
    Map,
}

use Kind::{Above, Below, Bool, Integer, IntegerOf, Labels, List, Map, Model, Name, Number, OneOf, Path, Text};

const COUNT: i64 = 1_000_000_000;
const TOKENS: i64 = 10_000_000;

/// `(key, kind)`, in the order of SPEC §2.
pub(super) const KEYS: &[(&str, Kind)] = &[
    ("task.name", Name),
    ("task.labels", Labels),
    ("task.prompt", Text(true)),
    ("data.format", OneOf(&["auto", "jsonl", "csv", "parquet", "lcd", "clinifact"])),
    ("data.train", Path),
    ("data.dev", Path),
    ("data.test", Path),
    ("data.fields", Map),
    ("data.expect.train", Integer(0, COUNT)),
    ("data.expect.dev", Integer(0, COUNT)),
    ("data.expect.test", Integer(0, COUNT)),
    ("data.horizon", IntegerOf(&[30, 60, 90])),
    ("model.base", Model(true)),
    ("model.dtype", OneOf(&["auto", "f32", "bf16"])),
    ("model.max_input_tokens", Integer(1, TOKENS)),
    ("model.max_output_tokens", Integer(1, TOKENS)),
    ("model.truncate", OneOf(&["tail", "head", "middle"])),
    ("model.allow_long", Bool),
    ("construct.teacher", Model(true)),
    ("construct.max_input_tokens", Integer(1, TOKENS)),
    ("construct.max_output_tokens", Integer(1, TOKENS)),
    ("construct.trials", Integer(1, 1000)),
    ("construct.temperature", Number(0.0, 10.0)),
    ("construct.top_p", Above(0.0, 1.0)),
    ("construct.on_fail", OneOf(&["drop", "label_only", "rationalize"])),
    ("construct.splits", List(Some(&["train", "dev", "test"]), 1)),
    ("construct.min_words", Integer(1, 10_000)),
    ("construct.max_copied", Number(0.0, 1.0)),
    ("lora.rank", Integer(1, 4096)),
    ("lora.alpha", Above(0.0, 1e6)),
    ("lora.dropout", Below(0.0, 1.0)),
    ("lora.targets", List(Some(&["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]), 1)),
    ("head.hidden", Integer(1, 1_000_000)),
    ("head.activation", OneOf(&["gelu", "relu", "tanh"])),
    ("head.dropout", Below(0.0, 1.0)),
    ("train.objective", OneOf(&["joint", "cls", "lm"])),
    ("train.epochs", Integer(1, 100_000)),
    ("train.batch_size", Integer(1, 1_000_000)),
    ("train.grad_accumulation", Integer(1, 1_000_000)),
    ("train.effective_batch", Integer(1, COUNT)),
    ("train.learning_rate", Above(0.0, 1.0)),
    ("train.warmup_steps", Integer(0, COUNT)),
    ("train.weight_decay", Number(0.0, 10.0)),
    ("train.max_grad_norm", Number(0.0, 1e9)),
    ("train.w_gen", Number(0.0, 1e6)),
    ("train.w_cls", Number(0.0, 1e6)),
    ("train.loss_schedule", OneOf(&["constant", "linear"])),
    ("train.w_gen_end", Number(0.0, 1e6)),
    ("train.w_cls_end", Number(0.0, 1e6)),
    ("train.label_smoothing", Below(0.0, 1.0)),
    ("train.prompt_loss_weight", Number(0.0, 1.0)),
    ("train.parameters", OneOf(&["lora", "full"])),
    ("train.init", OneOf(&["pretrained", "random"])),
    ("train.shuffle", Bool),
    ("train.curriculum", OneOf(&["none", "short_first"])),
    ("train.max_steps", Integer(1, COUNT)),
    ("train.init_from", Path),
    ("train.seed", Integer(0, i64::MAX)),
    ("train.activation_memory", OneOf(&["auto", "keep", "recompute"])),
    ("train.save_every_steps", Integer(1, COUNT)),
    ("generate.temperature", Number(0.0, 10.0)),
    ("generate.top_p", Above(0.0, 1.0)),
    ("generate.batch_tokens", Integer(1, COUNT)),
    ("generate.constrain", Bool),
    ("eval.judge", Model(false)),
    ("eval.judge_prompt", Path),
    ("eval.verbalized_prompt", Path),
    ("eval.runs", Integer(1, 1000)),
    ("eval.bootstrap", Integer(0, 1_000_000)),
    ("eval.subgroups", List(None, 0)),
    ("eval.baselines", List(Some(&["verbalized", "label", "self_consistency", "token_probability", "cnn"]), 0)),
    ("eval.temperature", Number(0.0, 10.0)),
    ("eval.top_p", Above(0.0, 1.0)),
    ("eval.cost_fp", Number(0.0, 1e9)),
    ("eval.cost_fn", Number(0.0, 1e9)),
    ("eval.calibrate", OneOf(&["none", "temperature", "platt", "isotonic"])),
    ("eval.force_isotonic", Bool),
    ("cnn.embeddings", Model(false)),
    ("cnn.max_tokens", Integer(1, TOKENS)),
    ("cnn.filters", Integer(1, 1_000_000)),
    ("cnn.projection", Integer(1, 1_000_000)),
    ("cnn.dropout", Below(0.0, 1.0)),
    ("cnn.batch_size", Integer(1, 1_000_000)),
    ("cnn.epochs", Integer(1, 100_000)),
    ("cnn.learning_rate", Above(0.0, 1.0)),
    ("cnn.weight_decay", Number(0.0, 10.0)),
    ("cnn.warmup", Below(0.0, 1.0)),
    ("cnn.seeds", Integer(1, 1000)),
];

/// The kind of a key, `data.fields.<name>` included.
pub(super) fn kind_of(path: &str) -> Option<Kind> {
    if let Some((_, kind)) = KEYS.iter().find(|(key, _)| *key == path) {
        return Some(*kind);
    }
    let (table, name) = path.rsplit_once('.')?;
    let of_map = KEYS.iter().any(|(key, kind)| *key == table && *kind == Map) && !name.is_empty();
    of_map.then_some(Text(false))
}

/// True for a table that holds keys: a section, or `data.expect`, `data.fields`.
pub(super) fn is_table(path: &str) -> bool {
    KEYS.iter().any(|(key, kind)| (*key == path && *kind == Map) || key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key most like `path`, if any is close: in its section, then in any, then over the whole path.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let split = |key: &'static str| key.rsplit_once('.').unwrap_or(("", key));
    let all = || KEYS.iter().map(|(key, _)| *key);
    let here = closest(name, all().filter(|key| split(key).0 == section).map(|key| split(key).1));
    if let Some(near) = here {
        return all().find(|key| split(key) == (section, near));
    }
    // The right name in the wrong section, if only one other section has it.
    let mut same = all().filter(|key| split(key).1 == name);
    if let (Some(key), None) = (same.next(), same.next()) {
        return Some(key);
    }
    if is_table(section) { None } else { closest(path, all()) }
}

/// The known section most like `name`, if any is close.
pub(super) fn nearest_section(name: &str) -> Option<&'static str> {
    closest(name, KEYS.iter().filter_map(|(key, _)| key.split('.').next()))
}

/// The candidate at the highest Jaro–Winkler similarity, from 0.8 on.
pub(super) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(similarity, ..)| *similarity >= 0.8)
        .min_by(|a, b| a.1.cmp(&b.1).then(b.0.total_cmp(&a.0)))
        .map(|(.., candidate)| candidate)
}
