#!/usr/bin/env python3
"""Evidence Inference (JSON Lines, gzip) -> JSONL for `data.format = "evidence-inference"`.

    python prepare.py train.jsonl.gz OUT.jsonl [--first N] [--characters 3000]

Needs nothing beyond the standard library. The article's text is cut to its first 3,000 characters (title and abstract,
mostly); id, pmcid (the group), intervention, comparator, outcome and label_code are kept as they are. With `--first`,
every k-th record is taken, so that the articles stay as mixed as in the whole file.
"""
import argparse
import gzip
import json
import os

FIELDS = ("id", "pmcid", "intervention", "comparator", "outcome", "label_code")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--first", type=int, help="only N records, evenly spaced")
    parser.add_argument("--characters", type=int, default=3000)
    args = parser.parse_args()
    with gzip.open(args.source, "rt", encoding="utf-8") as source:
        rows = [json.loads(line) for line in source]
    if args.first and args.first < len(rows):
        rows = [rows[i * len(rows) // args.first] for i in range(args.first)]
    with open(os.open(args.out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        for row in rows:
            record = {field: row[field] for field in FIELDS} | {"text": row["text"][: args.characters]}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{len(rows)} records -> {args.out}")


if __name__ == "__main__":
    main()
