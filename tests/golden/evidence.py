#!/usr/bin/env python3
"""Evidence by brute force, from the ruling alone: 160 random texts with explanations that quote them, well or badly.

    python3 tests/golden/evidence.py > tests/golden/evidence.json
"""

import json
import random
import re
import unicodedata

QUOTE, SPAN = 3, 6
QUOTES = re.compile('"([^"\n]*)"|“([^”\n]*)”|„([^“”\n]*)[“”]|«([^»\n]*)»')


def words(text):
    """(normal form, begin, end) of each run of letters and digits with their combining marks."""
    found, begin = [], None
    for at, letter in enumerate(text + " "):
        inside = letter.isalnum() or (begin is not None and unicodedata.category(letter)[0] == "M")
        if inside and begin is None:
            begin = at
        elif not inside and begin is not None:
            found.append((unicodedata.normalize("NFKC", text[begin:at]).lower(), begin, at))
            begin = None
    return found


def place(fields, said):
    """The first place where these words stand in a row, fields by name."""
    for field in sorted(fields):
        there = words(fields[field])
        for at in range(len(there) - len(said) + 1):
            if [w[0] for w in there[at : at + len(said)]] == said:
                return field, there[at][1], there[at + len(said) - 1][2]
    return None


def find(fields, explanation):
    said = words(explanation)
    entries, whole, bad = [], set(), []

    def entry(first, last, where, quoted, found):
        field, start, end = where or (None, None, None)
        return {
            "field": field, "start": start, "end": end, "explanation_start": said[first][1],
            "explanation_end": said[last - 1][2], "quoted": quoted, "words": last - first, "found": found,
        }

    for match in QUOTES.finditer(explanation):
        low, high = match.start() + 1, match.end() - 1
        inside = [i for i, w in enumerate(said) if low <= w[1] and w[2] <= high]
        if len(inside) < QUOTE:
            continue
        first, last = inside[0], inside[-1] + 1
        where = place(fields, [w[0] for w in said[first:last]])
        if where:
            entries.append(entry(first, last, where, True, last - first))
            whole.update(range(first, last))
        else:
            bad.append((first, last))
    in_span, at = set(), 0
    while at < len(said):
        end = at
        while end < len(said) and end not in whole:
            end += 1
        # The longest stretch first.
        for last in range(end, at + SPAN - 1, -1):
            where = place(fields, [w[0] for w in said[at:last]])
            if where:
                entries.append(entry(at, last, where, False, last - at))
                in_span.update(range(at, last))
                at = last
                break
        else:
            at += 1
    for first, last in bad:
        entries.append(entry(first, last, None, True, len(in_span & set(range(first, last)))))
    return sorted(entries, key=lambda e: (e["explanation_start"], not e["quoted"]))


def fixture(rng):
    vocabulary = ["pain", "Chest", "no", "BP", "120", "fever", "café", "cafe\u0301", "ﬁne", "x", "Σας", "mg"]
    vocabulary.append("1½")
    vocabulary = vocabulary[: rng.randint(2, len(vocabulary))]
    between = [" ", " ", " ", ", ", "/", "-", "\n", ". "]
    text = lambda n: "".join(rng.choice(vocabulary) + rng.choice(between) for _ in range(n))
    fields = {name: text(rng.randint(0, 40)) for name in rng.sample(["abstract", "claim", "text"], rng.randint(1, 3))}
    marks = [('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"), ("", ""), ("", ""), ('"', ""), ("'", "'")]
    parts = []
    for _ in range(rng.randint(1, 5)):
        piece = text(rng.randint(1, 9))
        if rng.random() < 0.6:
            source = rng.choice(list(fields.values())).split(" ")
            at = rng.randrange(len(source))
            piece = " ".join(source[at : at + rng.randint(1, 14)])
            piece = rng.choice([str, str.upper, str.lower, lambda t: unicodedata.normalize("NFD", t)])(piece)
        opening, closing = rng.choice(marks)
        parts.append(opening + piece + closing)
    explanation = rng.choice([" ", " so ", ", "]).join(parts)
    return {"fields": fields, "explanation": explanation, "evidence": find(fields, explanation)}


def main():
    rng = random.Random(47)
    fixtures = [fixture(rng) for _ in range(160)]
    kinds = [(e["field"] is not None, e["quoted"]) for f in fixtures for e in f["evidence"]]
    assert min(kinds.count(kind) for kind in [(True, True), (True, False), (False, True)]) > 30, kinds
    print("[\n" + ",\n".join(json.dumps(f, ensure_ascii=True) for f in fixtures) + "\n]")


main()
