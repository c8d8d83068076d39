//! Very long texts: cut into pieces, or refused with their own error line.

use super::*;

/// A word of 20 MB takes 5 GB in one piece, and the words of a text of 20 MB as much.
#[test]
fn a_word_of_20_mb_is_an_error_line_and_words_of_20_mb_are_cut_under_4_gb() {
    let fixture = Fixture::new();
    let line = |id: &str, text: &str| json!({"id": id, "text": text, "label": 1}).to_string() + "\n";
    let word = "SECRET".repeat(3_400_000);
    let words = "SECRET note. ".repeat(1_600_000);
    let spaces = " ".repeat(1_200_000);
    let input = [
        line("short", "SECRET"),
        line("word", &word),
        line("words", &words),
        line("spaces", &format!("SECRET{spaces}SECRET")),
        line("last", "SECRET again"),
    ];
    fixture.write("in.jsonl", input.concat());
    let command = fixture.command("in.jsonl", "out.jsonl", &["--no-explanation", "--threads", "2"]);
    let limited = |command: &Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 4000000; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        shell.current_dir(command.get_current_dir().unwrap()).output().unwrap()
    };
    let result = limited(&command);
    assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
    assert!(
        !stderr(&result).contains("SECRET") && stderr(&result).contains("5 records, 2 errors"),
        "{}",
        stderr(&result)
    );
    let lines = fixture.lines("out.jsonl");
    assert_eq!(lines.iter().map(kind).collect::<Vec<_>>(), ["", "too_long", "", "too_long", ""]);
    assert_eq!((&lines[1]["record"], &lines[1]["id"]), (&json!(2), &json!("word")));
    let message = lines[1]["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("record 2, field text: holds a word of over 1 MB"), "{message}");
    // A token a byte: what was cut and what is left are all of the text and the prompt around it.
    let counted = |line: &Value| line["prompt_tokens"].as_u64().unwrap() + line["truncated_tokens"].as_u64().unwrap();
    assert_eq!(
        (&lines[2]["prompt_tokens"], counted(&lines[2]) - counted(&lines[0])),
        (&json!(160), (words.len() - "SECRET".len()) as u64)
    );
    let strict = fixture.predict("in.jsonl", "strict.jsonl", &["--no-explanation", "--strict"]);
    assert_eq!(strict.status.code(), Some(3), "{}", stderr(&strict));
    assert!(stderr(&strict).contains("record 2") && stderr(&strict).contains("hint:"), "{}", stderr(&strict));
}

/// Lines that wait behind a record that is under way are few, however many there are.
#[test]
fn any_number_of_bad_lines_behind_a_record_fits_into_200_mb() {
    let fixture = Fixture::new();
    let bad = 400_000;
    fixture.write("in.jsonl", json!({"id": "first", "text": "a note"}).to_string() + "\n" + &"{\n".repeat(bad));
    let command = fixture.command("-", "out.jsonl", &["--threads", "2"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 200000; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(fixture.path("")).stdin(std::fs::File::open(fixture.path("in.jsonl")).unwrap());
    let result = shell.output().unwrap();
    assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
    assert!(stderr(&result).contains(&format!("{} records, {bad} errors", bad + 1)), "{}", stderr(&result));
    let lines = fixture.lines("out.jsonl");
    assert_eq!((&lines[0]["id"], lines.len()), (&json!("first"), bad + 1));
    assert!(lines[1..].iter().enumerate().all(|(i, line)| line["record"] == i + 2));
}

#[test]
fn a_stream_of_bad_lines_alone_can_be_stopped() {
    let fixture = Fixture::new();
    let mut endless = Command::new("yes").arg("{\"").stdout(Stdio::piped()).spawn().unwrap();
    let mut command = fixture.command("-", "out.jsonl", &[]);
    let mut child = command.stdin(endless.stdout.take().unwrap()).stderr(Stdio::null()).spawn().unwrap();
    common::wait_for_lines(&mut child, &fixture.path("out.jsonl"), 10);
    common::send("INT", &child);
    assert_eq!(common::end_of(child).status.code(), Some(130));
    endless.kill().unwrap();
    endless.wait().unwrap();
}
