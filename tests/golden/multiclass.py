"""Makes multiclass.json: fixtures of the metrics of K > 2 classes, from scikit-learn, scipy and definitions written out longhand.

    pip install scikit-learn && python tests/golden/multiclass.py

Probabilities are multiples of 1/100 or 1/1000 that sum to 1: ties, zeros and arg maxes of two classes come by themselves.
What is undefined for one class is null there and in the macro mean.
"""

import json
import pathlib
import warnings

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn import metrics as sk

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20260412)


def null(value):
    return None if value is None or np.isnan(value) else float(value)


def one_vs_rest(y, p, classes):
    """AUROC of each class and, where all are defined, scikit-learn's own macro mean."""
    each = [null(sk.roc_auc_score(y == k, p[:, k])) if 0 < (y == k).sum() < len(y) else None for k in range(classes)]
    macro = sk.roc_auc_score(y, p, multi_class="ovr", average="macro", labels=range(classes)) if None not in each else None
    return each, null(macro)


def answers(y, called, classes):
    """Precision, recall and F1 of answers; class K is no class."""
    labels = range(classes)
    each = np.array(sk.precision_recall_fscore_support(y, called, labels=labels, zero_division=np.nan)[:3])
    complete = [not np.isnan(row).any() for row in each]
    macro = sk.precision_recall_fscore_support(y, called, labels=labels, average="macro", zero_division=np.nan)[:3]
    return {
        "accuracy": float(sk.accuracy_score(y, called)),
        # Of a class without records scikit-learn leaves the recall out.
        "balanced_accuracy": float(sk.balanced_accuracy_score(y, called)) if complete[1] else None,
        "macro": [float(value) if whole else None for value, whole in zip(macro, complete)],
        "per_class": [[null(value) for value in row] for row in each.T],
    }


def class_wise_ece(y, p, classes, bins=10):
    edges = [k / bins for k in range(bins + 1)]
    total = 0.0
    for k in range(classes):
        for b in range(bins):
            inside = (p[:, k] <= edges[b + 1]) & ((p[:, k] > edges[b]) | (b == 0))
            if inside.any():
                total += inside.mean() * abs(p[inside, k].mean() - (y[inside] == k).mean())
    return total / classes


def calibration(y, p, classes):
    truth = np.eye(classes)[y]
    return {
        "brier": float(((p - truth) ** 2).sum(axis=1).mean()),
        "ece": float(class_wise_ece(y, p, classes)),
        "log_loss": float(sk.log_loss(y, p, labels=range(classes))),
    }


def temperature(y, p):
    """Logits are ln p, of zeros ln 1e-12."""
    z = np.log(np.maximum(p, 1e-12))
    def loss(log_t):
        scaled = z / np.exp(log_t)
        return (logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]).mean()
    found = minimize_scalar(loss, bounds=(-6.0, 6.0), method="bounded", options={"xatol": 1e-12, "maxiter": 1000})
    return float(np.exp(found.x))


def multiples(p, denominator):
    """Each row as integers that sum to `denominator`, by largest remainder."""
    scaled = p * denominator
    whole = np.floor(scaled).astype(int)
    for row, rest in zip(whole, scaled - whole):
        row[np.argsort(-rest, kind="stable")[: denominator - row.sum()]] += 1
    return whole


def fixture(name, classes, denominator, missing=None, never=None, mute=0.15, n=300):
    shares = rng.dirichlet(np.full(classes, 4.0))
    if missing is not None:
        shares[missing] = 0.0
    y = rng.choice(classes, n, p=shares / shares.sum())
    z = rng.normal(0, 1.2, (n, classes)) + 1.4 * np.eye(classes)[y]
    if never is not None:
        z[:, never] -= 12.0
    p = np.exp(1.6 * z)
    units = multiples(p / p.sum(axis=1, keepdims=True), denominator)
    p = units / denominator
    called = p.argmax(axis=1)
    v = [None if rng.random() < mute else int(k if rng.random() < 0.75 else rng.integers(classes)) for k in called]
    spoken = np.array([i for i, label in enumerate(v) if label is not None])
    said = np.array([v[i] for i in spoken])
    each, macro = one_vs_rest(y, p, classes)
    align, macro_align = one_vs_rest(said, p[spoken], classes)
    kappa = {weights or "none": float(sk.cohen_kappa_score(called[spoken], said, labels=range(classes), weights=weights))
             for weights in (None, "quadratic")}
    want = {
        **answers(y, called, classes),
        "auroc": macro, "auroc_per_class": each, "auroc_align": macro_align, "auroc_align_per_class": align,
        "kappa": kappa["none"], "kappa_quadratic": kappa["quadratic"], "parsable": len(spoken) / n,
        **calibration(y, p, classes), "temperature": temperature(y, p),
        "confusion": sk.confusion_matrix(y, called, labels=range(classes)).tolist(),
        # The texts as a method's answers: those that name no class are wrong.
        "answers": answers(y, np.array([classes if label is None else label for label in v]), classes),
    }
    return {"name": name, "classes": classes, "denominator": denominator, "p": units.tolist(), "y": y.tolist(), "v": v, "want": want}


def main():
    fixtures = [
        fixture("three", 3, 100),
        fixture("seven", 7, 1000),
        fixture("ties", 3, 10),
        fixture("missing", 3, 100, missing=1, n=80),
        fixture("never called", 7, 100, never=4, n=80),
    ]
    lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in fixtures)
    pathlib.Path(__file__).with_suffix(".json").write_text("[\n" + lines + "\n]\n")


main()
