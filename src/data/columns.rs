//! Which column holds which field, and the rules that turn a row into a [`Record`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config,
    error::{Error, Result},
    foreign,
    labels::{Class, Labels},
};

use super::{
    ErrorKind, Record, RecordError, names,
    row::{Cell, RawRecord},
};

/// Fields with a meaning of their own; every other name in `data.fields` is a text field.
const RESERVED: [&str; 4] = ["id", "label", "explanation", "group"];

/// What a file's own conventions say about its columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// Columns named as the fields are.
    Canonical,
    /// CliniFact's repository: 1 = TRUE → 1, 0 and 2 → 0; of three classes the file's own labels all the same.
    Clinifact,
    /// The same with its own three labels: inconclusive, evidence, not enough information.
    Clinifact3,
    /// Evidence Inference, whose `label_code` is −1 (decreased), 0 or 1 (increased).
    EvidenceInference,
    /// The LCD benchmark, with this horizon in days.
    Lcd(u32),
}

impl Layout {
    /// The column of a field that `data.fields` does not map.
    pub fn column(self, field: &str) -> String {
        match (self, field) {
            (Self::Clinifact | Self::Clinifact3, "id") => "index".into(),
            (Self::Clinifact | Self::Clinifact3, "group") => "nctId".into(),
            (Self::Clinifact | Self::Clinifact3, "abstract") => "article_abstract".into(),
            (Self::EvidenceInference, "label") => "label_code".into(),
            (Self::EvidenceInference, "group") => "pmcid".into(),
            (Self::Lcd(days), "label") => format!("out_hospital_mortality_{days}"),
            _ => field.into(),
        }
    }

    /// Whether a header is CliniFact's; of its two layouts a task of two classes has the one that makes two of three.
    pub fn of_header(header: &[String], labels: &Labels) -> Self {
        let has = |name: &str| header.iter().any(|column| column == name);
        if !["index", "nctId", "claim", "article_abstract"].into_iter().all(has) || has("id") {
            Self::Canonical
        } else if labels.are_two() {
            Self::Clinifact
        } else {
            Self::Clinifact3
        }
    }
}

/// A text field, its column, and whether a record may lack it.
struct TextField {
    name: String,
    column: String,
    required: bool,
}

/// The columns of a file, resolved.
pub(super) struct Columns {
    layout: Layout,
    /// A label is written as text (CSV), so `1` is an integer though it comes as a string.
    textual: bool,
    labels: Labels,
    reserved: [String; 4],
    /// Fields that `data.fields` names.
    mapped: BTreeSet<String>,
    text: Vec<TextField>,
    /// Columns that are carried along and never shown to a model (`eval.subgroups`).
    carried: Vec<String>,
}

impl Columns {
    /// `fields` are the text fields that every record must have; empty means the layout's own.
    pub fn new(data: &config::Data, layout: Layout, textual: bool, fields: &[String]) -> Self {
        let column = |field: &str| data.fields.get(field).cloned().unwrap_or_else(|| layout.column(field));
        let own: &[&str] = match layout {
            Layout::Clinifact | Layout::Clinifact3 => &["claim", "abstract"],
            Layout::EvidenceInference => &["text", "intervention", "comparator", "outcome"],
            Layout::Canonical | Layout::Lcd(_) => &["text"],
        };
        let mut names: BTreeMap<String, bool> = fields.iter().map(|name| (name.clone(), true)).collect();
        if names.is_empty() {
            names.extend(own.iter().map(|name| ((*name).to_owned(), true)));
        }
        for name in data.fields.keys().filter(|name| !RESERVED.contains(&name.as_str())) {
            names.entry(name.clone()).or_insert(false);
        }
        let text =
            names.into_iter().map(|(name, required)| TextField { column: column(&name), name, required }).collect();
        Self {
            layout,
            textual,
            labels: data.labels.clone(),
            reserved: RESERVED.map(column),
            mapped: data.fields.keys().cloned().collect(),
            text,
            carried: data.carried.clone(),
        }
    }

    /// Refuses (exit 2) a text field that is read from the column of the label or the explanation: the model would be
    /// shown what it is asked for.
    pub fn check(&self) -> Result<()> {
        let answers = ["label", "explanation"];
        let asked_for = RESERVED.iter().zip(&self.reserved).filter(|(field, _)| answers.contains(field));
        // One that no prompt names is shown to nobody.
        let texts = || self.text.iter().filter(|text| text.required && !RESERVED.contains(&text.name.as_str()));
        let shown = |column: &String| texts().find(|text| text.column == *column);
        match asked_for.into_iter().find_map(|(field, column)| Some((field, shown(column)?))) {
            None => Ok(()),
            Some((field, TextField { name, column, .. })) => Err(Error::usage(format!(
                "the field `{name}` is read from the column `{column}`, which holds the {field}: the model would be \
                 shown what it is asked for"
            ))
            .hint(format!(
                "name another column for `{name}` with --set data.fields.{name}=COLUMN; or, if this one is no answer, \
                 for the {field}"
            ))),
        }
    }

