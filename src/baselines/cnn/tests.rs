use candle_core::Tensor;

use super::*;
use crate::{data::Record, labels::Class};

/// Words w0 … w19 with random vectors of width 6.
fn embeddings() -> Embeddings {
    let vocab: serde_json::Map<String, serde_json::Value> = ["[UNK]", "[SEP]"]
        .iter()
        .map(|word| (*word).to_owned())
        .chain((0..20).map(|i| format!("w{i}")))
        .zip(0..)
        .map(|(word, id)| (word, id.into()))
        .collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null,
        "added_tokens": [{"id": 1, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    let tokenizer = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    let rng = Rng::new(3, streams::MODEL_INIT);
    let table: Vec<f32> = (0..22 * 6).map(|i| rng.normal(0, i)).collect();
    Embeddings::new(tokenizer, Tensor::from_vec(table, (22, 6), &Device::Cpu).unwrap()).unwrap()
}

/// Documents of random words; a positive holds `w7 w3` somewhere, which order alone tells from a negative's `w3 w7`.
fn documents(embeddings: &Embeddings, n: usize) -> Vec<Document> {
    let rng = Rng::new(9, streams::NOTES);
    let document = |i: usize| {
        let mut words: Vec<String> = (0..12).map(|t| format!("w{}", 8 + rng.below(i as u64, t, 12))).collect();
        let at = rng.below(i as u64, 99, 11);
        (words[at], words[at + 1]) = if i % 2 == 1 { ("w7".into(), "w3".into()) } else { ("w3".into(), "w7".into()) };
        let record = record(&words.join(" "), i % 2);
        embeddings.document(&record, &["text".to_owned()], 100).unwrap()
    };
    (0..n).map(document).collect()
}

fn record(text: &str, label: usize) -> Record {
    let fields = [("text".to_owned(), text.to_owned()), ("claim".to_owned(), "w1 w2".to_owned())].into();
    Record {
        id: "a".into(),
        fields,
        label: Class::new(label),
        explanation: None,
        group: None,
        columns: [].into(),
        number: 1,
    }
}

fn small() -> config::Cnn {
    config::Cnn { filters: 32, projection: 16, dropout: 0.2, epochs: 12, batch_size: 8, ..config::Cnn::default() }
}

#[test]
fn it_learns_a_word_order_and_a_resumed_run_is_the_same_run() {
    let embeddings = embeddings();
    let cnn = small();
    let folder = tempfile::tempdir().unwrap();
    let train = documents(&embeddings, 96);
    let dev = documents(&embeddings, 160).split_off(96);
    let labels: Vec<bool> = dev.iter().map(|document| document.label).collect();
    let state = folder.path().join("state");
    let mut whole = Trainer::start(&embeddings, 2, &train, &cnn, (1e-2, 42), &state, 12).unwrap();
    let mut losses = Vec::new();
    for epoch in 1..=12 {
        losses.push(whole.train_epoch().unwrap());
        if epoch == 5 {
            whole.save(&state).unwrap();
        }
    }
    let probabilities = predict(whole.network(), &embeddings, &dev).unwrap();
    let score = minority_score(&probabilities, &labels, true);
    assert!(score > 0.8 && losses[11] < losses[0] - 0.1, "score {score}, losses {losses:?}");
    let mut resumed = Trainer::start(&embeddings, 2, &train, &cnn, (1e-2, 42), &state, 12).unwrap();
    assert_eq!(resumed.epoch(), 5);
    for loss in &losses[5..] {
        assert_eq!(resumed.train_epoch().unwrap(), *loss);
    }
    assert_eq!(predict(resumed.network(), &embeddings, &dev).unwrap(), probabilities);
    // Another run does not take this state, nor one that is already further than wanted.
    assert_eq!(Trainer::start(&embeddings, 2, &train, &cnn, (1e-2, 0), &state, 12).unwrap().epoch(), 0);
    assert_eq!(Trainer::start(&embeddings, 2, &train, &cnn, (1e-2, 42), &state, 4).unwrap().epoch(), 0);
}

#[test]
fn fields_are_joined_by_the_separator_and_a_note_cannot_write_one() {
    let embeddings = embeddings();
    let fields = ["claim".to_owned(), "text".to_owned()];
    let read = |text: &str, max: usize| embeddings.document(&record(text, 1), &fields, max).unwrap().ids;
    assert_eq!(read("w5 w0", 100), [3, 4, 1, 7, 2]);
    assert_eq!(read("w5 [SEP] w0", 100), [3, 4, 1, 7, 0, 0, 0, 2]);
    assert_eq!(read("w5 w0", 4), [3, 4, 1, 7]);
}

#[test]
fn selection_counts_the_minority() {
    let probabilities = [0.9, 0.8, 0.3, 0.6];
    let labels = [true, true, false, false];
    // AUROC 1; class 1: TP 2, FP 1; class 0: TP 1, FN 1.
    assert!((minority_score(&probabilities, &labels, true) - (1.0 + 0.8) / 2.0).abs() < 1e-12);
    assert!((minority_score(&probabilities, &labels, false) - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
    assert_eq!(minority_score(&[0.2], &[false], true), 0.0);
}

/// Logits, loss and gradients of `tests/golden/cnn.py`: PyTorch's Conv1d, max, ReLU, Linear, cross-entropy.
#[test]
fn forward_and_gradients_are_pytorchs() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../../tests/golden/cnn.json")).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let tensor = |value: &serde_json::Value| {
        let shape: Vec<usize> = numbers(&value["shape"]).iter().map(|x| *x as usize).collect();
        Tensor::from_vec(numbers(&value["values"]), shape, &Device::Cpu).unwrap()
    };
    let weights =
        golden["weights"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), tensor(value))).collect();
    let network = Network::from_tensors(weights).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_bytes(
        r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token":"a"}}"#,
    )
    .unwrap();
    let embeddings = Embeddings::new(tokenizer, tensor(&golden["embeddings"])).unwrap();
    let documents: Vec<Document> = golden["ids"]
        .as_array()
        .unwrap()
        .iter()
        .zip(golden["labels"].as_array().unwrap())
        .map(|(ids, label)| Document { ids: numbers(ids).iter().map(|id| *id as u32).collect(), label: label == 1 })
        .collect();
    let logits: Vec<Tensor> =
        documents.iter().map(|document| network.forward(&embeddings, document, None).unwrap()).collect();
    let logits = Tensor::cat(&logits, 0).unwrap();
    let close = |name: &str, ours: &Tensor, expected: &serde_json::Value| {
        let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = numbers(&expected["values"]);
        assert_eq!(ours.len(), expected.len(), "{name}");
        for (ours, expected) in ours.iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-5, "{name}: {ours} {expected}");
        }
    };
    close("logits", &logits, &golden["logits"]);
    let labels: Vec<u32> = documents.iter().map(|document| u32::from(document.label)).collect();
    let loss = cross_entropy(&logits, &Tensor::new(labels, &Device::Cpu).unwrap()).unwrap();
    assert!((loss.to_scalar::<f32>().unwrap() - golden["loss"].as_f64().unwrap() as f32).abs() < 1e-5);
    let gradients = network.gradients(&loss).unwrap();
    let expected = golden["gradients"].as_object().unwrap();
    assert_eq!(gradients.len(), expected.len());
    for (name, gradient) in &gradients {
        close(name, gradient, &expected[name]);
    }
}
