"""Makes metrics.json: fixtures of the metrics, from scikit-learn, statsmodels, scipy and definitions written out longhand.

    pip install scikit-learn statsmodels && python tests/golden/metrics.py

Nothing here shares code or an algorithm with src/metrics: DeLong's variance is the O(positives x negatives) kernel of the 1988
paper, Obuchowski's is the 1997 paper's sums, thresholds are searched by brute force with exact fractions.
"""

import json
import pathlib
import warnings
from fractions import Fraction

import numpy as np
import statsmodels.api as sm
from scipy.optimize import brentq, root
from scipy.special import expit
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20260411)


def both(y):
    return 0 < sum(y) < len(y)


def kernel(p, y):
    """psi(x, y) of DeLong 1988 for every pair: 1, 1/2 or 0."""
    pos, neg = p[y == 1], p[y == 0]
    return (pos[:, None] > neg[None, :]) + 0.5 * (pos[:, None] == neg[None, :])


def delong_variance(p, y):
    psi = kernel(p, y)
    if min(psi.shape) < 2:
        return None
    return psi.mean(axis=1).var(ddof=1) / psi.shape[0] + psi.mean(axis=0).var(ddof=1) / psi.shape[1]


def delong_covariance(p, q, y):
    a, b = kernel(p, y), kernel(q, y)
    return (np.cov(a.mean(axis=1), b.mean(axis=1))[0, 1] / a.shape[0]
            + np.cov(a.mean(axis=0), b.mean(axis=0))[0, 1] / a.shape[1])


def obuchowski_variance(p, y, groups):
    psi = kernel(p, y)
    auc = psi.mean()
    v10, v01 = psi.mean(axis=1), psi.mean(axis=0)
    gp, gn = groups[y == 1], groups[y == 0]
    i10, i01, i = len(set(gp)), len(set(gn)), len(set(groups))
    if i10 < 2 or i01 < 2:
        return None
    m, n = len(v10), len(v01)
    sums = [(v10[gp == g].sum() - (gp == g).sum() * auc, v01[gn == g].sum() - (gn == g).sum() * auc) for g in sorted(set(groups))]
    s10 = i10 / ((i10 - 1) * m) * sum(a * a for a, _ in sums)
    s01 = i01 / ((i01 - 1) * n) * sum(b * b for _, b in sums)
    s11 = i / (i - 1) * sum(a * b for a, b in sums)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


def calls(p, y, t):
    return [(bool(a), x >= t) for a, x in zip(y, p)]


def counts(pairs):
    return [sum(pair == want for pair in pairs) for want in ((True, True), (False, True), (True, False), (False, False))]


def f1(tp, fp, fn, tn):
    return Fraction(2 * tp, 2 * tp + fp + fn)


def kappa(tp, fp, fn, tn):
    n = tp + fp + fn + tn
    chance = Fraction((tp + fn) * (tp + fp) + (fp + tn) * (fn + tn), n * n)
    return None if chance == 1 else (Fraction(tp + tn, n) - chance) / (1 - chance)


def youden(tp, fp, fn, tn):
    return Fraction(tp, tp + fn) + Fraction(tn, tn + fp) - 1


def tune(p, y, gain):
    """The best distinct probability; of equals the highest."""
    best = None
    for t in sorted(set(p), reverse=True):
        value = gain(*counts(calls(p, y, t)))
        if value is not None and (best is None or value > best[1]):
            best = (t, value)
    return best and {"threshold": float(best[0]), "value": float(best[1])}


def ece(p, y, m=10):
    edges = [k / m for k in range(m + 1)]
    gaps = []
    for k in range(m):
        inside = (p <= edges[k + 1]) & ((p > edges[k]) | (k == 0))
        if inside.any():
            gaps.append((inside.mean(), abs(p[inside].mean() - y[inside].mean())))
    return sum(w * g for w, g in gaps), max(g for _, g in gaps)


def overlapping(x, y):
    a, b = x[y == 1], x[y == 0]
    return a.min() < b.max() and b.min() < a.max()


