"""Makes multiclass_paired.json: a model and another method on the same records of K > 2 classes, from scikit-learn and scipy.

    pip install scikit-learn scipy && python tests/golden/multiclass_paired.py

Metrics are scikit-learn's, McNemar's p is scipy.stats.binomtest's, the sign-flip's scipy.stats.permutation_test's over all sign patterns,
and the resamples are sklearn.utils.resample's, stratified: of records by class, of groups by the rarest class that they hold. A method
leaves some records unanswered: they are no class for the calls, and left out of both sides' AUROC.
"""

import json
import pathlib
import warnings

import numpy as np
from scipy import stats
from sklearn import metrics as sk
from sklearn.utils import resample

warnings.filterwarnings("ignore")
RESAMPLES = 2_000


def multiples(p, denominator=100):
    """Each row as integers that sum to `denominator`, by largest remainder."""
    scaled = p / p.sum(axis=1, keepdims=True) * denominator
    whole = np.floor(scaled).astype(int)
    for row, rest in zip(whole, scaled - whole):
        row[np.argsort(-rest, kind="stable")[: denominator - row.sum()]] += 1
    return whole


def measure(y, called, p, scored, classes):
    labels = range(classes)
    return np.array([
        sk.roc_auc_score(y[scored], p[scored], multi_class="ovr", average="macro", labels=labels),
        sk.accuracy_score(y, called),
        sk.recall_score(y, called, labels=labels, average="macro"),
        sk.f1_score(y, called, labels=labels, average="macro"),
    ])


def accuracy_p(right, other, groups):
    d = right.astype(int) - other.astype(int)
    if groups is None:
        return float(stats.binomtest(int((d == 1).sum()), int((d != 0).sum())).pvalue)
    of_group = np.array([d[groups == g].sum() for g in np.unique(groups)])
    if len(of_group) > 18:
        return None  # Too many sign patterns to go through.
    test = stats.permutation_test((of_group, np.zeros_like(of_group)), lambda a, b, axis: (a - b).sum(axis=axis),
                                  permutation_type="samples", vectorized=True, n_resamples=np.inf)
    return float(test.pvalue)


def fixture(name, seed, classes, n, groups=None, skill=(1.6, 1.0), mute=0.15):
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, n, p=np.arange(2, 2 + classes) / np.arange(2, 2 + classes).sum())
    group = None if groups is None else rng.integers(groups, size=n)
    of_group = rng.normal(0, 0.8, (groups or n, classes))[np.arange(n) if group is None else group]
    p, q = (multiples(np.exp(rng.normal(0, 1.1, (n, classes)) + of_group + s * np.eye(classes)[y])) for s in skill)
    scored = rng.random(n) >= mute
    called, other = p.argmax(axis=1), np.where(scored, q.argmax(axis=1), classes)
    both = [measure(y, c, r / 100, scored, classes) for c, r in ((called, p), (other, q))]

    rarest = np.argsort(np.bincount(y, minlength=classes), kind="stable").tolist()
    clusters = [np.array([i]) for i in range(n)] if group is None else [np.flatnonzero(group == g) for g in np.unique(group)]
    strata = [min(y[members], key=rarest.index) for members in clusters]
    draws = []
    for b in range(RESAMPLES):
        rows = np.concatenate([clusters[k] for k in resample(np.arange(len(clusters)), stratify=strata, random_state=b)])
        draw = [measure(y[rows], c[rows], r[rows] / 100, scored[rows], classes) for c, r in ((called, p), (other, q))]
        draws.append(draw[0] - draw[1])
    draws = np.array(draws)
    share = lambda side: (side(draws, 0).sum(axis=0) + 1) / (RESAMPLES + 1)
    return {
        "name": name, "classes": classes, "p": p.tolist(), "y": y.tolist(),
        "q": [row.tolist() if known else None for row, known in zip(q, scored)],
        "groups": None if group is None else group.tolist(),
        "want": {
            "model": both[0].tolist(), "method": both[1].tolist(), "difference": (both[0] - both[1]).tolist(),
            "accuracy_p": accuracy_p(called == y, other == y, group),
            "sd": draws.std(axis=0).tolist(), "ci95": np.percentile(draws, [2.5, 97.5], axis=0).T.tolist(),
            "p": np.minimum(1.0, 2 * np.minimum(share(np.less_equal), share(np.greater_equal))).tolist(),
        },
    }


def main():
    fixtures = [
        fixture("alone", 1, 3, 150),
        fixture("few groups", 2, 3, 120, groups=16, skill=(1.4, 1.2)),
        fixture("many groups", 3, 5, 200, groups=90, mute=0.05),
        fixture("answers all", 4, 3, 90, skill=(1.3, 1.3), mute=0.0),
    ]
    lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in fixtures)
    pathlib.Path(__file__).with_suffix(".json").write_text("[\n" + lines + "\n]\n")


main()