    /// Column names in the order [`Columns::read`] expects the cells.
    pub fn names(&self) -> Vec<String> {
        self.reserved.iter().chain(self.text.iter().map(|field| &field.column)).chain(&self.carried).cloned().collect()
    }

    /// Fails when the header lacks a column that is needed, or has one twice.
    ///
    /// A split of the config must also have what `data.fields` names (explanations aside: only train may have them);
    /// the input of `predict` need not.
    pub fn check_header(&self, header: &[String], strict: bool) -> Result<()> {
        let carried = self.carried.iter().map(|_| strict);
        let needed =
            [true, strict, false, false].into_iter().chain(self.text.iter().map(|field| field.required)).chain(carried);
        let carried = self.carried.iter().map(String::as_str);
        let fields = RESERVED.iter().copied().chain(self.text.iter().map(|field| field.name.as_str())).chain(carried);
        let mut problems = Vec::new();
        for ((field, column), needed) in fields.zip(self.names()).zip(needed) {
            match header.iter().filter(|name| **name == column).count() {
                0 if needed || (strict && field != "explanation" && self.mapped.contains(field)) => {
                    problems.push(format!("field {field}: no column `{column}`"))
                }
                0 | 1 => {}
                _ => problems.push(format!("field {field}: more than one column `{column}`")),
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        if let [only] = header
            && let Some((_, separator)) =
                [(';', "`;`"), ('\t', "tabs"), ('|', "`|`")].into_iter().find(|(mark, _)| only.contains(*mark))
        {
            return Err(Error::data(format!("the header is separated by {separator}, not by commas"))
                .hint("save the file again as comma-separated CSV (RFC 4180)"));
        }
        let wanted = self.names();
        // Where a CSV file has no header its first record stands there: then no cell of it is shown.
        let header_line = !self.textual || names::are_names(header, &wanted);
        let shown: Vec<String> = header
            .iter()
            .map(String::as_str)
            .filter(|name| header_line && names::can_be_shown(name, &wanted))
            .take(40)
            .map(foreign::name)
            .collect();
        let error = Error::data(problems.join("; "));
        if shown.is_empty() {
            return Err(error.hint(format!(
                "its first line is no header of column names, or its {} names are unknown: map a field to its \
                 column with `--set data.fields.FIELD=COLUMN`",
                header.len()
            )));
        }
        let more = match header.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} of other names"),
        };
        Err(error.hint(format!(
            "map a field to its column with `--set data.fields.FIELD=COLUMN`; the header has: {}{more}",
            shown.join(", ")
        )))
    }

    /// The record in a row, or everything that is wrong with it.
    pub fn read(&self, row: RawRecord, label_required: bool) -> Result<Record, Vec<RecordError>> {
        let number = row.number;
        let line = row.line;
        let cells = row.cells.map_err(|problem| {
            vec![RecordError {
                record: number,
                line,
                id: problem.id,
                kind: problem.kind,
                field: problem.field,
                message: problem.message,
            }]
        })?;
        let mut cells = cells.into_iter();
        let mut next = || cells.next().unwrap_or(Cell::Missing);
        let mut faults = Faults::default();
        let id = faults.note("id", identifier(next(), true));
        let label = faults.note("label", self.label(next(), label_required)).flatten();
        let explanation = faults.note("explanation", text(next(), false)).flatten();
        let group = faults.note("group", identifier(next(), false)).flatten();
        let mut fields = BTreeMap::new();
        for field in &self.text {
            if let Some(Some(value)) = faults.note(&field.name, text(next(), field.required)) {
                fields.insert(field.name.clone(), value);
            }
        }
        let mut columns = BTreeMap::new();
        for name in &self.carried {
            columns.insert(name.clone(), faults.note(name, identifier(next(), false)).flatten());
        }
        let id = id.flatten();
        match id {
            Some(id) if faults.0.is_empty() => {
                Ok(Record { id, fields, label, explanation, group, columns, number, line })
            }
            id => Err(faults
                .0
                .into_iter()
                .map(|(field, (kind, message))| RecordError {
                    record: number,
                    line,
                    id: id.clone(),
                    kind,
                    field: Some(field),
                    message: message.into(),
                })
                .collect()),
        }
    }

