//! Records in, predictions out, in the order of the records.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use super::{
    Completed, Engine, Generation, Request, Sampling, batch::Budget, constrain::Constraint, in_order::InOrder,
};
use crate::{
    data::{ErrorKind, OverClasses, Prediction, Record, RecordError},
    error::{Error, Result},
    labels::{Class, Labels},
    metrics::{evidence, softmax},
    model::Model,
    prompt::{Prompter, Tokens},
    rng, signals,
};

/// How records are scored.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictSettings {
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Cap on new tokens.
    pub max_new_tokens: usize,
    /// `false`: prefill only, a probability and no text.
    pub explanation: bool,
    /// Force the closing verdict line.
    pub constrain: bool,
    /// Say of each explanation what of it stands in the record.
    pub evidence: bool,
    /// Cached tokens held at once; `None` goes by memory.
    pub batch_tokens: Option<usize>,
}

/// What happened, for the line on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Lines written, error lines included.
    pub records: usize,
    /// Error lines.
    pub errors: usize,
    /// Records whose document was cut to fit the window.
    pub truncated: usize,
    /// Answers that name no class.
    pub unparsable: usize,
}

impl Counts {
    /// Counts one line.
    pub fn add(&mut self, prediction: &Prediction) {
        self.records += 1;
        self.errors += usize::from(prediction.error.is_some());
        self.truncated += usize::from(prediction.truncated_tokens.is_some_and(|tokens| tokens > 0));
        self.unparsable += usize::from(prediction.parsable == Some(false));
    }
}

/// A record's number in its file, and its line where that is another.
type Place = (usize, Option<usize>);

/// A record that has a prompt.
#[derive(Clone)]
pub struct PromptedRecord {
    place: Place,
    /// Its prompt.
    pub prompt: Tokens,
    /// Its prediction, complete but for what the model says.
    pub prediction: Prediction,
    /// Its texts, where evidence is looked for in them.
    texts: Texts,
}

/// A record's texts by field.
type Texts = BTreeMap<String, String>;

impl PromptedRecord {
    /// `record` with its `prompt`.
    pub fn new(record: &Record, prompt: Tokens) -> Self {
        let prediction = Prediction {
            id: Some(record.id.clone()),
            label: record.label,
            group: record.group.clone(),
            columns: record.columns.clone(),
            prompt_tokens: Some(prompt.ids.len()),
            truncated_tokens: Some(prompt.truncated_tokens),
            ..Prediction::default()
        };
        Self { place: (record.number, record.line), prompt, prediction, texts: Texts::new() }
    }

    /// Makes the prompt of `record`, to be scored under these settings. The inner error is the record's own, the outer
    /// one ends the run.
    pub fn of(prompter: &Prompter, record: &Record, settings: &PredictSettings) -> Result<Result<Self, RecordError>> {
        let texts = || if settings.evidence { record.fields.clone() } else { Texts::new() };
        match prompter.prompt(record) {
            Ok(prompt) => Ok(Ok(Self { texts: texts(), ..Self::new(record, prompt) })),
            Err(error) => unfit(record, error).map(Err),
        }
    }
}

/// Scores records as they come; `emit` gets a prediction a record, a bad one included, in the order of the records.
///
/// An outer error of `records` ends the stream: what was read before it is finished and emitted, then it is returned.
pub fn score(
    model: &Model,
    prompter: &Prompter,
    records: impl Iterator<Item = Result<Result<PromptedRecord, RecordError>>>,
    settings: &PredictSettings,
    emit: &mut dyn FnMut(Prediction) -> Result<()>,
) -> Result<Counts> {
    let constraint = if settings.constrain && settings.explanation { Some(Constraint::new(prompter)?) } else { None };
    let budget = Budget::beside(&model.llama, prompter.max_input_tokens(), settings.batch_tokens);
    let engine = Engine::new(model, prompter.tokenizer(), budget).constrained(constraint.as_ref());
    let mut counts = Counts::default();
    let mut emit = |mut prediction: Prediction| {
        if settings.evidence {
            prediction.evidence.get_or_insert(None);
        }
        counts.add(&prediction);
        emit(prediction)
    };
    // The engine pulls a record while it hands out another's result.
    let scoring = RefCell::new(Scoring {
        prompter,
        settings,
        asked: 0,
        open: HashMap::new(),
        ordered: InOrder::new(&mut emit),
        failure: None,
    });
    let mut records = records.enumerate();
    let requests = std::iter::from_fn(|| {
        loop {
            // A bad record needs no request: any number of them may follow one that takes its time.
            if scoring.borrow().ordered.is_full() {
                return Some(None);
            }
            let (place, record) = records.next()?;
            let request = scoring.borrow_mut().request(place, record)?;
            if request.is_some() {
                return Some(request);
            }
        }
    });
    engine.run_paced(requests, &mut |completed| scoring.borrow_mut().file(completed))?;
    let failure = scoring.into_inner().failure;
    failure.map_or(Ok(counts), Err)
}

/// A record's place in the stream and in its file, its prediction so far, its texts.
type Open = (usize, Place, Prediction, Texts);

