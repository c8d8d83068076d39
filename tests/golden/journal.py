"""Makes journal.json: fixtures of operating points, smooth calibration and subgroups.

    pip install scikit-learn statsmodels && python tests/golden/journal.py

Nothing here shares code or an algorithm with src/metrics: thresholds are searched by brute force in exact fractions, PPV
and its like come from scikit-learn's confusion matrix, the spline is fitted by statsmodels on patsy's natural cubic
regression spline `cr` (another basis of the same curves), and scipy gives the calibration slope as the root of the score.
"""

import json
import pathlib
import warnings
from fractions import Fraction

import numpy as np
import statsmodels.api as sm
from patsy import dmatrix
from scipy.optimize import root
from scipy.special import expit
from sklearn import metrics as sk

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20261129)

TARGETS = [["sensitivity", 0.8], ["sensitivity", 0.9], ["specificity", 0.9], ["specificity", 0.5], ["alert_rate", 0.05], ["alert_rate", 0.3]]


def freeze(p, y, aim, at):
    """The highest candidate that reaches a sensitivity; the lowest that meets specificity or alert rate."""
    at = Fraction(str(at))
    met = []
    for t in sorted(set(p)):
        called = p >= t
        if aim == "alert_rate":
            fits = Fraction(int(called.sum()), len(p)) <= at
        elif aim == "sensitivity":
            fits = y.any() and Fraction(int(called[y == 1].sum()), int((y == 1).sum())) >= at
        else:
            fits = (y == 0).any() and Fraction(int((~called)[y == 0].sum()), int((y == 0).sum())) >= at
        if fits:
            met.append(t)
    return (max(met) if aim == "sensitivity" else min(met)) if met else None


def follows(p, y, t):
    """Sensitivity, specificity, PPV, NPV, alerts per 100, number needed to evaluate."""
    hard = p >= t
    tn, fp, fn, tp = map(int, sk.confusion_matrix(y, hard, labels=[0, 1]).ravel())
    part = lambda a, b: a / b if b else None
    return [part(tp, tp + fn), part(tn, tn + fp), part(tp, tp + fp), part(tn, tn + fn), 100 * (tp + fp) / len(y), part(tp + fp, tp)]


def smooth(p, y):
    """ICI, E50, E90, Emax, and the curve at the ends of p and in the middle."""
    x = np.log(p / (1 - p))
    knots = None
    for shares in ([0.05, 0.275, 0.5, 0.725, 0.95], [0.1, 0.5, 0.9]):
        placed = np.quantile(x, shares)
        if len(set(x)) >= len(shares) and (np.diff(placed) > 0).all():
            knots = placed
            break
    ends = np.array([p.min(), (p.min() + p.max()) / 2, p.max()])
    grid = np.log(ends / (1 - ends))
    if knots is None:
        design, at = sm.add_constant(x), sm.add_constant(grid, has_constant="add")
    else:
        # patsy's natural cubic spline is linear beyond its outer knots, as Harrell's is; its columns sum to 1.
        formula = "0 + cr(x, knots=inner, lower_bound=low, upper_bound=high)"
        inner, low, high = list(knots[1:-1]), knots[0], knots[-1]
        both = np.concatenate([x, grid])
        inside = np.clip(both, low, high)
        basis = lambda v: np.asarray(dmatrix(formula, {"x": v, "inner": inner, "low": low, "high": high}))
        # patsy refuses values out of its bounds: the line beyond them is the slope there.
        h = 1e-6
        slope_low = (basis(np.array([low + h])) - basis(np.array([low]))) / h
        full = basis(inside)
        # The cubic's slope at the outer knot, exactly: it is linear in values, so Richardson's step removes the error.
        def slope(edge, sign):
            d = lambda h: sign * (basis(np.array([edge + sign * h])) - basis(np.array([edge]))) / h
            a, b, c = d(1e-2), d(5e-3), d(2.5e-3)
            ab, bc = 2 * b - a, 2 * c - b
            return (4 * bc - ab) / 3
        full = full + np.outer(np.minimum(both - low, 0), slope(low, 1)[0]) + np.outer(np.maximum(both - high, 0), slope(high, -1)[0])
        design, at = full[: len(x)], full[len(x):]
    fit = sm.GLM(y, design, family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
    # A tail of one class alone has no finite maximum: where statsmodels stops on its way there is no reference.
    if np.abs(fit.predict(design) - 0.5).max() > 0.5 - 1e-5:
        return None
    gap = np.abs(p - fit.predict(design))
    return {"knots": 0 if knots is None else len(knots), "distances": [gap.mean(), np.quantile(gap, 0.5), np.quantile(gap, 0.9), gap.max()],
            "curve": list(fit.predict(at))}


def slope(p, y):
    x = np.log(p / (1 - p))
    score = lambda w: [(expit(w[0] + w[1] * x) - y).sum(), ((expit(w[0] + w[1] * x) - y) * x).sum()]
    return root(score, [0, 1], tol=1e-14).x[1]


def measures(p, y, t):
    return [sk.roc_auc_score(y, p), slope(p, y), y.sum() / p.sum(), *[follows(p, y, t)[k] for k in (0, 2)]]


def fixture(kind):
    n = int(rng.integers(60, 121))
    y = (rng.random(n) < rng.uniform(0.3, 0.6)).astype(int)
    p = expit(rng.uniform(0.6, 1.6) * (rng.normal(0, 1.2, n) + 1.2 * (y - 0.5)) + rng.uniform(-0.5, 0.5))
    digits = {"few": 1, "ties": 2}.get(kind, 4)
    p = np.clip(np.round(p, digits), 0.05 if kind == "few" else 0.01, 0.95 if kind == "few" else 0.99)
    if kind == "four":
        p = np.array([0.1, 0.3, 0.5, 0.8])[np.searchsorted(np.quantile(p, [0.3, 0.55, 0.8]), p)]
    if kind == "two":
        p = np.where(p > 0.5, 0.7, 0.2)
    curve = smooth(p, y)
    if curve is None:
        return fixture(kind)
    dev = int(n / 2)
    group = (rng.random(n) < 0.5).astype(int)
    points = []
    for aim, at in TARGETS:
        t = freeze(p[:dev], y[:dev], aim, at)
        points.append([t, None if t is None else follows(p, y, t)])
    cells = [(y[group == g].sum(), (1 - y[group == g]).sum()) for g in (0, 1)]
    enough = all(min(cell) >= 10 for cell in cells)
    subgroup = [measures(p[group == g], y[group == g], 0.4) for g in (0, 1)] if enough else None
    return {"p": p.tolist(), "y": "".join(map(str, y)), "g": "".join(map(str, group)), "dev": dev, "points": points,
            "smooth": curve, "subgroups": subgroup}


def main():
    kinds = ["many"] * 80 + ["ties"] * 25 + ["few"] * 10 + ["four"] * 10 + ["two"] * 5
    shorten = lambda value: json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.11g}"))
    fixtures = [shorten(fixture(kind)) for kind in kinds]
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in fixtures)
    path.write_text(f'{{"targets":{json.dumps(TARGETS)},\n"fixtures":[\n{lines}\n]}}\n')


main()
