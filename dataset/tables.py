"""CSV files that users write, as tables of text."""

import pandas as pd

from common.errors import UserError


def read_csv(path, takes):
    """A CSV file (UTF-8, first line: names of columns) as a table of stripped texts, '' where there is none.

    takes: a phrase for error messages about what the file should be. Names are in lower case; row i is line
    i + 2 of the file, also after empty lines. Raises UserError for a file that is no such table.
    """
    as_written = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "index_col": False}
    try:
        table = pd.read_csv(path, skipinitialspace=True, encoding="utf-8-sig", **as_written)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {takes}") from None
    except ValueError as error:  # of pandas' parser and of UTF-8
        raise UserError(f"{path}: not a table in CSV, UTF-8 ({str(error).strip().splitlines()[0]})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    if duplicates := table.columns[table.columns.duplicated()].tolist():
        raise UserError(f"{path}: two columns are called {duplicates[0]!r}; remove one")
    return table.fillna("").map(str.strip)
