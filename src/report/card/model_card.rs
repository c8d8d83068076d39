//! `model-card.md`: a model card as the Hugging Face hub reads it, front matter first.

use std::fmt::Write;

use super::{Facts, MARK, plain};

/// A number of the front matter, as the hub's `model-index` wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The hub's name of the metric.
    pub r#type: &'static str,
    /// Ours.
    pub name: String,
    /// To the last digit of `metrics.json`.
    pub value: f64,
}

/// What the front matter says beside what is a [`Facts`].
#[derive(Debug, Clone)]
pub struct Card<'a> {
    /// `task.name`
    pub task: &'a str,
    /// What was scored.
    pub title: &'a str,
    /// The scored split, and the file that holds it.
    pub split: &'a str,
    /// Its name.
    pub data: String,
    /// The base, where it is known by a hub id.
    pub base: Option<String>,
    /// The checkpoint is an adapter in PEFT's format.
    pub adapter: bool,
    /// The checkpoint was trained by this program.
    pub trained: bool,
    /// Metrics of the scored split that have a value.
    pub scores: Vec<Score>,
}

/// Sections of the body: a heading, the facts under it, what is wanted where there are none.
const SECTIONS: [(&str, &[&str], &str); 12] = [
    ("Model", &["model", "building", "selection"], "which model this is, and how it was made"),
    ("Intended use", &[], "for whom and for what the model is meant, under whose oversight, and what it is not for"),
    ("Data", &["sources", "counts", "missing", "reading"], "the data it was made and scored with"),
    ("What the splits share", &["leakage"], "whether records, patients or texts of one split stand in another"),
    ("Prompt and decoding", &["prompt", "decoding"], "the prompt, and how text is generated"),
    ("Output", &["output", "thresholds", "calibration"], "what the model puts out, and how it is to be used"),
    ("Results", &["measures", "results", "calibrated", "smooth", "operating"], "how well it does"),
    ("Explanations", &["text", "judge"], "how good its explanations are"),
    ("Groups of people", &["subgroups"], "how well it does in groups of people (eval.subgroups measures them)"),
    ("Limits", &["limits"], "where it fails, and what is not known of it"),
    ("Compute", &["compute"], "machines, hours, energy"),
    ("Program", &["program"], "the program that made it"),
];

impl Card<'_> {
    /// The page.
    pub fn page(&self, facts: &Facts) -> String {
        let mut page = self.front_matter();
        let _ = write!(page, "\n# {}\n\n", plain(self.task));
        page += facts.get("stages").unwrap_or_default();
        let _ = write!(
            page,
            "\n\nWhat was scored: {}. This card repeats what the files of the run state.\n",
            plain(self.title)
        );
        for (heading, names, wanted) in SECTIONS {
            let _ = write!(page, "\n## {heading}\n\n");
            let told: Vec<&str> = names.iter().filter_map(|name| facts.get(name)).collect();
            match &told[..] {
                [] => _ = writeln!(page, "{MARK}{wanted}"),
                told => page += &(told.join("\n\n") + "\n"),
            }
        }
        page
    }

    /// YAML between two rules. Strings stand as JSON has them, which YAML reads alike.
    fn front_matter(&self) -> String {
        let mut yaml = format!("---\n# {MARK}license, language, datasets\n");
        match &self.base {
            Some(base) => _ = writeln!(yaml, "base_model: {}", quoted(base)),
            None => _ = writeln!(yaml, "# {MARK}base_model, its name on the hub"),
        }
        if self.adapter {
            yaml += "library_name: peft\n";
        }
        yaml += "pipeline_tag: text-classification\ntags:\n";
        let tags = ["clinical", "text-classification"].into_iter().chain(self.trained.then_some("clsgen"));
        tags.chain(self.adapter.then_some("lora")).for_each(|tag| yaml += &format!("- {tag}\n"));
        if self.scores.is_empty() {
            return yaml + "---\n";
        }
        let _ = write!(
            yaml,
            "model-index:\n- name: {}\n  results:\n  - task:\n      type: text-classification\n    dataset:\n      \
             name: {}\n      type: {}\n      split: {}\n    metrics:\n",
            quoted(self.task),
            quoted(self.task),
            quoted(&self.data),
            quoted(self.split)
        );
        for Score { r#type, name, value } in &self.scores {
            let _ = write!(
                yaml,
                "    - type: {}\n      name: {}\n      value: {}\n",
                r#type,
                quoted(name),
                yaml_number(*value)
            );
        }
        yaml + "---\n"
    }
}

/// A number that YAML 1.1 reads as one: with a point, whatever its exponent.
fn yaml_number(value: f64) -> String {
    let shown = format!("{value:?}");
    match shown.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => shown,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_is_yaml_of_numbers_and_quoted_text() {
        let card = Card {
            task: "a: \"b\"",
            title: "t",
            split: "test",
            data: "x.jsonl".into(),
            base: Some("org/model".into()),
            adapter: false,
            trained: true,
            scores: vec![Score { r#type: "brier_score", name: "Brier".into(), value: 1e-7 }],
        };
        let page = card.page(&Facts::default());
        assert!(page.starts_with("---\n# ") && page.contains("\nbase_model: \"org/model\"\npipeline_tag: "), "{page}");
        assert!(page.contains("- name: \"a: \\\"b\\\"\"\n") && page.contains("      value: 1.0e-7\n---\n"), "{page}");
        assert_eq!([yaml_number(0.25), yaml_number(1.5e-9), yaml_number(1.0)], ["0.25", "1.5e-9", "1.0"]);
        assert!(page.contains("## Limits\n\nto be written by you: "), "{page}");
    }
}
