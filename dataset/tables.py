"""CSV files that users write, as tables of text."""

import csv

import pandas as pd

from common.errors import UserError
from dataset.decoding import check_file


def read_csv(path, takes, short=True):
    """A CSV file (UTF-8, first line: names of columns) as a table of stripped texts, '' where there is none.

    takes: a phrase for error messages about what the file should be. Names are in lower case; row i is line
    i + 2 of the file, also after empty lines. short: whether cells may be missing at a line's end; they are
    empty. Raises UserError for a file that is no such table, and for a line with more cells than the first.
    """
    try:
        with open(check_file(path, takes), encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, skipinitialspace=True, strict=True))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {takes}") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a table in CSV, UTF-8 ({error})") from None
    if not rows or not rows[0]:
        raise UserError(f"{path}: not a table in CSV: its first line is empty; {takes}")
    names, *rows = [[cell.strip() for cell in row] for row in rows]
    names = [name.lower() for name in names]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path}: two columns are called {duplicates[0]!r}; remove one")
    for number, row in enumerate(rows, 2):
        if len(row) > len(names) or (row and not short and len(row) < len(names)):
            says = f"expected {len(names)} cells, as the first line has, not {len(row)}"
            raise UserError(f"{path}, line {number}: {says}; quote cells that hold commas")
        row += [""] * (len(names) - len(row))
    return pd.DataFrame(rows, columns=names, dtype=str)
