"""The table of real pairs, real.csv, and the download of their images from the repositories that it names.

The images belong to others and are no part of this project.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

from tqdm import tqdm

from common.errors import UserError
from common.files import file_hash, locked, resumable, write_bytes
from common.settings import RESOLUTION, Check, Number, checked
from dataset.city.provider import REFUSED, Missing, fetch, make_session
from dataset.tables import read_csv

TABLE = Path(__file__).with_name("real.csv")
IMAGES = ("panorama", "satellite")
ADDRESS = "https://raw.githubusercontent.com/{repository}/{commit}/{path}"
USER_AGENT = "CVM-VIGOR benchmarks.real (research; python-requests)"
_PLACES = ("{repository}", "{commit}", "{path}")
ADDRESS_CHECK = Check(
    f"an address with {', '.join(_PLACES)}",
    lambda value: all(place in value for place in _PLACES),
    unit="URL",
)


class RealPair(NamedTuple):
    """A panorama and a satellite image of a real place, with labels and sources; numbers are floats."""

    name: str
    kind: str  # of place
    metres_per_pixel: float  # of the satellite image as stored
    camera_row: float  # pixels of the satellite image as stored
    camera_col: float
    heading: float  # bearing of the panorama's centre column from the satellite image's up, degrees clockwise
    top_deg: float  # how far the panorama reaches above the horizon
    bottom_deg: float  # and below it
    uncertainty_m: float  # within which the camera's position is known
    repository: str
    commit: str
    panorama: str  # paths in the repository, and hashes of the files
    panorama_sha256: str
    satellite: str
    satellite_sha256: str

    def file(self, root, image):
        """The path of its 'panorama' or 'satellite' under a root."""
        return Path(root, self.name, image + PurePosixPath(getattr(self, image)).suffix)

    def sha256(self, image):
        """The hash of its 'panorama' or 'satellite' by the table."""
        return getattr(self, f"{image}_sha256")

    def whole(self, root):
        """Whether both images lie under a root."""
        return all(self.file(root, image).is_file() for image in IMAGES)


def read_pairs(table=TABLE):
    """The `RealPair`s of a table, in its order. Raises UserError, with the file and the line."""
    numbers = [name for name, kind in RealPair.__annotations__.items() if kind is float]
    lines = read_csv(table, f"--table takes a copy of {TABLE.name}")
    if lines.empty or not {*RealPair._fields} <= {*lines.columns}:
        needs = ", ".join(RealPair._fields)
        raise UserError(f"{table}: --table takes a CSV file of pairs with the columns {needs}")
    pairs, checks = [], dict.fromkeys(numbers, Number()) | {"metres_per_pixel": RESOLUTION}
    for number, line in enumerate(lines.to_dict("records"), 2):
        if any(line.values()):
            where = f"{table}, line {number}: "
            values = {name: checked(f"{where}{name}", check, line[name]) for name, check in checks.items()}
            pairs.append(RealPair(**{name: line[name] for name in RealPair._fields} | values))
    return pairs


def other_files(root, pairs):
    """The paths of the images under a root whose hashes are not those of the table."""
    files = [(pair.file(root, image), pair.sha256(image)) for pair in pairs for image in IMAGES]
    return [path for path, expected in files if file_hash(path) != expected]


def download(root, pairs, address=ADDRESS):
    """Download the images of pairs, one at a time. Files that are there with the right hash are kept.

    address: of a file, with {repository}, {commit} and {path}. Raises UserError at once where the server
    refuses or is out of reach, and at the end where images are missing; the same command continues.
    """
    wanted, failed = [(pair, image) for pair in pairs for image in IMAGES], []
    session = make_session(USER_AGENT)
    with locked(root, "is downloading to"), tqdm(wanted, "downloading", unit="image", disable=None) as bar:
        for pair, image in bar:
            path, expected = pair.file(root, image), pair.sha256(image)
            if path.is_file() and file_hash(path) == expected:
                continue
            numbers = {"repository": pair.repository, "commit": pair.commit}
            url = address.format(**numbers, path=quote(getattr(pair, image)))
            try:
                data = _fetch(session, url, expected)
            except Missing as fault:
                failed.append(str(fault))
                continue
            with resumable(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, data)
    if failed:
        way_out = "the same command tries again, and without --download the others are measured"
        raise UserError(
            f"{len(failed)} of {len(wanted)} images are missing; {way_out}; the first: {failed[0]}"
        )


def _fetch(session, url, expected):
    """The bytes of a file with that hash. Raises `Missing`, and UserError if the server is of no use."""
    try:
        answer = fetch(session, url)
    except Missing as fault:
        raise UserError(f"{fault}; the same command continues") from None
    status = f"status {answer.status_code} {answer.reason}"
    if answer.status_code in REFUSED:
        raise UserError(f"{url}: the server refuses ({status}); wait, then the same command continues")
    if answer.status_code != 200:
        raise Missing(f"{url}: {status}")
    found = hashlib.sha256(answer.content).hexdigest()
    if found != expected:
        raise Missing(f"{url}: {len(answer.content)} bytes whose SHA-256 is {found}, expected {expected}")
    return answer.content
