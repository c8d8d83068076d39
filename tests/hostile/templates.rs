//! Chat templates are programs: without end, without bottom, of gigabytes.

use crate::bench::Bench;

const MESSAGES: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";
const FILE: &str = "base/chat_template.jinja";

fn many(text: &str) -> String {
    text.repeat(50_000)
}

/// A template that goes on where this one ends.
fn with(part: impl AsRef<str>) -> String {
    format!("{}{MESSAGES}", part.as_ref())
}

#[test]
fn a_template_has_an_end_and_a_bottom() {
    let grow = |step: &str| {
        with(format!(
            "{{% set ns = namespace(s='x', l=[1]) %}}{{% for a in range(99999) %}}{step}{{% endfor %}}{{{{ ns.l }}}}"
        ))
    };
    let hostile: Vec<(&str, String)> = vec![
        ("loops", with("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")),
        ("a string that doubles", grow("{% set ns.s = ns.s ~ ns.s %}")),
        ("a list that doubles", grow("{% set ns.l = ns.l + ns.l %}")),
        ("a list in a list", grow("{% set ns.l = [ns.l] %}")),
        ("long work", grow("{% set x = (ns.s * 100000).upper().lower().title() %}")),
        ("a wide number", with("{{ '%1000000000d'|format(1) }}")),
        ("a wide text", with("{{ '{:1000000000}'.format(1) }}")),
        ("not", with(format!("{{{{ {} x }}}}", many("not ")))),
        ("minus", with(format!("{{{{ {} 1 }}}}", many("- ")))),
        ("filters", with(format!("{{{{ 'x'{} }}}}", many("|upper")))),
        ("joined", with(format!("{{{{ 'x'{} }}}}", many("~'x'")))),
        ("brackets", with(format!("{{{{ {}1{} }}}}", many("("), many(")")))),
        ("attributes", with(format!("{{{{ x{} }}}}", many(".a")))),
        ("elif", with(format!("{{% if a %}}{}{{% endif %}}", many("{% elif a %}")))),
        ("if in if", with(format!("{}{}", many("{% if a %}"), many("{% endif %}")))),
        ("indent", with("{{ 'a\nb'|indent(10**10) }}")),
        ("join", with("{{ range(99999)|join('x' * 100000) }}")),
        ("join of a method", with("{{ ('x' * 1000000).join(range(99999)|list) }}")),
        ("replace", with("{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}")),
        ("tojson", with("{{ [1, 2]|tojson(indent=10**9) }}")),
        ("batch", with("{{ [1]|batch(10**10, 'x')|list }}")),
        ("slice", with("{{ [1]|slice(10**10)|list }}")),
        ("product", with("{{ 'x' * 10**10 }}")),
        ("power", with("{{ 9**9**9**9 }}")),
        ("recursion", with("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}")),
        ("a clock that repeats", with("{{ strftime_now('%Y' * 1000000) }}")),
        ("a wide clock", with("{{ strftime_now('%1000000000Y') }}")),
        ("length", with(format!("{{# {} #}}", "x".repeat(2 << 20)))),
        ("what it writes", with(format!("{{% for a in range(999) %}}{}{{% endfor %}}", "x".repeat(1000)))),
        ("an escape sequence", with("{{ raise_exception('\x1b[2J\0' ~ 'x' * 100000) }}")),
    ];
    let mut bench = Bench::new("chat templates");
    for (what, template) in hostile {
        bench.fixture.write(FILE, template);
        bench.predict(what).refused(4, &["base/chat_template.jinja: the chat template "]);
    }
    // The same where tokenizer_config.json holds it.
    std::fs::remove_file(bench.path(FILE)).unwrap();
    let nots = with(format!("{{{{ {} x }}}}", many("not ")));
    bench.set("base/tokenizer_config.json", &["chat_template"], nots.into());
    bench.predict("of tokenizer_config.json").refused(4, &["base/tokenizer_config.json: the chat template "]);
}

#[test]
fn large_templates_and_long_notes_are_taken() {
    let mut bench = Bench::new("large templates and notes");
    // As long and as deep as the longest that are published, several times over.
    let arms = |n: usize| -> String { (0..n).map(|i| format!("{{% elif m.role == 'r{i}' %}}{i}")).collect() };
    let dump = format!("{{{{ ['a'{}]|tojson }}}}", ", 'b'".repeat(300));
    let macros: String = (0..60).map(|i| format!("{{% macro m{i}(x) %}}{{{{ x ~ {i} }}}}{{% endmacro %}}\n")).collect();
    let template = format!(
        "{{# {} #}}{macros}{{% if tools %}}{dump}{{% endif %}}{{% for m in messages %}}{{% if m.role == 'x' %}}{}\
         {{% else %}}{{{{ '<' ~ m.role ~ '>' }}}}{{{{ m.content | trim }}}}{{% endif %}}{{% endfor %}}\
         {{{{ m3('!') }}}}",
        "long ".repeat(20_000),
        arms(100)
    );
    bench.fixture.write(FILE, template);
    bench.predict("a large template").accepted();
    let note = "SECRET fever and cough. ".repeat(200_000);
    bench.fixture.write("in.jsonl", serde_json::json!({"id": "a", "text": note}).to_string());
    bench.predict("a note of 5 MB").accepted();
    let line: serde_json::Value = serde_json::from_slice(&bench.fixture.read("out.jsonl")).unwrap();
    assert!(line["truncated_tokens"].as_u64().unwrap() > 4_000_000 && line["error"].is_null(), "{line}");
}
