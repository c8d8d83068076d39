//! Algorithm 1 with a scripted teacher: a fixed list of outputs a record, and a count of what was asked of it.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    config::Truncate,
    fingerprint::Fingerprint,
    generate::{Finish, tests::byte_tokenizer},
    labels::{Class, Labels},
    prompt::{PromptFormat, PromptTemplate, Verdict},
};

/// Says the script's outputs in turn, `|` at the end of one meaning that the cap cut it; records how many were asked
/// for.
struct Script {
    outputs: Vec<Vec<&'static str>>,
    asked: RefCell<Vec<usize>>,
}

impl Teacher for Script {
    fn answer(
        &self,
        requests: &mut dyn Iterator<Item = Request>,
        accept: &mut Accept<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        for (index, request) in requests.enumerate() {
            let mut generations = Vec::new();
            for sample in 0..request.samples {
                let text = self.outputs[index][sample];
                let finish = if text.ends_with('|') { Finish::Length } else { Finish::Stop };
                let generation = Generation {
                    ids: Vec::new(),
                    text: text.trim_end_matches('|').into(),
                    finish,
                    generated_tokens: 10,
                };
                let done = accept(index, sample, &generation);
                generations.push(generation);
                if done {
                    break;
                }
            }
            self.asked.borrow_mut().push(generations.len());
            emit(Completed { generations, ..Completed::of(index) })?;
        }
        Ok(())
    }
}

fn base(max_output_tokens: usize) -> Prompter {
    let template = PromptTemplate {
        system: "S".into(),
        user: "{text}".into(),
        question: "Q".into(),
        prefix: "Reasoning: ".into(),
        response: String::new(),
        verdict: Verdict::default().template(),
        document: "text".into(),
        format: PromptFormat::Plain,
        date: None,
    };
    let labels = Labels::two("0:alive", "1:death");
    Prompter::new(template, Arc::new(byte_tokenizer()), labels, 200, max_output_tokens, Truncate::Tail).unwrap()
}

fn record(number: usize, label: u8) -> Record {
    let fields =
        BTreeMap::from([("text".to_owned(), "An old man came home from hospital after a long stay.".to_owned())]);
    Record {
        id: format!("r{number}"),
        fields,
        label: Class::new(usize::from(label)),
        explanation: None,
        group: None,
        columns: BTreeMap::new(),
        number,
        line: None,
    }
}

fn run(outputs: Vec<Vec<&'static str>>, labels: &[u8], rules: Rules) -> (Vec<Explained>, Vec<usize>) {
    let base = base(80);
    let trials = outputs[0].len();
    let script = Script { outputs, asked: RefCell::default() };
    let records: Vec<Record> = labels.iter().enumerate().map(|(i, &label)| record(i + 1, label)).collect();
    let records: Vec<&Record> = records.iter().collect();
    let method = Method {
        trials,
        trials_before: 0,
        max_new_tokens: 50,
        sampling: Sampling::greedy(),
        rules,
        base: &base,
        opened_thought: false,
    };
    let mut explained = Vec::new();
    explain(&script, &records, &|_| Ok(Tokens { ids: vec![1], truncated_tokens: 0 }), method, &mut |_, done| {
        explained.push(done);
        Ok(())
    })
    .unwrap();
    (explained, script.asked.into_inner())
}

const ANY: Rules = Rules { min_words: 1, max_copied: 1.0 };

#[test]
fn the_first_valid_and_correct_trial_is_kept_and_ends_the_record() {
    let outputs = vec![
        vec!["Frail.\n\nClassification: 1:death", "never asked", "never asked"],
        vec!["no verdict", "Well.\n\nClassification: 0:alive", "Failing.\n\nClassification: 1:death"],
        vec!["no verdict", "Well.\n\nClassification: 0:alive", "again none"],
    ];
    let (explained, asked) = run(outputs, &[1, 1, 1], ANY);
    assert_eq!(asked, [1, 3, 3], "no generation after success, none missing before it");
    let kept = |i: usize| explained[i].kept.as_ref().map(|kept| (kept.trial, kept.explanation.as_str()));
    assert_eq!([kept(0), kept(1), kept(2)], [Some((1, "Frail.")), Some((3, "Failing.")), None]);
    assert_eq!(explained[1].failures, [Failure::Unparsable, Failure::WrongLabel]);
    assert_eq!(explained[2].failures, [Failure::Unparsable, Failure::WrongLabel, Failure::Unparsable]);
    assert_eq!(explained[2].generated_tokens, 30);
}

