//! Which names of a header can be shown: a file without one has its first record in that place.

/// Words that the names of columns are made of, and texts of records hardly.
const WORDS: [&str; 42] = [
    "id",
    "index",
    "key",
    "number",
    "code",
    "name",
    "type",
    "note",
    "notes",
    "text",
    "document",
    "report",
    "summary",
    "body",
    "content",
    "input",
    "label",
    "labels",
    "target",
    "class",
    "outcome",
    "out",
    "hospital",
    "mortality",
    "y",
    "explanation",
    "rationale",
    "reason",
    "group",
    "subject",
    "patient",
    "admission",
    "hadm",
    "nctid",
    "pmid",
    "pmcid",
    "claim",
    "article",
    "abstract",
    "intervention",
    "comparator",
    "split",
];

/// Whether a line of cells is a header beyond doubt: all are words of a program (`id`, `text`), or two of them compound
/// ones (`note_id`, `Note ID`) or wanted names, and none is a number or a sentence, as a record has somewhere.
pub(super) fn are_names(cells: &[String], wanted: &[String]) -> bool {
    let unnamed = |cell: &str| cell.is_empty() || cell.strip_prefix("Unnamed: ").is_some_and(|n| n.len() < 6);
    let letters = |word: &str| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_word =
        |word: &str| letters(word) && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    let is_compound = |cell: &str| {
        let title = |word: &str| is_word(word) && word.starts_with(|c: char| c.is_ascii_uppercase());
        if cell.contains(' ') {
            cell.split(' ').all(title)
        } else {
            is_word(cell) && cell.trim_end_matches('.').contains(['_', '.', '-'])
        }
    };
    let count = |is: &dyn Fn(&str) -> bool| cells.iter().filter(|cell| is(cell)).count();
    let plausible = |cell: &str| unnamed(cell) || (cell.len() <= 64 && cell.split(' ').all(is_word));
    count(&|cell| unnamed(cell) || is_word(cell)) == cells.len()
        || (count(&plausible) == cells.len() && count(&is_compound) > 1)
        || cells.iter().filter(|cell| wanted.contains(cell)).count() > 1
}

/// Whether a header's cell is a name beyond doubt: one that is wanted or almost one, or made of known words alone.
pub(super) fn can_be_shown(name: &str, wanted: &[String]) -> bool {
    let lower = name.to_lowercase();
    if wanted.iter().any(|wanted| strsim::normalized_damerau_levenshtein(&wanted.to_lowercase(), &lower) >= 0.75) {
        return true;
    }
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let known = |word: &&str| WORDS.contains(word) || (word.len() <= 3 && word.bytes().all(|b| b.is_ascii_digit()));
    words.first().is_some_and(|word| WORDS.contains(word)) && words.len() <= 4 && words.iter().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_from_a_record() {
        let are = |line: &str| {
            let cells: Vec<String> = line.split(',').map(str::to_owned).collect();
            are_names(&cells, &["id".to_owned(), "text".to_owned()])
        };
        for header in
            ["note,y", "Note ID,Note-Text,in.hosp.death,text len", ",note_id,text", "Unnamed: 0,note", "id,text,Day 30"]
        {
            assert!(are(header), "{header}");
        }
        for record in ["7,note,alive", "a1,Patient note,death", "a-1,patient report,0", "id,Discharge summary. He,x"] {
            assert!(!are(record), "{record}");
        }
    }
}
