//! Token probability of the label (SPEC A29): what the base model would give the labels, without writing a word.
//!
//! The prompt is the task's own with `Classification:` (the opening of its verdict) in place of its generation prefix.
//! Every label is read as it would follow it, ` <label>` tokenised apart (in a byte-level BPE a word carries its
//! leading space; a prefix that ended in one would leave a lone-space token that no such text has). With `l_c` the sum
//! of the log-probabilities of label c's tokens, `probability = softmax(l)_1` (of more than two classes, all of
//! softmax(l)). Sums are not divided by length: they are what the model would have to write.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{Line, Run};
use crate::{
    data::Record,
    error::Result,
    generate::{Budget, Engine, Request, Sampling, remote::Remote},
    metrics::softmax,
    model::Model,
    prompt::{PromptTemplate, Prompter},
    remote::{Pool, Trouble},
    rng,
};

/// The task's prompt, its prefix replaced by the opening of a verdict.
pub fn token_prompt(own: &PromptTemplate) -> Result<PromptTemplate> {
    Ok(PromptTemplate { prefix: own.verdict()?.opening().to_owned(), ..own.clone() })
}

/// The probability of each class (of two: of class 1) for each record, in turn. `prompter` holds a [`token_prompt`];
/// `batch_tokens` bounds cached tokens.
pub fn ask_tokens(
    model: &Model,
    prompter: &Prompter,
    batch_tokens: Option<usize>,
    records: &[Record],
    emit: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<()> {
    let labels = endings(prompter)?;
    // Lines under way, complete but for what the model says: answers come back in the records' order.
    let under_way = RefCell::new(VecDeque::new());
    let requests = records.iter().map(|record| {
        let prompt = prompter.prompt(record)?;
        under_way.borrow_mut().push_back(Line {
            id: record.id.clone(),
            label: record.label,
            prompt_tokens: prompt.ids.len(),
            truncated_tokens: prompt.truncated_tokens,
            runs: Vec::new(),
        });
        Ok(Request {
            key: rng::hash_name(&record.id),
            prompt: prompt.ids,
            samples: 0,
            max_new_tokens: 0,
            sampling: Sampling::greedy(),
            want_probability: false,
            continuations: labels.clone(),
        })
    });
    let budget = Budget::beside(&model.llama, prompter.max_input_tokens(), batch_tokens);
    Engine::new(model, prompter.tokenizer(), budget).run_in_order(requests, &mut |completed| {
        let Some(line) = under_way.borrow_mut().pop_front() else { return Ok(()) };
        emit(Line { runs: vec![Run::of_probabilities(softmax(&completed.log_probabilities))], ..line })
    })
}

/// Token ids of ` <label>`, by class.
fn endings(prompter: &Prompter) -> Result<Vec<Vec<u32>>> {
    prompter.labels().iter().map(|label| prompter.tokenizer().encode(&prompter.verdict().ending(label))).collect()
}

/// The same of a model on a server, which is sent the prompt with each label behind it; `emit` gets the lines in the
/// order of the records. A record without an answer ends it, after those before.
pub fn ask_server(
    remote: &Remote,
    prompter: &Prompter,
    records: &[Record],
    emit: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<()> {
    let server = remote.server();
    let labels = Arc::new(endings(prompter)?);
    let mut pool: Pool<Result<Vec<f64>, Trouble>> = Pool::new(server)?;
    let mut records = records.iter().enumerate();
    let mut under_way: VecDeque<Line> = VecDeque::new();
    let mut first = 0;
    let mut done = BTreeMap::new();
    loop {
        while pool.has_room() && under_way.len() < 4 * server.concurrency() {
            let Some((index, record)) = records.next() else { break };
            let prompt = prompter.prompt(record)?;
            under_way.push_back(Line {
                id: record.id.clone(),
                label: record.label,
                prompt_tokens: prompt.ids.len(),
                truncated_tokens: prompt.truncated_tokens,
                runs: Vec::new(),
            });
            let labels = labels.clone();
            pool.ask((index, 0), move |server| {
                let score = |label: &Vec<u32>| {
                    let numbers = server.log_probabilities(&[&prompt.ids[..], label].concat(), label.len())?;
                    Ok(numbers.iter().sum())
                };
                labels.iter().map(score).collect()
            })?;
        }
        if pool.is_idle() {
            return Ok(());
        }
        let ((index, _), answer) = pool.wait()?;
        done.insert(index, answer);
        while let Some(answer) = done.remove(&first) {
            let Some(mut line) = under_way.pop_front() else { break };
            first += 1;
            let named = |trouble: Trouble| {
                let place = server.place();
                trouble.into_error(place.key(), place.url()).context(format!("record {}", line.id))
            };
            line.runs = vec![Run::of_probabilities(softmax(&answer.map_err(named)?))];
            emit(line)?;
        }
    }
}