def calibration(p, y):
    x = np.log(np.clip(p, 1e-12, 1 - 1e-12) / (1 - np.clip(p, 1e-12, 1 - 1e-12)))
    if not both(y):
        return None, None
    # The score equation by bisection: statsmodels' GLM with an offset overflows where p is 0 or 1.
    intercept = float(brentq(lambda a: (y - expit(x + a)).sum(), -100, 100, xtol=1e-14, rtol=8.9e-16, maxiter=500))
    if not overlapping(x, y):
        return None, intercept
    fit = sm.Logit(y, sm.add_constant(x)).fit(method="newton", tol=1e-14, maxiter=200, disp=0)
    return float(fit.params[1]), intercept


def aurc(p, y):
    """Mean over k of the expected errors among the k most confident, ties in random order (Geifman 2019).

    Of the decimals that the probabilities are written as: in binary 1 - 0.07 is not 0.93.
    """
    exact = [Fraction(str(float(x))) for x in p]
    confidence = np.array([max(x, 1 - x) for x in exact])
    wrong = (p >= 0.5) != (y == 1)
    risks = []
    for k in range(1, len(p) + 1):
        cut = np.sort(confidence)[::-1][k - 1]
        above, tied = confidence > cut, confidence == cut
        risks.append((wrong[above].sum() + (k - above.sum()) * wrong[tied].mean()) / k)
    return float(np.mean(risks))


def net_benefit(p, y, t):
    """Vickers & Elkin 2006: of deciding at t by p, and of treating all."""
    odds = t / (1 - t)
    treated = p >= t
    return [float(((treated & (y == 1)).sum() - odds * (treated & (y == 0)).sum()) / len(y)), float(y.mean() - odds * (1 - y.mean()))]


def expected(p, y, v, groups):
    """Every number for one set of predictions; v is 0, 1 or None (unparsable)."""
    hard = p >= 0.5
    spoken = np.array([i for i, label in enumerate(v) if label is not None], dtype=int)
    vp, vy = p[spoken], np.array([v[i] for i in spoken])
    out = {
        "auroc": float(sk.roc_auc_score(y, p)) if both(y) else None,
        "average_precision": float(sk.average_precision_score(y, p)) if y.any() else None,
        "precision": float(sk.precision_score(y, hard)) if hard.any() else None,
        "recall": float(sk.recall_score(y, hard)) if y.any() else None,
        "f1": float(sk.f1_score(y, hard)) if y.any() or hard.any() else None,
        "auroc_align": float(sk.roc_auc_score(vy, vp)) if both(vy) else None,
        "parsable": len(spoken) / len(p),
        "brier": float(sk.brier_score_loss(y, p)),
        "observed_expected": float(y.sum() / p.sum()),
        "aurc": aurc(p, y),
        "net_benefit": [net_benefit(p, y, t) for t in (0.1, 0.3, 0.5, 0.9)],
    }
    agreed = len(vy) > 0 and len(set(vy.tolist()) | set((vp >= 0.5).astype(int).tolist())) > 1
    out["kappa"] = float(sk.cohen_kappa_score(vy, vp >= 0.5)) if agreed else None
    out["ece"], out["mce"] = map(float, ece(p, y))
    out["slope"], out["intercept"] = calibration(p, y)
    out["variance"] = delong_variance(p, y) if both(y) else None
    out["clustered_variance"] = obuchowski_variance(p, y, groups) if both(y) else None
    out["tuned"] = {
        "f1": tune(p, y, f1) if both(y) else None,
        "youden": tune(p, y, youden) if both(y) else None,
        "kappa": tune(vp, vy, kappa) if len(vy) else None,
    }
    return out


