"""Sums over an export, by programs that know nothing of lovable: sums.py FORMAT FILE"""

import json
import sys

format, file = sys.argv[1:]
columns = ["input_tokens", "output_tokens", "cost_usd"]

if format == "sqlite":
    import sqlite3

    db = sqlite3.connect(file)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    attempts = db.execute("SELECT count(*) FROM attempts JOIN requests ON request = id").fetchone()[0]
    assert attempts == db.execute("SELECT sum(attempts) FROM requests").fetchone()[0]
    sums = ", ".join(f"sum({it})" for it in columns)
    row = db.execute(
        f"SELECT count(*), sum(ending IN ('delivered', 'resumed')), count(DISTINCT request_id), {sums} FROM requests"
    ).fetchone()
elif format == "csv":
    import csv

    rows = list(csv.DictReader(open(file, newline="", encoding="utf-8")))
    number = lambda name: sum(float(it[name]) for it in rows if it[name])
    good = sum(it["ending"] in ("delivered", "resumed") for it in rows)
    row = [len(rows), good, len({it["request_id"] for it in rows}), *map(number, columns)]
elif format == "jsonl":
    rows = [json.loads(line) for line in open(file, encoding="utf-8")]
    tokens = lambda name: sum(it["usage"][name] or 0 for it in rows)
    good = sum(it["ending"] in ("delivered", "resumed") for it in rows)
    cost = sum(it["cost_usd"] or 0 for it in rows)
    row = [len(rows), good, len({it["request_id"] for it in rows}), tokens(columns[0]), tokens(columns[1]), cost]
elif format == "parquet-duckdb":
    import duckdb

    sums = ", ".join(f"sum({it})" for it in columns)
    [row] = duckdb.sql(
        "SELECT count(*), count(*) FILTER (ending IN ('delivered', 'resumed')), count(DISTINCT request_id), "
        # Since DuckDB 2 `at` is a word of its own.
        f"{sums} FROM read_parquet('{file}') WHERE \"at\" > TIMESTAMPTZ '2020-01-01 00:00:00Z'"
    ).fetchall()
elif format == "parquet-pandas":
    import pandas

    table = pandas.read_parquet(file)
    assert str(table["at"].dtype).startswith("datetime64"), table.dtypes
    good = int(table["ending"].isin(["delivered", "resumed"]).sum())
    row = [len(table), good, table["request_id"].nunique(), *(table[it].sum() for it in columns)]
else:
    sys.exit(f"no format {format}")

names = ["requests", "good", "ids", *columns]
print(json.dumps({name: float(value or 0) for name, value in zip(names, row)}))
