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
