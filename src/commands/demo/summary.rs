//! What a demonstration says at its end: one table, one note, where the files are.

use std::path::Path;

use serde_json::json;

use crate::{
    commands::{Context, eval::Outcome, output},
    data::{self, Needs, Prediction, Predictions, Record},
    demo::notes::SyntheticNote,
    error::{Error, Result},
    generate::construct::Statistics,
    labels::Class,
    metrics::{AnyEvaluation, Evaluation, Metric, Options, Sample, evaluate},
    report::{
        Table,
        compare::ROWS,
        table::{cell, number},
    },
};

/// Everything the last page needs.
pub(super) struct Summary<'a> {
    pub context: &'a Context,
    pub constructed: Statistics,
    pub scored: Outcome,
    /// The test notes with their true risks.
    pub test: Vec<SyntheticNote>,
    /// Notes without a label, and what was predicted of them.
    pub input: &'a Path,
    pub output: &'a Path,
}

impl Summary<'_> {
    pub fn print(&self) -> Result<()> {
        let reachable = reachable(&self.test);
        if self.context.json {
            let seconds = self.context.started.elapsed().map(|elapsed| elapsed.as_secs_f64()).unwrap_or_default();
            let all = json!({
                "run": self.context.run_dir, "seconds": seconds, "constructed": self.constructed,
                "before": self.scored.base, "after": self.scored.evaluation, "reachable": reachable,
            });
            return output::line(&all.to_string());
        }
        if let Some(curve) = &self.scored.curve {
            output::line(&curve.markdown())?;
        }
        output::line(&self.table(&reachable).markdown())?;
        self.example()?;
        self.files()
    }

    /// The columns of the paper's Tables 2 and 3, as rows.
    fn table(&self, reachable: &Evaluation) -> Table {
        let title = format!("Synthetic notes, test split: {} notes, {} deaths", self.test.len(), positives(&self.test));
        let mut table = Table::new("demo", &title, &["Metric", "Before tuning", "After tuning", "Best reachable"]);
        let shown = |metric: Option<&Metric>| metric.map_or_else(|| number(None), cell);
        for (_, name, pick) in ROWS {
            let best = number(pick(reachable).and_then(|metric| metric.value));
            table.row([
                name.to_owned(),
                shown(self.scored.base.as_ref().and_then(AnyEvaluation::two).and_then(pick)),
                shown(self.scored.evaluation.two().and_then(pick)),
                best,
            ]);
        }
        table.note(
            "95 % intervals in parentheses. Best reachable: the true risk that each label was drawn with, as the \
            probability. \
             Before tuning the head is random and the text is the embedded model's own.",
        );
        let kept = self.constructed.generated.total();
        let first = self.constructed.kept_at_trial.get(&1).copied().unwrap_or(0);
        table.note(format!(
            "Constructed: {kept} of {} train notes explained, {first} of them at the first trial.",
            self.constructed.original.total()
        ));
        table
    }

    /// A note, its probability and its explanation.
    fn example(&self) -> Result<()> {
        let data = &self.context.config.data;
        let needs = Needs {
            label: false,
            every_class: false,
            expect: None,
            ..Needs::split(data, "test", &["text".to_owned()])
        };
        let records = data::load(data, self.input, &needs)?;
        let predictions = Predictions::read(&[self.output.to_owned()], &self.context.config.task.labels, &[])?;
        let parsable = |(_, prediction): &(&Record, &Prediction)| prediction.parsable == Some(true);
        let Some((record, prediction)) = records.iter().zip(&*predictions).find(parsable) else {
            return output::line("No new note got a parsable answer.\n");
        };
        let note = record.field("text").unwrap_or_default().replace('\n', "\n  | ");
        let explanation = prediction.explanation.as_deref().unwrap_or_default();
        let verdict =
            prediction.verbalized_label.map_or("–", |label| self.context.config.task.labels[label.index()].as_str());
        let probability = number(prediction.probability);
        output::line(&format!(
            "**One new note, {}**\n\n  | {note}\n\nprobability of death  {probability}\nexplanation           \
            {explanation}\nverdict               {verdict}\n",
            record.id
        ))
    }

    fn files(&self) -> Result<()> {
        let dir = self.context.run_dir.display();
        let seconds = self.context.started.elapsed().map_err(|_| Error::run("the clock went backwards"))?.as_secs();
        output::line(&format!(
            "Finished in {}. In {dir}:\n\
             \x20 demo.toml, data/, prompts/, model/   a config, records and a model to go on with\n\
             \x20 construct/                           explanations, and the notes that got none\n\
             \x20 checkpoints/, best.json              an adapter and head an epoch, the best one named\n\
             \x20 eval/test/                           metrics.json, tables/, figures/\n\
             \x20 predictions.jsonl                    probability and explanation of data/new.jsonl\n\
             Report: {dir}/eval/test/report.html\n\
             Train on them by hand: clsgen train --config {dir}/demo.toml --run runs/mine --set \
             data.train=construct/train.jsonl",
            duration(seconds)
        ))
    }
}

/// `6 min 8 s`, `32 s`, `1 h 2 min`.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn positives(notes: &[SyntheticNote]) -> usize {
    notes.iter().filter(|note| note.record.label == Some(Class::ONE)).count()
}

/// What a reader who knew the true risk of every note would reach on these labels.
fn reachable(notes: &[SyntheticNote]) -> Evaluation {
    let mut sample = Sample::new();
    for note in notes {
        sample.push(note.probability, note.record.label == Some(Class::ONE), None, None);
    }
    sample.set_silent();
    evaluate(&sample, None, &Options::default())
}