def fixture(kind, n):
    y = (rng.random(n) < rng.uniform(0.15, 0.85)).astype(int)
    if kind == "one_class":
        y[:] = int(rng.integers(2))
    p = 1 / (1 + np.exp(-(rng.normal(0, 1.5, n) + rng.uniform(0, 2.5) * (y - 0.5))))
    p = {"ties": np.round(p, 1), "all_equal": np.full(n, 0.3), "binary": np.round(p)}.get(kind, np.round(p, 6))
    if kind == "separated":
        p = np.round(0.5 * p + 0.5 * y, 6)
    if kind in ("ties", "binary"):
        p = np.clip(p, 0.0, 1.0)
        p[rng.integers(n)] = 0.5
    v = [None if rng.random() < 0.15 else int((x >= 0.5) ^ (rng.random() < 0.2)) for x in p]
    groups = rng.integers(0, max(2, int(n * 0.6)), n)
    return {"kind": kind, "p": p.tolist(), "y": y.tolist(), "v": v, "g": groups.tolist(), "want": expected(p, y, v, groups)}


def paired():
    n = int(rng.integers(12, 40))
    y = (rng.random(n) < 0.4).astype(int)
    y[:2] = [0, 1]
    y[2:4] = [0, 1]
    p = np.round(1 / (1 + np.exp(-(rng.normal(0, 1, n) + y))), 2)
    q = np.round(1 / (1 + np.exp(-(rng.normal(0, 1, n) + 0.5 * y))), 2)
    return {"p": p.tolist(), "q": q.tolist(), "y": y.tolist(),
            "difference": float(kernel(p, y).mean() - kernel(q, y).mean()),
            "variance": float(delong_variance(p, y) + delong_variance(q, y) - 2 * delong_covariance(p, q, y))}


def calibrators():
    """Dev in, calibrated probabilities of a grid out."""
    n = int(rng.integers(30, 60))
    y = (rng.random(n) < 0.4).astype(int)
    x = rng.normal(0, 1.5, n) + 1.5 * (y - 0.5)
    p = np.round(expit(1.7 * x + 0.4), 2).clip(0.01, 0.99)
    grid = [0.0, 0.03, 0.2, 0.31, 0.5, 0.77, 0.98, 1.0]
    z, gz = np.log(p / (1 - p)), np.log(np.clip(grid, 1e-12, 1 - 1e-12) / (1 - np.clip(grid, 1e-12, 1 - 1e-12)))
    inverse = brentq(lambda b: (z * (y - expit(b * z))).sum(), 1e-6, 1e3, xtol=1e-15, rtol=8.9e-16, maxiter=500)
    t = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / (n - y.sum() + 2))
    a, b = root(lambda w: [(expit(w[0] + w[1] * z) - t).sum(), ((expit(w[0] + w[1] * z) - t) * z).sum()], [0, 1], tol=1e-14).x
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(p, y).predict(grid)
    return {"p": p.tolist(), "y": y.tolist(), "grid": grid, "temperature": expit(inverse * gz).tolist(), "platt": expit(a + b * gz).tolist(),
            "isotonic": isotonic.tolist(), "aurc": aurc(p, y)}


def main():
    kinds = ["random"] * 110 + ["ties"] * 60 + ["one_class"] * 20 + ["all_equal"] * 10 + ["binary"] * 20 + ["separated"] * 20
    out = {"fixtures": [fixture(kind, int(rng.integers(4, 28))) for kind in kinds], "paired": [paired() for _ in range(120)]}
    out["calibrators"] = [calibrators() for _ in range(100)]
    tables = [(0, 0), (1, 0), (3, 9), (12, 12), (40, 71), (300, 251)]
    out["mcnemar"] = [{"b": b, "c": c, "p": 1.0 if b + c == 0 else float(mcnemar([[0, b], [c, 0]], exact=True).pvalue)} for b, c in tables]
    families = [rng.random(k).round(4).tolist() for k in (1, 2, 5, 9)] + [[0.01, 0.01, 0.04, 0.9]]
    out["holm"] = [{"p": ps, "adjusted": multipletests(ps, method="holm")[1].tolist()} for ps in families]
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = [f'"{key}":[\n' + ",\n".join(json.dumps(item, separators=(",", ":")) for item in out[key]) + "\n]" for key in out]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
