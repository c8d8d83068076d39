"""Writes annotations.parquet and annotations.json: a column for each annotation, codec and encoding of Parquet that
pyarrow writes, and the ids that a reader of text and numbers should find in it ("refused": the column as a whole).

    pip install pyarrow==26.0.1 && python tests/golden/parquet.py
"""

import datetime
import decimal
import json
import pathlib
import uuid

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
REFUSED = "refused"
decimal.getcontext().prec = 100
columns = {}
wanted = {}
compression = {"text": "snappy"}
encoding = {}


def column(name, array, ids, codec="none", encoded=None):
    columns[name] = array
    wanted[name] = ids
    compression[name] = codec
    if encoded:
        encoding[name] = encoded


TEXT = ["a", "ü"]
for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
    column(codec, pa.array(TEXT), TEXT, codec)
for encoded in ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]:
    column(encoded.lower(), pa.array(TEXT), TEXT, encoded=encoded)
for encoded in ["DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"]:
    column(encoded.lower(), pa.array([-5, 300000]), ["-5", "300000"], encoded=encoded)
column("dictionary", pa.array(TEXT).dictionary_encode(), TEXT)
column("large_string", pa.array(TEXT, pa.large_string()), TEXT)
column("string_view", pa.array(TEXT, pa.string_view()), TEXT)
column("binary", pa.array([text.encode() for text in TEXT]), TEXT)
column("json", pa.array(['"x"', "[1]"], pa.json_()), ['"x"', "[1]"])
uuids = [uuid.UUID(int=1), uuid.UUID(int=2**127 + 5)]
column("uuid", pa.array([one.bytes for one in uuids], pa.uuid()), [str(one) for one in uuids])
column("fixed", pa.array([b"ab", b"cd"], pa.binary(2)), REFUSED)
for bits in [8, 16, 32, 64]:
    signed = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    column(f"int{bits}", pa.array(signed, getattr(pa, f"int{bits}")()), [str(value) for value in signed])
    unsigned = [0, 2**bits - 1]
    column(f"uint{bits}", pa.array(unsigned, getattr(pa, f"uint{bits}")()), [str(value) for value in unsigned])
for precision, scale, values in [
    (5, 2, ["101.50", "-0.05"]),
    (18, 4, ["99999999999999.9999", "-0.0001"]),
    (38, 0, ["9" * 38, "-" + "9" * 38]),
    (38, 38, ["0." + "1" * 38, "-0." + "9" * 38]),
    (39, 0, ["1", "-" + "9" * 39]),
    (40, 2, ["101.50", "-0.05"]),
    (60, 30, ["1" * 30 + "." + "2" * 30, "-" + "9" * 30 + "." + "0" * 29 + "1"]),
    (76, 0, ["9" * 76, "-" + "9" * 76]),
    (76, 76, ["0." + "123" * 25 + "9", "-0." + "0" * 75 + "1"]),
]:
    kind = pa.decimal128 if precision <= 38 else pa.decimal256
    array = pa.array([decimal.Decimal(value) for value in values], kind(precision, scale))
    column(f"decimal_{precision}_{scale}", array, values)
days = [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]
column("date32", pa.array(days), [day.isoformat() for day in days])
column("date64", pa.array(days, pa.date64()), [day.isoformat() for day in days])
column("time32", pa.array([0, 86_399_999], pa.time32("ms")), ["00:00:00", "23:59:59.999"])
column("time64", pa.array([1_000, 86_399_999_999_000], pa.time64("ns")), ["00:00:00.000001", "23:59:59.999999"])
for unit, second in [("ms", 10**3), ("us", 10**6), ("ns", 10**9)]:
    for zone, mark in [(None, ""), ("Europe/Zurich", "Z")]:
        times = pa.array([-second, 1_709_210_096 * second], pa.timestamp(unit, zone))
        column(f"{unit}{mark}", times, [f"1969-12-31T23:59:59{mark}", f"2024-02-29T12:34:56{mark}"])
column("list", pa.array([["a"], ["b"]]), REFUSED)
column("map", pa.array([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())), REFUSED)
column("struct", pa.array([{"a": 1}, {"a": 2}]), REFUSED)

table = pa.table({**columns, "text": pa.array(["a note", "another"])})
pq.write_table(
    table,
    HERE / "annotations.parquet",
    compression=compression,
    use_dictionary=["dictionary"],
    column_encoding=encoding,
    data_page_version="2.0",
    store_schema=False,
)
(HERE / "annotations.json").write_text(json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
