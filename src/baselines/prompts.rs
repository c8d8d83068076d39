//! The prompt files of baselines and judge: the paper's for its two tasks, the user's own for any other.

use std::path::Path;

use serde::Deserialize;

use super::prompting::probability_line;
use crate::{
    error::{Error, Result},
    labels::Labels,
    prompt::{PromptFormat, PromptTemplate, Verdict, parse_prompt_file, read_prompt_file},
};

const VERBALIZED_LCD: &str = include_str!("../../prompts/baselines/verbalized-lcd.toml");
const VERBALIZED_CLINIFACT: &str = include_str!("../../prompts/baselines/verbalized-clinifact.toml");
const VERBALIZED_CLASSES: &str = include_str!("../../prompts/baselines/verbalized-classes.toml");
const INCONSISTENCY_LCD: &str = include_str!("../../prompts/judge-inconsistency-lcd.toml");
const INCONSISTENCY_CLINIFACT: &str = include_str!("../../prompts/judge-inconsistency-clinifact.toml");
const READABILITY: &str = include_str!("../../prompts/judge-readability.toml");

/// A task as its baselines see it.
#[derive(Debug, Clone, Copy)]
pub struct TaskPrompt<'a> {
    /// What the task calls its classes: they tell which of the paper's tasks this is.
    pub labels: &'a Labels,
    /// What `{task_days}` stands for.
    pub days: u32,
}

/// `system` and `question`, which take the place of the task's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionFile {
    system: String,
    question: String,
}

/// `system` and `template`, a whole message.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct JudgeFile {
    system: String,
    template: String,
}

/// The days that the task's own system message or question speaks of (`within 90 days`, on one line), else `horizon`.
pub fn task_days(template: Option<&PromptTemplate>, horizon: u32) -> u32 {
    let said = |text: &String| {
        text.match_indices("within ").find_map(|(at, word)| {
            let (number, rest) = text[at + word.len()..].split_once(' ')?;
            number.parse().ok().filter(|_| rest.starts_with("days"))
        })
    };
    template.and_then(|template| said(&template.system).or_else(|| said(&template.question))).unwrap_or(horizon)
}

/// The verbalized-probability prompt (paper §5.2): the task's own document under another instruction, without a
/// generation prefix.
///
/// `file` is `eval.verbalized_prompt`; without it the labels choose between the paper's two tasks. Of more than two
/// classes, and of these alone, one prompt serves any task: `{labels}` are its classes, `{question}` is its own
/// question (its system message where it asks there) and `{answer}` the lines that
/// [`super::prompting::probabilities`] reads. What else stands in braces must be a field of the task's own
/// prompt: no other is read of a record.
pub fn verbalized(task: TaskPrompt<'_>, own: &PromptTemplate, file: Option<&Path>) -> Result<PromptTemplate> {
    let two = task.labels.are_two();
    let text = match file {
        None if !two => VERBALIZED_CLASSES.to_owned(),
        _ => text(task, file, "eval.verbalized_prompt", [VERBALIZED_LCD, VERBALIZED_CLINIFACT])?,
    };
    let QuestionFile { system, question } = read(&text, file, "system and question")?;
    let fill = |text: String| if two { text } else { of_classes(&text, task.labels, own) };
    let template = PromptTemplate { system: fill(system), question: fill(question), ..own.clone() }.without_prefix();
    template.check().map_err(|error| error.context(name(file)))?;
    let known = own.fields();
    match template.fields().into_iter().find(|field| !known.contains(field)) {
        None => Ok(template),
        Some(field) => {
            Err(Error::usage(format!("{}: `{{{field}}}` is no field of the task's own prompt", name(file))).hint(
                format!("its fields are {}; a label with a word in braces is taken for a field too", known.join(", ")),
            ))
        }
    }
}

/// `text` with what it says of the classes filled in; the task's own question comes last, being no text of ours.
fn of_classes(text: &str, labels: &Labels, own: &PromptTemplate) -> String {
    let lines: Vec<String> = labels.iter().map(|label| probability_line(label, "<integer>")).collect();
    let asked = if own.question.is_empty() { &own.system } else { &own.question };
    text.replace("{labels}", &labels.join(", ")).replace("{answer}", &lines.join("\n")).replace("{question}", asked)
}

