//! A table once, written four ways: Markdown, LaTeX, CSV, JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::{error::Result, metrics::Metric, storage};

/// Names of the tables that evaluations write.
const NAMES: [&str; 23] = [
    "against",
    "baselines",
    "calibration",
    "calibration_smooth",
    "compare_base",
    "comparisons",
    "confusion",
    "curve",
    "decision_curve",
    "evidence",
    "leakage",
    "metrics",
    "metrics_positive",
    "operating_points",
    "over",
    "perplexity",
    "risk_coverage",
    "subgroups",
    "table1",
    "table2",
    "table3",
    "table4",
    "table7",
];
/// What the names of their files end in.
const EXTENSIONS: [&str; 4] = ["md", "tex", "csv", "json"];

/// Text in rows and columns, with a title and notes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// Name of its files.
    pub name: String,
    /// Caption.
    pub title: String,
    /// Column heads.
    pub columns: Vec<String>,
    /// Cells, a row at a time.
    pub rows: Vec<Vec<String>>,
    /// What to know when reading it.
    pub notes: Vec<String>,
}

impl Table {
    /// An empty table.
    pub fn new(name: &str, title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { name: name.to_owned(), title: title.to_owned(), columns, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Adds a note.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// GitHub's Markdown, columns padded so that a terminal shows it straight.
    pub fn markdown(&self) -> String {
        let escape = |cell: &String| cell.replace('|', "\\|");
        let rows: Vec<Vec<String>> =
            std::iter::once(&self.columns).chain(&self.rows).map(|row| row.iter().map(escape).collect()).collect();
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric = |column: usize| {
            column > 0 && self.rows.iter().all(|row| row.get(column).is_none_or(|cell| is_number(cell)))
        };
        let mut text = format!("**{}**\n\n", self.title);
        for (i, row) in rows.iter().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let _ =
                    if numeric(column) { write!(text, "| {cell:>width$} ") } else { write!(text, "| {cell:<width$} ") };
            }
            text.push_str("|\n");
            if i == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let rule = if numeric(column) { format!("{}:", "-".repeat(width - 1)) } else { "-".repeat(width) };
                    let _ = write!(text, "| {rule} ");
                }
                text.push_str("|\n");
            }
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// A `table` environment with booktabs rules.
    pub fn latex(&self) -> String {
        let line = |cells: &[String]| {
            cells.iter().map(|cell| latex_escape(cell)).collect::<Vec<_>>().join(" & ") + r" \\" + "\n"
        };
        let align = "l".to_owned() + &"r".repeat(self.columns.len().saturating_sub(1));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        let notes: String =
            self.notes.iter().map(|note| format!("\\\\[2pt]\n\\footnotesize {}\n", latex_escape(note))).collect();
        let title = latex_escape(&self.title);
        let head = line(&self.columns);
        format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n\\centering\n\\caption{{{title}}}\n\
             \\begin{{tabular}}{{{align}}}\n\\toprule\n\
             {head}\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n{notes}\\end{{table}}\n"
        )
    }

    /// RFC 4180, heads first.
    pub fn csv(&self) -> String {
        let quote = |cell: &String| {
            if cell.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.clone()
            }
        };
        let line =
            |row: &Vec<String>| row.iter().map(|cell| quote(&ascii_minus(cell))).collect::<Vec<_>>().join(",") + "\r\n";
        std::iter::once(&self.columns).chain(&self.rows).map(line).collect()
    }

    /// A JSON object with `title`, `columns`, `rows`, `notes`.
    pub fn json(&self) -> Result<Vec<u8>> {
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| ascii_minus(cell)).collect()).collect();
        storage::json(&Self { rows, ..self.clone() })
    }

    /// Its four files: name and content.
    pub fn files(&self) -> Result<[(String, Vec<u8>); 4]> {
        let file = |extension: &str, content: Vec<u8>| (format!("{}.{extension}", self.name), content);
        Ok([
            file("md", self.markdown().into_bytes()),
            file("tex", self.latex().into_bytes()),
            file("csv", self.csv().into_bytes()),
            file("json", self.json()?),
        ])
    }

    /// Whether a file of `tables/` is one of ours, by its name.
    pub fn is_ours(file: &str) -> bool {
        let parts = file.rsplit_once('.');
        parts.is_some_and(|(name, extension)| NAMES.contains(&name) && EXTENSIONS.contains(&extension))
    }
}

/// A number with four digits, as the paper prints them; a dash where it is undefined.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| digits(value, 4))
}

/// A number with so many decimals and a true minus sign, which zero never has.
fn digits(value: f64, decimals: usize) -> String {
    let shown = format!("{value:.decimals$}");
    match shown.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|byte| matches!(byte, b'0' | b'.')) => zero.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => shown,
    }
}

/// A difference, with its sign; a dash where it is undefined.
pub fn difference(value: Option<f64>, decimals: usize) -> String {
    let signed = |shown: String| if shown.starts_with('−') { shown } else { format!("+{shown}") };
    value.map_or_else(|| "–".to_owned(), |value| signed(digits(value, decimals)))
}

