//! Three classes as a reader meets them: figures of the class of `eval.positive`, and the page's list of records.

use super::*;

const THREE: [&str; 4] =
    ["--set", r#"task.labels=["decreased","no difference","increased"]"#, "--set", "eval.positive=increased"];

/// Lines over three classes, every fourth wrong, no two as sure: the called class's probability is from 0.35 to 0.75.
fn three(n: usize, id: &str) -> String {
    let line = |i: usize| {
        let called = i * 7 % 3;
        let p = 0.35 + 0.4 * (i * 37 % n) as f64 / n as f64;
        let mut probabilities = [(1.0 - p) / 2.0; 3];
        probabilities[called] = p;
        let label = if i.is_multiple_of(4) { (called + 1) % 3 } else { called };
        json!({"id": format!("{id}{i}"), "label": label, "probabilities": probabilities, "verbalized_label": called,
            "text": format!("SECRET {i}")})
        .to_string()
            + "\n"
    };
    (0..n).map(line).collect()
}

fn bench_of_three() -> Bench {
    let bench = Bench::new();
    bench.write("test.jsonl", three(150, "t"));
    bench.write("dev.jsonl", three(120, "d"));
    bench
}

#[test]
fn figures_of_one_class_against_the_rest_name_both() {
    let bench = bench_of_three();
    bench.succeed(&THREE);
    let figure = |name: &str| bench.text(&format!("run/eval/predictions/figures/{name}"));
    let confusion = figure("confusion.csv");
    let cells: Vec<&str> = confusion.lines().skip(1).take(4).map(|line| line.rsplit_once(',').unwrap().0).collect();
    let want = ["0.5,rest,rest", "0.5,rest,increased", "0.5,increased,rest", "0.5,increased,increased"];
    assert_eq!(cells, want);
    assert_eq!(figure("histogram.csv").lines().next(), Some("from,to,share_of_rest,share_of_increased"));
    let curve = figure("calibration-curve.csv");
    assert!(curve.contains("\nshare_of_rest,") && curve.contains("\nshare_of_increased,"), "{curve}");
    let positives = bench.text("test.jsonl").matches("\"label\":2").count();
    let counted = [format!("increased ({positives} records)"), format!("The rest ({} records)", 150 - positives)];
    let above = [format!("increased, above ({positives} records)"), "The rest, below (".to_owned()];
    let called = ["is increased", "is the rest", "called increased", "called the rest"].map(str::to_owned);
    for (name, told) in [("histogram", &counted[..]), ("calibration-curve", &above), ("confusion", &called)] {
        let svg = figure(&format!("{name}.svg"));
        told.iter().for_each(|told| assert!(svg.contains(told.as_str()), "{name}: {told}"));
        assert!(!svg.contains("Class 1"), "{name}");
    }
}

/// Writes down which records the page lists first in two of its orders.
const ORDERS: &str = r#"<!doctype html><body><pre id="seen"></pre><script>
const frame = document.createElement("iframe");
frame.onload = () => {
  const page = frame.contentDocument, order = page.getElementById("order");
  const ids = (value) => {
    order.value = value;
    order.dispatchEvent(new frame.contentWindow.Event("change"));
    return [...page.querySelectorAll(".record .id")].map((id) => id.textContent);
  };
  document.getElementById("seen").textContent = JSON.stringify([ids("worst"), ids("unsure")]);
};
frame.src = "run/eval/predictions/report.html";
document.body.append(frame);
</script>"#;

#[test]
fn records_of_three_classes_are_listed_by_the_probability_of_the_called_one() {
    let bench = bench_of_three();
    bench.succeed(&[&THREE[..], &["--include-text"]].concat());
    let page = bench.text("run/eval/predictions/report.html");
    assert!(page.contains(">class of the highest probability is wrong<") && !page.contains("probability is wrong at"));
    let Some(browser) = chromium() else { return };
    let orders = bench.write("orders.html", ORDERS);
    let (dom, console) = browse(browser, &bench.path("profile"), &orders);
    let (_, seen) = dom.split_once("<pre id=\"seen\">").unwrap();
    let seen: [Vec<String>; 2] = serde_json::from_str(seen.split_once("</pre>").unwrap().0)
        .unwrap_or_else(|e| panic!("{e}: {dom:.2000} {console:?}"));
    // Id, how sure, whether wrong; as many as a page holds.
    let mut records: Vec<(String, f64, bool)> = bench
        .text("test.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| {
            let sure = line["probabilities"].as_array().unwrap().iter().filter_map(Value::as_f64).fold(0.0, f64::max);
            (line["id"].as_str().unwrap().to_owned(), sure, line["label"] != line["verbalized_label"])
        })
        .collect();
    let first = |records: &[(String, f64, bool)]| records.iter().take(25).map(|of| of.0.clone()).collect::<Vec<_>>();
    records.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert_eq!(seen[1], first(&records));
    records.sort_by(|a, b| b.2.cmp(&a.2).then(b.1.total_cmp(&a.1)));
    assert_eq!(seen[0], first(&records));
}