#[test]
fn every_reason_to_refuse_a_trial_is_told() {
    let outputs = vec![vec![
        "rambling",
        "and then|",
        "Well.\n\nClassification: 0:alive",
        "Frail.\n\nClassification: 1:death",
        "An old man came home from hospital after a long stay.\n\nClassification: 1:death",
        "His heart and both of his kidneys fail, and nobody at home can nurse him.\n\nClassification: 1:death",
        "Heart and kidneys fail together.\n\nClassification: 1:death",
    ]];
    let (explained, asked) = run(outputs, &[1], Rules { min_words: 2, max_copied: 0.8 });
    use Failure::{NearDuplicate, TooLong, TooShort, Truncated, Unparsable, WrongLabel};
    assert_eq!(explained[0].failures, [Unparsable, Truncated, WrongLabel, TooShort, NearDuplicate, TooLong]);
    assert_eq!(explained[0].kept.as_ref().map(|kept| kept.trial), Some(7));
    assert_eq!(asked, [7]);
}

#[test]
fn a_log_gives_back_what_was_filed_and_refuses_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.progress.jsonl");
    let settings = |seed: u64| Fingerprint::of_contents(&[("train.seed", seed.into()), ("teacher", "t".into())]);
    let failed =
        Explained { kept: None, failures: vec![Failure::WrongLabel], generated_tokens: 4, ..Explained::default() };
    let kept = Some(AcceptedTrial { trial: 2, explanation: "because".into() });
    let told = Explained { kept, failures: vec![], generated_tokens: 3, truncated_tokens: 5 };
    let mut progress = Progress::open(&path, &settings(1)).unwrap();
    progress.add(7, false, failed).unwrap();
    assert!(progress.tried(7) && progress.wants_rationalization(7) && !progress.tried(8));
    progress.add(7, true, told).unwrap();
    drop(progress);
    let progress = Progress::open(&path, &settings(1)).unwrap();
    let both = progress.explained(7).unwrap();
    assert_eq!(
        (both.kept.unwrap().trial, both.failures.len(), both.generated_tokens, both.truncated_tokens),
        (2, 1, 7, 5)
    );
    assert!(!progress.wants_rationalization(7));
    let error = Progress::open(&path, &settings(2)).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("train.seed (1 → 2)") && !error.to_string().contains("teacher"), "{error}");
}

#[test]
fn a_split_is_written_in_input_order_with_its_dropped_list() {
    let dir = tempfile::tempdir().unwrap();
    let records = [record(1, 1), record(2, 0)];
    let explained = |number: usize| {
        let kept = (number == 1).then(|| AcceptedTrial { trial: 2, explanation: "because".into() });
        Some(Explained { kept, failures: vec![Failure::Unparsable], generated_tokens: 1, ..Explained::default() })
    };
    for (on_fail, lines) in [(crate::config::OnFail::Drop, 1), (crate::config::OnFail::LabelOnly, 2)] {
        let path = dir.path().join(format!("{lines}.jsonl"));
        let finished =
            output::write_split(&path, "train", &records, explained, on_fail, &Labels::two("0:alive", "1:death"))
                .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), lines);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&first["id"], &first["trial"], &first["explanation"]),
            (&"r1".into(), &2.into(), &"because".into())
        );
        assert_eq!(
            (finished.statistics.generated.counts(), finished.statistics.failed.counts()),
            (&[0, 1][..], &[1, 0][..])
        );
        assert_eq!(finished.dropped[0]["trials"], serde_json::json!(["unparsable"]));
    }
}
