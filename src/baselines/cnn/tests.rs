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
        line: None,
    }
}

fn small() -> config::Cnn {
    config::Cnn { filters: 32, projection: 16, dropout: 0.2, epochs: 12, batch_size: 8, ..config::Cnn::default() }
}

fn class(index: usize) -> Class {
    Class::new(index).unwrap()
}

#[test]
fn it_learns_a_word_order_and_a_resumed_run_is_the_same_run() {
    let embeddings = embeddings();
    let cnn = small();
    let folder = tempfile::tempdir().unwrap();
    let train = documents(&embeddings, 96);
    let dev = documents(&embeddings, 160).split_off(96);
    let labels: Vec<Class> = dev.iter().map(|document| document.label).collect();
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
    let score = selection_score(&probabilities, &labels, Class::ONE);
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
    let probabilities = [0.9, 0.8, 0.3, 0.6].map(|one| vec![1.0 - one, one]);
    let labels = [1, 1, 0, 0].map(class);
    // AUROC 1; class 1: TP 2, FP 1; class 0: TP 1, FN 1.
    let score = |rarest| selection_score(&probabilities, &labels, rarest);
    assert!((score(Class::ONE) - (1.0 + 0.8) / 2.0).abs() < 1e-12);
    assert!((score(Class::ZERO) - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
    assert_eq!(selection_score(&[vec![0.8, 0.2]], &[Class::ZERO], Class::ONE), 0.0);
    // At 0.5 a record is positive.
    assert_eq!(selection_score(&[vec![0.5, 0.5]], &[Class::ONE], Class::ONE), 0.5);
}

#[test]
fn selection_of_more_classes_takes_macro_auroc_and_the_rarest() {
    let rows = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]];
    let probabilities = rows.map(Vec::from);
    let labels = [0, 0, 1, 1, 2, 1].map(class);
    let above = |class: usize| {
        let column: Vec<f64> = rows.iter().map(|row| row[class]).collect();
        let is: Vec<bool> = labels.iter().map(|label| label.index() == class).collect();
        crate::metrics::ranking::auroc(&column, &is).unwrap()
    };
    let macro_auroc = (above(0) + above(1) + above(2)) / 3.0;
    assert_eq!(above(2), 1.0);
    // The arg max calls 0 1 1 0 2 2: of class 2, TP 1, FP 1; of class 0, TP 1, FP 1, FN 1.
    let score = |rarest| selection_score(&probabilities, &labels, class(rarest));
    assert!((score(2) - (macro_auroc + 2.0 / 3.0) / 2.0).abs() < 1e-12);
    assert!((score(0) - (macro_auroc + 0.5) / 2.0).abs() < 1e-12);
    // Without a class the macro mean is undefined, and counts as 0.
    assert_eq!(selection_score(&probabilities[..2], &labels[..2], Class::ZERO), (0.0 + 2.0 / 3.0) / 2.0);
}

#[test]
fn the_rarest_class_is_the_train_splits() {
    let of = |classes, labels: &[usize]| rarest(classes, labels.iter().map(|&label| class(label))).index();
    assert_eq!([of(2, &[0, 0, 1]), of(2, &[0, 1]), of(2, &[0, 1, 1])], [1, 1, 0]);
    assert_eq!([of(3, &[0, 0, 1, 2, 2]), of(3, &[2, 2, 1, 1, 0, 0]), of(3, &[0, 0, 1, 1, 2])], [1, 0, 2]);
}

/// Logits, loss and gradients of `tests/golden/cnn.py`: PyTorch's Conv1d, max, ReLU, Linear, cross-entropy.
#[test]
fn forward_and_gradients_are_pytorchs() {
    for (golden, classes) in [
        (include_str!("../../../tests/golden/cnn.json"), 2),
        (include_str!("../../../tests/golden/cnn-classes-3.json"), 3),
    ] {
        agrees_with_pytorch(&serde_json::from_str(golden).unwrap(), classes);
    }
}

fn agrees_with_pytorch(golden: &serde_json::Value, classes: usize) {
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
        .map(|(ids, label)| Document {
            ids: numbers(ids).iter().map(|id| *id as u32).collect(),
            label: class(label.as_u64().unwrap() as usize),
        })
        .collect();
    let logits: Vec<Tensor> =
        documents.iter().map(|document| network.forward(&embeddings, document, None).unwrap()).collect();
    let logits = Tensor::cat(&logits, 0).unwrap();
    assert_eq!(logits.dims(), [documents.len(), classes]);
    let close = |name: &str, ours: &Tensor, expected: &serde_json::Value| {
        let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = numbers(&expected["values"]);
        assert_eq!(ours.len(), expected.len(), "{name}");
        for (ours, expected) in ours.iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-5, "{name}: {ours} {expected}");
        }
    };
    close("logits", &logits, &golden["logits"]);
    let probabilities: Vec<f32> =
        predict(&network, &embeddings, &documents).unwrap().into_iter().flatten().map(|p| p as f32).collect();
    close("probabilities", &Tensor::new(probabilities, &Device::Cpu).unwrap(), &golden["probabilities"]);
    let labels: Vec<u32> = documents.iter().map(|document| document.label.index() as u32).collect();
    let loss = cross_entropy(&logits, &Tensor::new(labels, &Device::Cpu).unwrap()).unwrap();
    assert!((loss.to_scalar::<f32>().unwrap() - golden["loss"].as_f64().unwrap() as f32).abs() < 1e-5);
    let gradients = network.gradients(&loss).unwrap();
    let expected = golden["gradients"].as_object().unwrap();
    assert_eq!(gradients.len(), expected.len());
    for (name, gradient) in &gradients {
        close(name, gradient, &expected[name]);
    }
}
