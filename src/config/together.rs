//! What no key can say alone: keys that contradict each other, or that need another.

use super::{
    ClassWeights, Config, DataFormat, EpochSample, Init, LossSchedule, Objective, Parameters, Quantize, Train,
    is_server,
};

/// Keys that do not go together.
pub(super) struct Contradiction {
    /// The keys that the message is about.
    pub keys: Vec<String>,
    /// Others whose values it follows from.
    pub with: &'static [&'static str],
    /// What is wrong with them.
    pub message: String,
}

/// The keys of a prediction line, which no column of `eval.subgroups` may take.
pub(crate) const PREDICTION_KEYS: [&str; 21] = [
    "id",
    "label",
    "probability",
    "calibrated_probability",
    "logits",
    "probabilities",
    "calibrated_probabilities",
    "predicted",
    "verbalized_label",
    "parsable",
    "explanation",
    "evidence",
    "text",
    "agreement",
    "group",
    "prompt_tokens",
    "truncated_tokens",
    "generated_tokens",
    "finish",
    "error",
    "record",
];

/// Every one of a config.
pub(super) fn contradictions(config: &Config) -> Vec<Contradiction> {
    let mut found = of_records(config);
    found.extend(of_class_balance(&config.train));
    let mut add = |keys: &[&str], with: &'static [&'static str], message: String| {
        found.push(Contradiction { keys: keys.iter().map(ToString::to_string).collect(), with, message });
    };
    let train = &config.train;
    let always_zero = |weight: f64, end: Option<f64>| {
        weight == 0.0 && (train.loss_schedule == LossSchedule::Constant || end.unwrap_or(weight) == 0.0)
    };
    let no_text = always_zero(train.w_gen, train.w_gen_end);
    let no_class = always_zero(train.w_cls, train.w_cls_end);
    let with = &["train.loss_schedule", "train.w_gen_end", "train.w_cls_end", "train.w_consistency", "train.objective"];
    match train.objective {
        Objective::Joint if no_text && no_class && train.w_consistency == 0.0 => {
            add(&["train.w_gen", "train.w_cls"], with, "both are 0: nothing would be trained".into());
        }
        Objective::Joint if no_class && train.w_consistency == 0.0 => {
            let message = "is 0: the head would stay as it is; train.objective = \"lm\" trains the text alone";
            add(&["train.w_cls"], with, message.into());
        }
        Objective::Lm if no_text => add(&["train.w_gen"], with, "is 0: nothing would be trained".into()),
        Objective::Cls if no_class => add(&["train.w_cls"], with, "is 0: nothing would be trained".into()),
        _ => {}
    }
    match (train.loss_schedule, train.w_gen_end.or(train.w_cls_end)) {
        (LossSchedule::Linear, None) => {
            let message = "\"linear\" needs train.w_gen_end or train.w_cls_end".into();
            add(&["train.loss_schedule"], &["train.w_gen_end", "train.w_cls_end"], message);
        }
        (LossSchedule::Constant, Some(_)) => {
            let message = "are read under train.loss_schedule = \"linear\" alone".into();
            add(&["train.w_gen_end", "train.w_cls_end"], &["train.loss_schedule"], message);
        }
        _ => {}
    }
    if train.w_consistency > 0.0 && train.objective != Objective::Joint {
        let message = "compares head and text, which train.objective = \"joint\" alone trains both".into();
        add(&["train.w_consistency"], &["train.objective"], message);
    }
    let classes = config.task.labels.count();
    if let ClassWeights::Given(weights) = &train.class_weights
        && weights.len() != classes
    {
        let message = format!("holds {} numbers, task.labels names {classes} classes", weights.len());
        add(&["train.class_weights"], &["task.labels"], message);
    }
    if train.class_weights != ClassWeights::None && train.objective == Objective::Lm {
        let message = "weighs the classification loss, which train.objective = \"lm\" does not train".into();
        add(&["train.class_weights"], &["train.objective"], message);
    }
    if train.class_weights == ClassWeights::Balanced && train.sample == EpochSample::Balanced {
        let message = "both are \"balanced\": a rare class would count twice over; leave one of the two out".into();
        add(&["train.class_weights", "train.sample"], &[], message);
    }
    if train.sample == EpochSample::Balanced && !train.shuffle {
        let message = "\"balanced\" draws an order of its own, train.shuffle = false keeps the file's".into();
        add(&["train.sample"], &["train.shuffle"], message);
    }
    if config.model.quantize != Quantize::None && train.parameters == Parameters::Full {
        let message = "stores a frozen base, which train.parameters = \"full\" trains: set one of the two otherwise";
        add(&["model.quantize"], &["train.parameters"], message.into());
    }
    if let Some(effective) = train.effective_batch.filter(|effective| effective % train.batch_size != 0) {
        let below = effective / train.batch_size * train.batch_size;
        let near = [below, below + train.batch_size].map(|near| near.to_string());
        let message = format!(
            "{effective} is not a multiple of train.batch_size = {}, as {} would be",
            train.batch_size,
            near[usize::from(below == 0)..].join(" or ")
        );
        add(&["train.effective_batch"], &["train.batch_size"], message);
    }
    if train.init == Init::Random && train.parameters != Parameters::Full {
        let message =
            "\"random\" leaves nothing for an adapter to adapt: it needs train.parameters = \"full\"".to_owned();
        add(&["train.init"], &["train.parameters"], message);
    }
    if train.init == Init::Random && train.init_from.is_some() {
        let message = "weights come from one place: leave one of the two out".into();
        add(&["train.init", "train.init_from"], &[], message);
    }
    for (key, model, name) in config.servers() {
        if model.is_some_and(is_server) && name.is_none() {
            let message = format!("names a server, so {key}_name must be the model's name there (GET /v1/models)");
            add(&[key], &[], message);
        }
    }
    found
}

/// Those of losses that a correction for rare classes would go through: it is L_cls's alone, and of whole labels.
fn of_class_balance(train: &Train) -> Vec<Contradiction> {
    let balanced = train.sample == EpochSample::Balanced;
    let corrected = balanced || train.class_weights != ClassWeights::None;
    let mut found = Vec::new();
    let mut add = |key: &str, message: &str| {
        let with = &["train.sample", "train.class_weights"];
        found.push(Contradiction { keys: vec![key.to_owned()], with, message: message.to_owned() });
    };
    if train.label_smoothing > 0.0 && corrected {
        let message = "does not go with train.sample = \"balanced\" or train.class_weights: what it gives to the other \
                       classes would be multiplied by the same weights, and no rare class could be called";
        add("train.label_smoothing", message);
    }
    if train.w_consistency > 0.0 && balanced {
        let message = "does not go with train.sample = \"balanced\": it would pull the probability to the shares drawn";
        add("train.w_consistency", message);
    }
    found
}

/// Those of what is read of records.
fn of_records(config: &Config) -> Vec<Contradiction> {
    let mut found = Vec::new();
    if let Some(name) = config.eval.subgroups.iter().find(|name| PREDICTION_KEYS.contains(&name.as_str())) {
        let message = format!("`{name}` is a key of every prediction line: give the column another name");
        found.push(Contradiction { keys: vec!["eval.subgroups".to_owned()], with: &[], message });
    }
    let labels = &config.task.labels;
    if config.data.format == DataFormat::Clinifact && !labels.are_two() {
        let message = format!(
            "\"clinifact\" makes two classes of the file's three labels, task.labels names {}: \"clinifact3\" keeps \
             all three",
            labels.count()
        );
        found.push(Contradiction { keys: vec!["data.format".to_owned()], with: &["task.labels"], message });
    }
    found
}