/// Turns records into requests and results back into predictions of those records.
struct Scoring<'a> {
    prompter: &'a Prompter,
    settings: &'a PredictSettings,
    /// Requests made so far.
    asked: usize,
    /// Those under way.
    open: HashMap<usize, Open>,
    ordered: InOrder<'a, Prediction>,
    /// What ended the stream.
    failure: Option<Error>,
}

impl Scoring<'_> {
    /// The request of the record at `place`; none of a bad one, whose line is filed at once. `None` ends the stream.
    fn request(
        &mut self,
        place: usize,
        record: Result<Result<PromptedRecord, RecordError>>,
    ) -> Option<Option<Request>> {
        let filed = match record {
            Ok(Ok(record)) => return Some(Some(self.open(place, record))),
            // Nobody else may ask for a long time.
            Ok(Err(bad)) => signals::check_interrupted().and_then(|()| self.ordered.put(place, self.error_line(&bad))),
            Err(error) => Err(error),
        };
        filed.map(|()| None).map_err(|error| self.failure = Some(error)).ok()
    }

    fn error_line(&self, bad: &RecordError) -> Prediction {
        Prediction::from_error(bad, self.prompter.labels())
    }

    fn open(&mut self, at: usize, PromptedRecord { place, prompt, prediction, texts }: PromptedRecord) -> Request {
        let request = Request {
            key: rng::hash_name(prediction.id.as_deref().unwrap_or_default()),
            prompt: prompt.ids,
            samples: usize::from(self.settings.explanation),
            max_new_tokens: self.settings.max_new_tokens,
            sampling: self.settings.sampling,
            want_probability: true,
            continuations: Vec::new(),
        };
        self.open.insert(self.asked, (at, place, prediction, texts));
        self.asked += 1;
        request
    }

    fn file(&mut self, completed: Completed) -> Result<()> {
        let (at, place, mut prediction, texts) = self.open.remove(&completed.index).unwrap_or_default();
        if completed.logits.as_ref().is_some_and(|logits| !logits.iter().all(|logit| logit.is_finite())) {
            let error = bad(place, prediction.id, ErrorKind::NotFinite, "its logits are not finite");
            let line = Prediction { label: prediction.label, ..self.error_line(&error) };
            return self.ordered.put(at, line);
        }
        if let Some(logits) = completed.logits {
            add_probability(&mut prediction, &logits, self.prompter.labels());
        }
        if let Some(generation) = completed.generations.into_iter().next() {
            self.add_text(&mut prediction, generation);
        }
        if self.settings.evidence {
            add_evidence(&mut prediction, &texts);
        }
        self.ordered.put(at, prediction)
    }

    fn add_text(&self, prediction: &mut Prediction, generation: Generation) {
        let parsed = self.prompter.parse(&generation.text);
        prediction.verbalized_label = parsed.label;
        prediction.parsable = Some(parsed.label.is_some());
        prediction.explanation = parsed.explanation;
        prediction.agreement = prediction.called().zip(parsed.label).map(|(called, label)| called == label);
        prediction.text = Some(generation.text);
        prediction.generated_tokens = Some(generation.generated_tokens);
        prediction.finish = Some(generation.finish);
    }
}

/// Says what of the explanation stands in these texts.
pub fn add_evidence(prediction: &mut Prediction, texts: &BTreeMap<String, String>) {
    let fields = || texts.iter().map(|(field, text)| (field.as_str(), text.as_str()));
    prediction.evidence = Some(prediction.explanation.as_ref().map(|said| evidence::find(fields(), said)));
}

/// The error line of a record that has no prompt; errors that are no record's own end the run.
fn unfit(record: &Record, error: Error) -> Result<RecordError> {
    let kind = match error.exit_code() {
        3 => ErrorKind::TooLong,
        1 => ErrorKind::Tokenizer,
        _ => return Err(error),
    };
    let message = error.to_string();
    // What the line says again in keys of its own.
    let rest = message.strip_prefix(&format!("record {}", record.place())).unwrap_or(&message);
    let (field, rest) = match rest.strip_prefix(", field ").and_then(|rest| rest.split_once(": ")) {
        Some((field, rest)) => (Some(field.to_owned()), rest),
        None => (None, rest.strip_prefix(": ").unwrap_or(rest)),
    };
    Ok(RecordError { field, ..bad((record.number, record.line), Some(record.id.clone()), kind, rest) })
}

fn bad((record, line): Place, id: Option<String>, kind: ErrorKind, message: &str) -> RecordError {
    RecordError { record, line, id, kind, field: None, message: message.into() }
}

/// What the head says of a record: of two classes the probability of class 1, of more each class's own.
fn add_probability(prediction: &mut Prediction, logits: &[f32], labels: &Labels) {
    let logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let probabilities = softmax(&logits);
    if labels.are_two() {
        prediction.probability = probabilities.get(1).copied();
    } else {
        // Of the probabilities, as whoever reads the file would find it: they may be equal where the logits are not.
        let predicted = Some(Class::of_largest(probabilities.iter().copied()));
        prediction.over_classes =
            Some(OverClasses { probabilities: Some(probabilities), calibrated_probabilities: None, predicted });
    }
    prediction.logits = Some(logits);
}