/// The judge's question about what `{explanation}` implies (paper A.4.1). `file` is `eval.judge_prompt`, which labels
/// other than the paper's need (exit 2).
pub fn inconsistency(task: TaskPrompt<'_>, file: Option<&Path>, format: PromptFormat) -> Result<PromptTemplate> {
    let text = text(task, file, "eval.judge_prompt", [INCONSISTENCY_LCD, INCONSISTENCY_CLINIFACT])?;
    judgement(&text, file, "explanation", format)
}

/// The judge's question about whether `{text}` can be read (paper A.4.1).
pub fn readability(format: PromptFormat) -> Result<PromptTemplate> {
    judgement(READABILITY, None, "text", format)
}

fn judgement(text: &str, file: Option<&Path>, document: &str, format: PromptFormat) -> Result<PromptTemplate> {
    let JudgeFile { system, template } = read(text, file, "system and template")?;
    let bare = PromptTemplate {
        system,
        user: template,
        question: String::new(),
        prefix: String::new(),
        // Never learned, but part of what a judge's answers were made from; its answer is read by `verdict`.
        response: Verdict::default().response("{explanation}", "{label}"),
        verdict: Verdict::default().template(),
        document: document.to_owned(),
        format,
        date: None,
    };
    if !bare.fields().contains(&bare.document) {
        return Err(Error::usage(format!("{}: key template has no `{{{document}}}`", name(file)))
            .hint(format!("`{{{document}}}` stands for what is judged")));
    }
    bare.check().map_err(|error| error.context(name(file)))?;
    Ok(bare)
}

/// The file's text, or the built-in one of this task, with the days filled in.
fn text(task: TaskPrompt<'_>, file: Option<&Path>, key: &str, [lcd, clinifact]: [&str; 2]) -> Result<String> {
    let names: Vec<&str> = task.labels.iter().map(String::as_str).collect();
    let text = match (file, &names[..]) {
        (Some(path), _) => read_prompt_file(path, key)?,
        (None, ["0:alive", "1:death"]) => lcd.to_owned(),
        (None, ["FALSE", "TRUE"]) => clinifact.to_owned(),
        (None, _) => {
            let quoted: Vec<String> = names.iter().map(|label| format!("{label:?}")).collect();
            let labels = quoted.join(" and ");
            return Err(Error::usage(format!("there is no built-in prompt for the labels {labels}"))
                .hint(format!("write one (see prompts/) and name it: --set {key}=FILE")));
        }
    };
    Ok(text.replace("{task_days}", &task.days.to_string()))
}

fn read<T: serde::de::DeserializeOwned>(text: &str, file: Option<&Path>, keys: &str) -> Result<T> {
    parse_prompt_file(&name(file), text, &format!("this prompt file has the keys {keys}"))
}

