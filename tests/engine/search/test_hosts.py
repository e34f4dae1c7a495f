"""Two hosts, each a network namespace with its own address, build an index and search; one of them dies."""

import ctypes
import json
import os
import signal
import subprocess

import numpy as np
import pandas as pd
import pytest
import zarr
from children import call, script, start

from dataset.mini_vigor import writer
from engine.search import index, parts, queries

pytestmark = pytest.mark.slow
NEW_NETWORK = 0x40000000  # CLONE_NEWNET of Linux
CHUNK = 16  # cells: many parts of a small city
PANORAMAS = 6


def ip(words):
    subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def hosts():
    """Names of two network namespaces that reach each other at 10.77.0.1 and 10.77.0.2."""
    one, two = names = [f"vigor{os.getpid()}{letter}" for letter in "ab"]
    try:
        for name in names:
            ip(f"netns add {name}")
        ip(f"link add link0 netns {one} type veth peer name link0 netns {two}")
        for number, name in enumerate(names, 1):
            ip(f"-n {name} address add 10.77.0.{number}/24 dev link0")
            ip(f"-n {name} link set link0 up")
            ip(f"-n {name} link set lo up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made: {getattr(error, 'stderr', None) or error}")
    else:
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small city, and a table of its panoramas; one panorama is missing."""
    small = {"seed": 5, "panoramas": 2 * PANORAMAS, "panorama_width": 256, "progress": False, "workers": 1}
    root = writer.make(tmp_path_factory.mktemp("city"), cities=["Seattle"], **small)
    images = sorted((root / "Seattle/panorama").iterdir())[:PANORAMAS]
    rows = [{"file": path, "radius": 60} for path in [*images, root / "none.jpg"]]
    for row in rows[:PANORAMAS]:
        _, row["latitude"], row["longitude"], _ = row["file"].name.split(",")
    pd.DataFrame(rows).assign(heading=0).to_csv(root / "table.csv", index=False)
    return root


def words(root, folder, which):
    places = f"--output_dir {folder} --index_root {folder / 'index'} --dpi 30 --pool 4"
    return f"--model_path pretrained --dataset_root {root} --city Seattle --device cpu {places} {which}"


def set_chunk():
    index.CHUNK = parts.CHUNK = CHUNK


def on_host(namespace, line, patch):
    """Run the script on a host."""
    with open(f"/run/netns/{namespace}") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), NEW_NETWORK) == 0
    set_chunk()
    script("search_VIGOR", line, patch)


def die_after_a_part():
    write = parts.Builder._write

    def write_and_die(*arguments):
        write(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    parts.Builder._write = write_and_die


def die_after_a_query():
    search = queries._search

    def search_and_die(searcher, query, *arguments):
        if query.line > 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return search(searcher, query, *arguments)

    queries._search = search_and_die


def run_on(hosts, output, line, patch=None):
    """[(exit status, what it said)] of the script on each host; the second one is patched."""
    common = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29477", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    common["GLOO_SOCKET_IFNAME"] = "link0"
    files = [output.with_name(f"{output.name}.{rank}") for rank in range(2)]
    group = [
        start(files[rank], on_host, name, line, patch if rank else None, RANK=str(rank), **common)
        for rank, name in enumerate(hosts)
    ]
    for process in group:
        process.join(300)
    return [(process.exitcode, file.read_text()) for process, file in zip(group, files, strict=True)]


def chunks_of(folder):
    """{name: bytes} of the chunks of an index."""
    (place,) = (folder / "index").iterdir()
    return {path.name: path.read_bytes() for path in place.glob("c.*")}


def test_two_hosts_do_what_one_process_does_and_one_may_die(hosts, root, tmp_path, monkeypatch):
    for module in (index, parts):
        monkeypatch.setattr(module, "CHUNK", CHUNK)
    one, two = tmp_path / "one", tmp_path / "two"
    table = f"--queries {root / 'table.csv'}"
    call("search_VIGOR", words(root, one, "--idx 0"))
    call("search_VIGOR", words(root, one, table))

    # A host is killed while it builds the index: the other one ends with one line.
    (status, said), (killed, _) = run_on(hosts, tmp_path / "build", words(root, two, table), die_after_a_part)
    assert killed == -signal.SIGKILL and status not in (0, None), said
    assert said.strip().splitlines()[-1].count("the connection to another process is lost") == 1
    (place,) = (two / "index").iterdir()
    built = {path.name: path.stat().st_mtime_ns for path in place.glob("part.*")}
    assert 1 < len(built) < len(chunks_of(one))

    # The same command builds the rest; a host is killed while it searches.
    line = words(root, two, table)
    (status, said), (killed, _) = run_on(hosts, tmp_path / "table", line, die_after_a_query)
    assert killed == -signal.SIGKILL and status not in (0, None), said
    assert all((place / name).stat().st_mtime_ns == stamp for name, stamp in built.items())
    assert not (two / "table_places.csv").exists()

    # And the same command searches for the rest: nothing is lost, nothing is done twice.
    ended = run_on(hosts, tmp_path / "rest", line)
    assert [status for status, _ in ended] == [0, 0], ended
    lines = "\n".join(path.read_text() for path in two.glob("*.jsonl")).split("\n")
    records = [json.loads(line) for line in lines if line]
    done = [record["key"] for record in records if "error" not in record["found"]]
    assert len(done) == len({*done}) == PANORAMAS
    assert "7 images" in ended[0][1] and "of them by earlier commands; 1 failed" in ended[0][1]
    found, again = (pd.read_csv(folder / "table_places.csv") for folder in (one, two))
    pd.testing.assert_frame_equal(found, again, rtol=1e-5, atol=1e-5)
    assert found["error"].notna().tolist() == [False] * PANORAMAS + [True]

    # One image is searched for by both together.
    ended = run_on(hosts, tmp_path / "single", words(root, two, "--idx 0"))
    assert [status for status, _ in ended] == [0, 0], ended
    assert chunks_of(two).keys() == chunks_of(one).keys()
    arrays = [zarr.open_array(next((folder / "index").iterdir()), mode="r") for folder in (one, two)]
    for name in chunks_of(one):
        block = tuple(map(int, name.split(".")[1:]))
        np.testing.assert_allclose(*(array.blocks[block] for array in arrays), atol=2e-3)
    files = [folder / "samearea_test_Seattle_000000.geojson" for folder in (one, two)]
    places = [json.loads(file.read_text()) for file in files]
    one, two = ([feature["geometry"]["coordinates"] for feature in part["features"]] for part in places)
    np.testing.assert_allclose(one, two, atol=1e-7)
    one, two = ([f["properties"].get("probability", 0) for f in part["features"]] for part in places)
    np.testing.assert_allclose(one, two, atol=1e-5)
