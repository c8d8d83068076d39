//! What holds of every document: no text is a control token, and a cut keeps what stands around it.

use proptest::prelude::*;

use super::*;

/// Documents with everything that is awkward: control strings whole and in halves, whitespace, many scripts.
fn document() -> impl Strategy<Value = String> {
    let awkward = prop::sample::select(vec![
        "<|eot|>",
        "<|head|>",
        "<|/head|>",
        "<s>",
        "</s>",
        "<unk>",
        "<think>",
        "<|e",
        "ot|>",
        "<",
        ">",
        "</",
        "s>",
        "\0control 2\0",
        "<0x41>",
        " ",
        "\n",
        "\n\n",
        "\t",
        "\u{a0}",
        "\u{1c}",
        "{document}",
        "{claim}",
        "Classification: TRUE",
        "▁",
    ]);
    prop::collection::vec(prop_oneof![awkward.prop_map(String::from), any::<String>(), "[ -~]{0,12}"], 0..12)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_of_a_record_is_never_a_control_token(document in document()) {
        let toy = toy();
        for (name, kind) in toy["tokenizers"].as_object().expect("tokenizers") {
            let tokenizer = Arc::new(toy_tokenizer(kind, toy["templates"]["lines"].as_str()));
            let prompter = prompter(template("s", "n: {document}.", "P:"), &tokenizer, NO_LIMIT, Truncate::Tail);
            let is_control = |id: &u32| tokenizer.is_control(*id) && *id != 0;
            let controls = |ids: &[u32]| ids.iter().copied().filter(is_control).collect::<Vec<_>>();
            let given = prompter.prompt(&record(&[("text", &document)])).expect("a prompt");
            let usual = prompter.prompt(&record(&[("text", "x")])).expect("a prompt");
            // Id 0 is the sentencepiece kinds' unknown token, which stands for a character without bytes; byte fallback
            // leaves none.
            prop_assert_eq!(controls(&given.ids), controls(&usual.ids), "{}", name);
            if name.starts_with("byte_level") {
                let ids = tokenizer.encode(&document).expect("ids");
                prop_assert_eq!(tokenizer.decode(&ids).unwrap(), document.clone());
            }
        }
    }

    #[test]
    fn truncation_invariants(document in document(), max in 30usize..120, which in 0usize..3) {
        let toy = toy();
        let truncate = [Truncate::Tail, Truncate::Head, Truncate::Middle][which];
        let tokenizer = Arc::new(toy_tokenizer(&toy["tokenizers"]["byte_level"], toy["templates"]["headers"].as_str()));
        let template = template("Sort.", "Note: {document} :end", "Reasoning: ");
        let cutting = Prompter::new(template.clone(), Arc::clone(&tokenizer), labels(), max, NO_LIMIT, truncate);
        let Ok(cutting) = cutting else { return Ok(()) };
        let record = record(&[("text", &document)]);
        let cut = cutting.prompt(&record).expect("a prompt");
        let whole = prompter(template, &tokenizer, NO_LIMIT, truncate).prompt(&record).expect("a prompt");
        prop_assert!(cut.ids.len() <= max);
        prop_assert_eq!(cut.ids.len() + cut.truncated_tokens, whole.ids.len());
        prop_assert_eq!(cut.truncated_tokens == 0, whole.ids.len() <= max);
        prop_assert_eq!(cut.ids.last(), whole.ids.last());
        // The words around the document are all there.
        let text = tokenizer.decode(&cut.ids).unwrap();
        let all = text.contains("Sort.") && text.contains("Note: ") && text.ends_with(":enduser\n\nReasoning: ");
        prop_assert!(all || text.contains(":end"));
        prop_assert!(text.ends_with("Reasoning: "));
    }
}