    fn label(&self, cell: Cell, required: bool) -> Checked<Option<Class>> {
        let integer = match cell {
            Cell::Missing => None,
            Cell::Text(text) if self.textual && text.trim().is_empty() => None,
            Cell::Text(text) => match self.textual.then(|| text.trim().parse().ok()).flatten() {
                Some(integer) => Some(integer),
                // A label by its name, but for the data sets that number theirs.
                None if self.layout == Layout::Canonical => {
                    return self.labels.named(text.trim()).map(Some).ok_or(NO_CLASS);
                }
                None => return Err(NO_INTEGER),
            },
            Cell::Integer(integer) => Some(integer),
            Cell::Written(number) => Some(whole(&number).ok_or(NO_INTEGER)?),
            Cell::NotUtf8 => return Err(NOT_UTF8),
            Cell::Other => return Err(NO_INTEGER),
        };
        match integer {
            None if required => Err((ErrorKind::MissingField, "is missing")),
            None => Ok(None),
            Some(integer) => self.class(integer).map(Some),
        }
    }

    /// The class that a number in this layout's column means.
    fn class(&self, integer: i128) -> Checked<Class> {
        let (integer, what) = match self.layout {
            Layout::Clinifact if integer == 2 && self.labels.are_two() => (0, "is not 0, 1 or 2"),
            Layout::Clinifact => (integer, "is not 0, 1 or 2"),
            Layout::EvidenceInference => (integer.saturating_add(1), "is not −1, 0 or 1"),
            _ if self.labels.are_two() => (integer, "is not 0 or 1"),
            _ => (integer, "is not one of the classes of task.labels, which count from 0"),
        };
        usize::try_from(integer).ok().and_then(|index| self.labels.class(index)).ok_or((ErrorKind::BadLabel, what))
    }
}

/// A value, or the rule it breaks. Messages are constants, so no text of a record can get into one.
type Checked<T> = Result<T, (ErrorKind, &'static str)>;

const NO_INTEGER: (ErrorKind, &str) = (ErrorKind::BadLabel, "is not an integer");

const NO_CLASS: (ErrorKind, &str) =
    (ErrorKind::BadLabel, "is neither a class's number (from 0, in JSON without quotes) nor one of task.labels");

const NOT_UTF8: (ErrorKind, &str) = (ErrorKind::InvalidUtf8, "is not UTF-8");

#[derive(Default)]
struct Faults(Vec<(String, (ErrorKind, &'static str))>);

impl Faults {
    fn note<T>(&mut self, field: &str, checked: Checked<T>) -> Option<T> {
        checked.map_err(|fault| self.0.push((field.to_owned(), fault))).ok()
    }
}

/// An id or a group: a string or an integer.
fn identifier(cell: Cell, required: bool) -> Checked<Option<String>> {
    match cell {
        Cell::Integer(integer) => Ok(Some(integer.to_string())),
        Cell::Written(written) => Ok(Some(written)),
        Cell::Text(text) if !is_blank(&text) => Ok(Some(text)),
        Cell::Missing | Cell::Text(_) if required => Err((ErrorKind::MissingField, "is missing")),
        Cell::Missing | Cell::Text(_) => Ok(None),
        Cell::NotUtf8 => Err(NOT_UTF8),
        Cell::Other => Err((ErrorKind::MissingField, "is not a string or an integer")),
    }
}

/// A text: blank is refused where it is required and nothing where it is not.
fn text(cell: Cell, required: bool) -> Checked<Option<String>> {
    match cell {
        Cell::Text(text) if !is_blank(&text) => Ok(Some(text)),
        Cell::Text(_) if required => Err((ErrorKind::EmptyText, "is blank")),
        Cell::Missing if required => Err((ErrorKind::MissingField, "is missing")),
        Cell::Text(_) | Cell::Missing => Ok(None),
        Cell::NotUtf8 => Err(NOT_UTF8),
        Cell::Integer(_) | Cell::Written(_) | Cell::Other => Err((ErrorKind::MissingField, "is not a string")),
    }
}

/// The integer that a decimal such as `1.00` is.
fn whole(number: &str) -> Option<i128> {
    let (whole, fraction) = number.split_once('.')?;
    fraction.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok()).flatten()
}

/// No visible character: white space, control characters, zero-width characters.
fn is_blank(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prompt_shows_the_column_that_it_asks_for() {
        let fields = [("label", "died"), ("outcome", "died")].map(|(field, column)| (field.into(), column.into()));
        let data = config::Data { fields: fields.into(), ..config::Data::default() };
        let shown = |fields: &[&str]| {
            let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
            Columns::new(&data, Layout::Canonical, true, &fields).check()
        };
        shown(&["text"]).unwrap();
        let refused = shown(&["text", "outcome"]).unwrap_err();
        assert!(refused.exit_code() == 2 && refused.to_string().contains("`outcome` is read from the column `died`"));
    }
}
