"""A table of query images, each searched for around its guess: results as a table and GeoJSON.

Each process of torchrun searches for its part of the table and appends every result to a file of its own at
once. The same command skips what these files hold, so that a process or machine that dies loses only the
image that it was looking for; images that failed are tried again.
"""

import hashlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from common.errors import UserError
from common.files import file_size, resumable, write_bytes
from common.settings import BEARING, LATITUDE, LONGITUDE, RADIUS, checked
from common.words import counted
from dataset.exif import read_header
from dataset.own import Needs, own_query
from dataset.tables import read_csv
from engine import distributed
from engine.search.calibration import of_process
from engine.search.report import features_of

COLUMNS = {"latitude": LATITUDE, "longitude": LONGITUDE, "radius": RADIUS, "heading": BEARING}


class Query(NamedTuple):
    """A line of the table."""

    line: int  # in the file, from 2
    listed: str  # the image as the table names it
    file: Path
    words: dict  # of COLUMNS as they are written; those that are empty are left out


def read_queries(path):
    """The `Query`s of a CSV file with a column `file`, relative to it, and any of COLUMNS. UserError."""
    needs = f"--queries takes a CSV file, UTF-8, with the column file and any of {', '.join(COLUMNS)}"
    table = read_csv(path, needs)
    if "file" not in table.columns or not {*table.columns} <= {"file", *COLUMNS}:
        raise UserError(f"{path}: has the columns {', '.join(table.columns)}; {needs}")
    queries = []
    for line, row in enumerate(table.to_dict("records"), 2):
        if row["file"]:
            words = {name: row[name] for name in COLUMNS if row.get(name)}
            queries.append(Query(line, row["file"], Path(path).parent / row["file"], words))
    if not queries:
        raise UserError(f"{path}: names no image; {needs}")
    return queries


def search_table(searcher, queries, output, name, identity, *, radius, top, pool):
    """Search for all `Query`s and write `<name>.csv` and `<name>.geojson`; returns a line, '' but in rank 0.

    output: the folder. identity: a text that says what else the results depend on.
    radius: metres around a guess without one; top: places in the GeoJSON; pool: cells to match in detail.
    """
    identity = identity, radius, top, pool
    keys = [_key(query, identity) for query in queries]
    done = distributed.broadcast(_read_done(output, name) if distributed.rank() == 0 else None)
    todo = [i for k, i in {k: i for i, k in enumerate(keys)}.items() if k not in done]
    mine, path = {}, output / f"{name}.{distributed.rank()}.jsonl"
    for i in of_process(todo, "searching"):
        try:
            mine[keys[i]] = _search(searcher, queries[i], radius, top, pool)
        except UserError as error:
            says = f"{queries[i].file}: " if str(queries[i].file) not in str(error) else ""
            mine[keys[i]] = {"error": f"{says}{error}"}
            tqdm.write(f"line {queries[i].line}: {error}", file=sys.stderr)
        with resumable(path), open(path, "a", encoding="utf-8") as file:
            # Begun on a new line: a process that was killed may have left a part of one.
            file.write("\n" + json.dumps({"key": keys[i], "found": mine[keys[i]]}) + "\n")
    for part in distributed.gather(mine):
        done |= part
    if distributed.rank() > 0:
        return ""
    rows, features = [], []
    for query, k in zip(queries, keys, strict=True):
        found = done[k]
        rows.append({"file": query.listed, **_best(found), "error": found.get("error", "")})
        for feature in found.get("places", []):
            feature["properties"] = {"file": query.listed, **feature["properties"]}
            features.append(feature)
    write_bytes(output / f"{name}.csv", pd.DataFrame(rows).to_csv(index=False).encode(), durable=True)
    content = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    write_bytes(output / f"{name}.geojson", f"{content}\n".encode(), durable=True)
    failed = sum(bool(row["error"]) for row in rows)
    old = len(queries) - len(todo)
    before = f", {old} of them by earlier commands" if old else ""
    return f"{counted(len(queries), 'image')}{before}; {failed} failed: {output / name}.csv and .geojson"


def _key(query, identity):
    """Digits that change with what the result of a `Query` depends on."""
    about = str(query.file), file_size(query.file), query.words, identity
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def _search(searcher, query, radius, top, pool):
    """{places: features of GeoJSON, best first, notes: lines} of a query. Raises UserError."""
    known = {}
    for column, word in query.words.items():
        known[column] = checked(column, COLUMNS[column], word)
    if ("latitude" in known) != ("longitude" in known):
        raise UserError("a guess has a latitude and a longitude; give both or none")
    kind = "photo" if searcher.view.photographs else "panorama"
    image = {kind: str(query.file), "heading": known.get("heading")}
    sample, notes = own_query(searcher.view, Needs.of(searcher.network), **image)
    reach = known.get("radius", radius)
    if "latitude" in known:
        near = known["latitude"], known["longitude"], reach
    else:
        near, note = searcher.prior_of(read_header(query.file).place, reach)
        notes = [*notes, *filter(None, [note])]
    places = searcher.places(sample, searcher.scan(sample, near=near), top, max(pool, top))
    return {"places": features_of(places), "notes": notes}


def _best(found):
    """The columns of the best place."""
    if "error" in found:
        return {}
    best = found["places"][0]
    longitude, latitude = best["geometry"]["coordinates"]
    about = {name: value for name, value in best["properties"].items() if name != "rank"}
    return {"latitude": latitude, "longitude": longitude, **about, "notes": "; ".join(found["notes"])}


def _read_done(output, name):
    """{key: result} of what earlier commands found."""
    done = {}
    for path in sorted(output.glob(f"{name}.*.jsonl")):
        for line in path.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):  # empty, cut off by a kill, or changed
                found = (record := json.loads(line))["found"]
                if found["places"] and isinstance(found["notes"], list):
                    done[record["key"]] = found
    return done