/// A number between 0 and 1 with four digits, or with as many as tell it from `others`, from 0 and from 1.
pub fn telling(value: f64, others: &[f64]) -> String {
    let rest = || others.iter().copied().chain([0.0, 1.0]).filter(|&other| other != value);
    let apart = |decimals: &usize| rest().all(|other| digits(other, *decimals) != digits(value, *decimals));
    (4..=20).find(apart).map_or_else(|| format!("{value:e}"), |decimals| digits(value, decimals))
}

/// A cell as programs read it: the minus before a digit is ASCII's.
fn ascii_minus(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    let mut letters = cell.chars().peekable();
    while let Some(letter) = letters.next() {
        let sign = letter == '−' && letters.peek().is_some_and(char::is_ascii_digit);
        text.push(if sign { '-' } else { letter });
    }
    text
}

/// A p-value as journals print it.
pub fn p_value(p: Option<f64>) -> String {
    match p {
        Some(p) if p < 0.0001 => "<0.0001".to_owned(),
        p => number(p),
    }
}

/// The 95 % interval.
pub fn interval(ci95: Option<[f64; 2]>) -> String {
    ci95.map_or_else(|| "–".to_owned(), |[low, high]| format!("{} to {}", digits(low, 4), digits(high, 4)))
}

/// A metric and its interval in one cell.
pub fn cell(metric: &Metric) -> String {
    match metric.ci95 {
        Some(ci95) => format!("{} ({})", number(metric.value), interval(Some(ci95))),
        None => number(metric.value),
    }
}

fn is_number(cell: &str) -> bool {
    matches!(cell, "" | "–" | "N/A") || ascii_minus(cell).parse::<f64>().is_ok()
}

/// Escapes what LaTeX reads as markup, and the few letters beyond ASCII that our tables use.
fn latex_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', letter]),
            '~' => escaped.push_str(r"\textasciitilde{}"),
            '^' => escaped.push_str(r"\textasciicircum{}"),
            '\\' => escaped.push_str(r"\textbackslash{}"),
            '<' | '>' | '=' => escaped.extend(['$', letter, '$']),
            'κ' => escaped.push_str(r"$\kappa$"),
            'Δ' => escaped.push_str(r"$\Delta$"),
            '≥' => escaped.push_str(r"$\geq$"),
            '±' => escaped.push_str(r"$\pm$"),
            '−' => escaped.push_str("$-$"),
            '–' => escaped.push_str("--"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("t", "κ & co", &["Metric", "Value"]);
        table.row(["F1, \"best\"", "0.5000"]);
        table.row(["a|b", "–"]);
        table.note("n_1 = 5 %");
        table
    }

    #[test]
    fn markdown_is_padded_and_escapes_bars() {
        let want = "**κ & co**\n\n| Metric     |  Value |\n| ---------- | -----: |\n| F1, \"best\" | 0.5000 |\n| \
            a\\|b       |      – |\n\nn_1 = 5 %\n";
        assert_eq!(table().markdown(), want);
    }

    #[test]
    fn csv_quotes_and_latex_escapes() {
        assert_eq!(table().csv(), "Metric,Value\r\n\"F1, \"\"best\"\"\",0.5000\r\na|b,–\r\n");
        let latex = table().latex();
        assert!(latex.contains(r"\caption{$\kappa$ \& co}") && latex.contains(r"n\_1 $=$ 5 \%"), "{latex}");
    }

    #[test]
    fn minus_signs_are_true_ones_to_the_eye_and_ascii_to_programs_and_zero_has_none() {
        let shown = [number(Some(-0.00001)), number(Some(-0.0)), number(Some(-1.5)), interval(Some([-0.2, -0.00002]))];
        assert_eq!(shown, ["0.0000", "0.0000", "−1.5000", "−0.2000 to 0.0000"]);
        assert_eq!(
            [difference(Some(-0.00004), 4), difference(Some(-0.05), 4), difference(Some(3.0), 0)],
            ["+0.0000", "−0.0500", "+3"]
        );
        let mut table = Table::new("t", "t", &["Model − method", "b"]);
        table.row(["Model − method", "−1.5000 (−2.0000 to 0.1000)"]);
        assert!(
            table.csv().ends_with("Model − method,-1.5000 (-2.0000 to 0.1000)\r\n")
                && String::from_utf8(table.json().unwrap()).unwrap().contains("\"-1.5000 (-2.0000")
        );
        assert!(table.markdown().contains("−1.5000 (−2.0000"));
    }

    #[test]
    fn thresholds_are_shown_with_as_many_digits_as_tell_them_apart() {
        assert_eq!(telling(0.5, &[0.5, 0.25]), "0.5000");
        assert_eq!(telling(0.000_012_3, &[0.5]), "0.00001");
        assert_eq!([telling(0.123_456_7, &[0.123_456_9]), telling(0.999_999_9, &[])], ["0.1234567", "0.9999999"]);
        assert_eq!([telling(0.0, &[]), telling(1e-300, &[])], ["0.0000", "1e-300"]);
    }

    #[test]
    fn json_reads_back() {
        let value: serde_json::Value = serde_json::from_slice(&table().json().unwrap()).unwrap();
        assert_eq!(value["rows"][1][0], "a|b");
        assert_eq!(serde_json::from_value::<Table>(value).unwrap(), table());
    }
}