fn name(file: Option<&Path>) -> String {
    file.map_or_else(|| "built-in prompt".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> PromptTemplate {
        PromptTemplate {
            system: "Classify mortality within 90 days.".into(),
            user: "Note: {document}".into(),
            question: "Dead?".into(),
            prefix: "Reasoning: ".into(),
            response: String::new(),
            verdict: Verdict::default().template(),
            document: "text".into(),
            format: PromptFormat::Plain,
            date: None,
        }
    }

    /// What the paper prints (A.4, A.4.1), copied by hand: wrapped lines joined, quotes straight.
    fn papers(name: &str) -> String {
        let fixture = include_str!("../../tests/golden/prompts_of_the_paper.txt");
        let start = format!("=== {name}\n");
        let begin = fixture.find(&start).expect(name) + start.len();
        let end = fixture[begin..].find("\n===").map_or(fixture.len(), |length| begin + length);
        fixture[begin..end].to_owned()
    }

    #[test]
    fn prompts_are_the_papers_to_the_byte() {
        let labels = Labels::two("0:alive", "1:death");
        let template = verbalized(TaskPrompt { labels: &labels, days: 30 }, &own(), None).unwrap();
        assert_eq!(template.system, papers("verbalized system").replace("{task_days}", "30"));
        assert_eq!(template.question, papers("verbalized question").replace("{task_days}", "30"));
        assert_eq!((template.prefix.as_str(), template.user.as_str()), ("", "Note: {document}"));
        let labels = Labels::two("FALSE", "TRUE");
        let judge = inconsistency(TaskPrompt { labels: &labels, days: 30 }, None, PromptFormat::Chat).unwrap();
        assert_eq!((judge.system, judge.user), (papers("inconsistency system"), papers("inconsistency template")));
        let judge = readability(PromptFormat::Chat).unwrap();
        assert_eq!((judge.system, judge.user), (papers("readability system"), papers("readability template")));
    }

    #[test]
    fn lcds_judge_has_the_form_of_clinifacts() {
        let ask = |zero, one| {
            let labels = Labels::two(zero, one);
            inconsistency(TaskPrompt { labels: &labels, days: 90 }, None, PromptFormat::Chat).unwrap()
        };
        let lcd = ask("0:alive", "1:death");
        let clinifact = ask("FALSE", "TRUE");
        assert_eq!(lcd.system, clinifact.system);
        let made = clinifact.user.replace("the claim is supported", "the patient dies out-of-hospital within 90 days");
        assert_eq!(lcd.user, made.replace(": TRUE", ": 1:death").replace(": FALSE", ": 0:alive"));
    }

    #[test]
    fn days_are_those_the_tasks_prompt_speaks_of() {
        assert_eq!(task_days(Some(&own()), 30), 90);
        assert_eq!(task_days(Some(&PromptTemplate { system: "within reach".into(), ..own() }), 30), 30);
        assert_eq!(task_days(None, 60), 60);
    }

    #[test]
    fn any_task_of_more_classes_is_asked_for_a_line_each() {
        let labels = Labels::new(["worse", "the {1}", "better"].map(String::from).to_vec()).unwrap();
        let task = TaskPrompt { labels: &labels, days: 30 };
        let own = PromptTemplate { question: "Worse, or {answer}?".into(), ..own() };
        let template = verbalized(task, &own, None).unwrap();
        assert!(template.system.contains("each of these classes: worse, the {1}, better."), "{}", template.system);
        let question = template.question;
        assert!(question.starts_with("Worse, or {answer}?\n\nDo not answer with one class"), "{question}");
        let lines = labels.iter().map(|label| format!("\nProbability of {label}: <integer>")).collect::<String>();
        assert!(question.ends_with(&format!("in the format:\n{lines}")), "{question}");
        assert_eq!((template.prefix.as_str(), template.user.as_str()), ("", "Note: {document}"));
        // Without a question of its own the task is told by its system message; a file has the same placeholders.
        let asks_first = PromptTemplate { question: String::new(), ..own };
        assert!(
            verbalized(task, &asks_first, None).unwrap().question.starts_with("Classify mortality within 90 days.")
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "system = 'One of {labels}'\nquestion = '{answer}'").unwrap();
        let template = verbalized(task, &asks_first, Some(file.path())).unwrap();
        assert_eq!((template.system, template.question), ("One of worse, the {1}, better".into(), lines[1..].into()));
    }

    #[test]
    fn a_field_that_is_not_read_is_refused_at_once() {
        let labels = Labels::new(["worse", "the {labels}", "better"].map(String::from).to_vec()).unwrap();
        let error = verbalized(TaskPrompt { labels: &labels, days: 30 }, &own(), None).unwrap_err();
        assert_eq!((error.exit_code(), error.hint_text().unwrap().contains("text")), (2, true), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "system = 'Of age {age}'\nquestion = 'Dead?'").unwrap();
        let labels = Labels::two("no", "yes");
        let error = verbalized(TaskPrompt { labels: &labels, days: 30 }, &own(), Some(file.path())).unwrap_err();
        assert!(error.to_string().contains("`{age}` is no field of the task's own prompt"), "{error}");
    }

    #[test]
    fn other_labels_need_a_file() {
        let labels = Labels::two("no", "yes");
        let error = verbalized(TaskPrompt { labels: &labels, days: 30 }, &own(), None).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint_text().unwrap().contains("eval.verbalized_prompt"));
    }
}
