//! What a reasoning model thinks before it answers is no answer.

/// What a text says once its thoughts are over: what follows the last `</think>`, or all of it where nothing was
/// thought. `None` for a thought that never ends. `opened` tells that the prompt ended inside one
/// ([`super::Prompter::opens_thought`]).
///
/// ```
/// use clsgen::prompt::after_thoughts;
/// assert_eq!(after_thoughts("Is it A? No.</think>B", true), Some("B"));
/// assert_eq!(after_thoughts("B", false), Some("B"));
/// assert_eq!(after_thoughts("Is it A? No.", true), None);
/// assert_eq!(after_thoughts("<think>Is it A? No.", false), None);
/// ```
pub fn after_thoughts(text: &str, opened: bool) -> Option<&str> {
    match text.rfind("</think>") {
        Some(end) => {
            let rest = &text[end + "</think>".len()..];
            (!rest.contains("<think>")).then_some(rest)
        }
        None => (!opened && !text.contains("<think>")).then_some(text),
    }
}
