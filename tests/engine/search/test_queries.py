"""Tables of query images: what is read, and that results depend on neither order nor interruptions."""

import json
import shutil

import pandas as pd
import pytest
from children import call

from common.errors import UserError
from dataset.mini_vigor import writer
from engine.search import queries
from engine.search.queries import read_queries


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "CSV"),
        ("picture\na.jpg\n", "columns picture; .*file"),
        ("file,heigth\na.jpg,3\n", "columns file, heigth"),
        ("file,latitude\n,\n", "names no image"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=f"^{tmp_path / 'table.csv'}: .*{message}"):
        read_queries(tmp_path / "table.csv")


def test_lines_are_counted_as_an_editor_does(tmp_path):
    (tmp_path / "table.csv").write_text("File, radius\na.jpg, 50\n\nb.jpg,\n")
    assert read_queries(tmp_path / "table.csv") == [
        (2, "a.jpg", tmp_path / "a.jpg", {"radius": "50"}),
        (4, "b.jpg", tmp_path / "b.jpg", {}),
    ]


@pytest.mark.slow
def test_a_table_goes_on_where_it_stopped_in_any_order(tmp_path, monkeypatch, capsys):
    small = {"seed": 5, "panoramas": 6, "panorama_width": 256, "progress": False, "workers": 1}
    root = writer.make(tmp_path / "city", cities=["Seattle"], **small)
    images = sorted((root / "Seattle/panorama").iterdir())[:3]
    rows = [
        {"file": file, **dict(zip(("latitude", "longitude"), file.name.split(",")[1:3], strict=True))}
        for file in images
    ]
    rows += [{"file": "none.jpg"}, rows[0] | {"latitude": 95}, rows[1] | {"latitude": 10}]
    table = pd.DataFrame(rows).assign(heading=0, radius=40)
    searched = []
    search = queries._search
    monkeypatch.setattr(queries, "_search", lambda s, q, *a: searched.append(q.line) or search(s, q, *a))

    def found(name, table, again=False):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        table.to_csv(folder / "table.csv", index=False)
        shutil.copy(images[0], folder / "copy.jpg")
        where = f"--index_root {tmp_path / 'index'} --output_dir {folder} --pool 3 --top 2 --city Seattle"
        call(
            "search_VIGOR",
            f"--model_path pretrained --dataset_root {root} {where} --queries {folder}/table.csv",
        )
        places = json.loads((folder / "table_places.geojson").read_text())["features"]
        return pd.read_csv(folder / "table_places.csv"), places

    first, places = found("first", table)
    says = capsys.readouterr().out
    assert "6 images; 3 failed" in says and searched == [2, 3, 4, 5, 6, 7]
    assert first["error"].notna().tolist() == [False] * 3 + [True] * 3
    for error, part in zip(first["error"][3:], ("none.jpg", "latitude", "within 40 m"), strict=True):
        assert part in error
    assert (first["latitude"][:3] - table["latitude"][:3].astype(float)).abs().max() < 40 / 111_000
    assert {feature["properties"]["rank"] for feature in places} <= {1, 2}

    searched.clear()
    with open(tmp_path / "first/table_places.0.jsonl", "ab") as file:
        file.write(b'\n[]\n{"found": {}}\n\xff\n')  # as of an editor
    again, _ = found("first", table)
    assert searched == [5, 6, 7], "only what failed is tried again"
    pd.testing.assert_frame_equal(first, again)
    assert "3 of them by earlier commands" in capsys.readouterr().out

    turned, _ = found("turned", table[::-1])
    pd.testing.assert_frame_equal(
        turned[::-1].drop(columns="error").reset_index(drop=True), first.drop(columns="error")
    )
