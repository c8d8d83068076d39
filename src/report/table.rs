//! A table once, written four ways: Markdown, LaTeX, CSV, JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::metrics::Metric;

/// Text in rows and columns, with a title and notes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
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
        let rows: Vec<Vec<String>> = std::iter::once(&self.columns).chain(&self.rows).map(|row| row.iter().map(escape).collect()).collect();
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric = |column: usize| column > 0 && self.rows.iter().all(|row| row.get(column).is_none_or(|cell| is_number(cell)));
        let mut text = format!("**{}**\n\n", self.title);
        for (i, row) in rows.iter().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let _ = if numeric(column) { write!(text, "| {cell:>width$} ") } else { write!(text, "| {cell:<width$} ") };
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
        let line = |cells: &[String]| cells.iter().map(|cell| latex_escape(cell)).collect::<Vec<_>>().join(" & ") + r" \\" + "\n";
        let align = "l".to_owned() + &"r".repeat(self.columns.len().saturating_sub(1));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        let notes: String = self.notes.iter().map(|note| format!("\\\\[2pt]\n\\footnotesize {}\n", latex_escape(note))).collect();
        let (title, head) = (latex_escape(&self.title), line(&self.columns));
        format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n\\centering\n\\caption{{{title}}}\n\\begin{{tabular}}{{{align}}}\n\\toprule\n\
             {head}\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n{notes}\\end{{table}}\n"
        )
    }

    /// RFC 4180, heads first.
    pub fn csv(&self) -> String {
        let quote = |cell: &String| match cell.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.clone(),
        };
        let line = |row: &Vec<String>| row.iter().map(quote).collect::<Vec<_>>().join(",") + "\r\n";
        std::iter::once(&self.columns).chain(&self.rows).map(line).collect()
    }

    /// A JSON object with `title`, `columns`, `rows`, `notes`.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Its four files: name and content.
    pub fn files(&self) -> [(String, String); 4] {
        let file = |extension: &str, content: String| (format!("{}.{extension}", self.name), content);
        [file("md", self.markdown()), file("tex", self.latex()), file("csv", self.csv()), file("json", self.json())]
    }
}

/// A number with four digits, as the paper prints them; a dash where it is undefined.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
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
    ci95.map_or_else(|| "–".to_owned(), |[low, high]| format!("{low:.4} to {high:.4}"))
}

/// A metric and its interval in one cell.
pub fn cell(metric: &Metric) -> String {
    match metric.ci95 {
        Some(ci95) => format!("{} ({})", number(metric.value), interval(Some(ci95))),
        None => number(metric.value),
    }
}

fn is_number(cell: &str) -> bool {
    matches!(cell, "" | "–" | "N/A") || cell.parse::<f64>().is_ok()
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
        let want = "**κ & co**\n\n| Metric     |  Value |\n| ---------- | -----: |\n| F1, \"best\" | 0.5000 |\n| a\\|b       |      – |\n\nn_1 = 5 %\n";
        assert_eq!(table().markdown(), want);
    }

    #[test]
    fn csv_quotes_and_latex_escapes() {
        assert_eq!(table().csv(), "Metric,Value\r\n\"F1, \"\"best\"\"\",0.5000\r\na|b,–\r\n");
        let latex = table().latex();
        assert!(latex.contains(r"\caption{$\kappa$ \& co}") && latex.contains(r"n\_1 $=$ 5 \%"), "{latex}");
    }

    #[test]
    fn json_reads_back() {
        let value: serde_json::Value = serde_json::from_str(&table().json()).unwrap();
        assert_eq!(value["rows"][1][0], "a|b");
    }
}
