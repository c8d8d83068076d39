"""Writes lcd.json: notes as they may stand in MIMIC's discharge.csv, with the text and the id that the LCD benchmark's
definition (src/data/mimic/mod.rs says it in words) gives each. Written from that definition; Python's own `str.split`,
`str.isspace` and `re` are what it is defined by.

    python3 tests/golden/lcd.py

The standard library is all it needs.
"""

import hashlib
import json
import pathlib
import random
import re

SEED = b"Landmark Center 401 park drive"
SPACES = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and chr(c).isspace()]
WRITTEN = [
    "Name:  ___                     Unit No:   ___\n \nAdmission Date:  ___              Discharge Date:   ___\n",
    "Windows\r\nlines\r\n\r\nand old\rMac's",
    "He said \"it hurts\" and &#039;no more&#039; &#39; &amp;#039;",
    "_ __ ___ a_b a__b a___ b _\"_ _&#039;_ ___\t___\n___",
    "tab\tseparated\tcells, comma, and \"\"two\"\" quotes",
    "ends in blanks ___  \n\n\n",
    "\n\n___ begins so",
    "<cr> already there <CR>",
    "control \x01\x02\x07\x1b and delete \x7f",
    "composed \u00e9, decomposed e\u0301, \u2264 5 \u00b5g, \U0001f600, \ufeff mark, zero\u200bwidth, \u00ad soft",
    "NA is a word here",
    "\\n is no line break, \\ and / stay",
    "".join(f"a{space}b" for space in SPACES),
    "".join(f"__{space}b" for space in SPACES),
    ",",
    "'",
    "0",
]


def cleaned(note):
    marked = note.replace("&#039;", "'")
    for old, new in [("\n", " <cr> "), ("\r", " <cr> "), ("\t", " "), ('"', "")]:
        marked = marked.replace(old, new)
    return " ".join(re.sub("__+\\s*", "", marked).split())


def identity(note_id, text):
    number = 0
    for part in [note_id.encode(), text.encode(), SEED]:
        number ^= int.from_bytes(hashlib.sha256(part).digest(), "big")
    return hex(number)[:32]


def main():
    draw = random.Random(53)
    parts = [*"abcABC019.,:;'\"_&#<>/\\-", "__", "___", "&#039;", "\r\n", "\n", "\r", "\t", "  "]
    parts += ["é", "µ", "\U0001f600", *SPACES]
    notes = list(WRITTEN)
    while len(notes) < 300:
        notes.append("x" + "".join(draw.choices(parts, k=draw.randint(1, 60))))
    rows = []
    for number, note in enumerate(notes):
        note_id = f"{10000000 + number // 3}-DS-{number % 3 + 1}"
        text = cleaned(note)
        rows.append({"note_id": note_id, "note": note, "text": text, "id": identity(note_id, text)})
    # One whose number has leading zeros: the id then holds other digits of it than it would otherwise.
    short = next(
        (note_id, text)
        for note_id, text in ((f"2{n:07}-DS-1", "Short.") for n in range(100000))
        if len(hex(sum_of(note_id, text))) < 64
    )
    rows.append({"note_id": short[0], "note": short[1], "text": short[1], "id": identity(*short)})
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(rows, indent=0) + "\n")


def sum_of(note_id, text):
    number = int.from_bytes(hashlib.sha256(SEED).digest(), "big")
    for part in [note_id, text]:
        number ^= int.from_bytes(hashlib.sha256(part.encode()).digest(), "big")
    return number


main()
