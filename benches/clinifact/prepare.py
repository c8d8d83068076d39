#!/usr/bin/env python3
"""CliniFact CSV -> canonical JSONL with the simplest honest explanation: the abstract's own conclusion.

    python prepare.py CSV OUT.jsonl [--first N] [--three]

Needs nothing beyond the standard library. `explanation` is the text of the abstract's CONCLUSION section (trial
registration lines left out), or, where the abstract has no such heading, its last sentence; at most 60 words, cut at a
sentence end where one fits. It is what the outcome sentence of a paper says, not a model's reasoning: `clsgen construct`
makes better targets. Label 1 = TRUE; labels 0 and 2 = not supported, as in the CLSGen paper; with `--three` the labels
stay as CliniFact's paper has them: 0 inconclusive, 1 evidence, 2 not enough information.
"""
import argparse
import csv
import json
import os
import re

HEADING = re.compile(r"(?:^|[\s.])(?:[A-Z/& ]*CONCLUSIONS?[A-Z/& ]*|Conclusions?|Interpretation|INTERPRETATION)\s*[:.]\s*", re.M)
REGISTRATION = re.compile(r"(?im)^.*\b(trial registration|registration|funding|registered)\b\s*[:.].*$|\bNCT\d{8}\b.*$")
SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]][.!?])\s+(?=[A-Z(])")


def explanation(abstract: str, words: int = 60) -> str:
    """The abstract's conclusion in at most `words` words."""
    text = REGISTRATION.sub("", abstract).strip()
    headings = list(HEADING.finditer(text))
    if headings:
        sentences = SENTENCE_END.split(text[headings[-1].end():].strip())
    else:
        sentences = SENTENCE_END.split(text)[-1:]
    kept: list[str] = []
    for sentence in sentences:
        sentence = " ".join(sentence.split())
        if kept and len(" ".join(kept + [sentence]).split()) > words:
            break
        kept.append(sentence)
    return " ".join(" ".join(kept).split()[:words]) or " ".join(abstract.split()[-words:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv")
    parser.add_argument("out")
    parser.add_argument("--first", type=int, help="only the first N records")
    parser.add_argument("--three", action="store_true", help="the data set's own three labels")
    args = parser.parse_args()
    csv.field_size_limit(1 << 30)
    with open(args.csv, newline="", encoding="utf-8-sig") as source:
        rows = list(csv.DictReader(source))[: args.first]
    with open(os.open(args.out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        for row in rows:
            record = {
                "id": row["index"],
                "claim": row["claim"],
                "abstract": row["article_abstract"],
                "label": int(row["label"]) if args.three else int(row["label"] == "1"),
                "explanation": explanation(row["article_abstract"]),
                "group": row["nctId"],
            }
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{len(rows)} records -> {args.out}")


if __name__ == "__main__":
    main()
