"""The page's six examples, drawn streets not used in any training; this command draws examples/.

    python -m engine.app.examples
    python -m engine.app.examples --output_dir /tmp/examples

Each is a street image, a satellite image and a line of examples.json with what is known of them.
"""

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from common import flags
from common.camera import cut_photographs, pinhole
from common.geometry import wrap_degrees
from dataset.decoding import encode
from dataset.images import read_whole
from dataset.mini_vigor.street import draw_street
from dataset.vigor import roll_panorama

FOLDER = Path(__file__).with_name("examples")
_TABLE, _MOST_PX, _QUALITY = "examples.json", 1024, 80
ZOOM = 20  # of the satellite images, at which `metres_per_pixel` counts
_PHOTO_PX, _CROP_DEG = (480, 640), (38.6, 26.9)  # above and below the horizon, as CVUSA's
# Name, caption, style and seed of the world, what is known or done beside. The seeds were chosen among five
# of each style, so that the page shows good answers and a ridge, which needs little ground in view. They are
# no measure of accuracy.
CHOSEN = (
    ("suburb", "A suburb", "varied", 900_004, {"heading": 0}),
    ("downtown", "Downtown", "downtown", 900_001, {"heading": 0}),
    ("rural", "A country road", "rural", 900_001, {"heading": 0, "vertical": (20.0, 12.0)}),
    ("unknown", "Heading unknown", "varied", 900_001, {"turned": 130}),
    ("photograph", "A photograph", "varied", 900_002, {"heading": 270, "hfov": 90}),
    ("cropped", "A cropped panorama", "rural", 900_003, {"heading": 0, "vertical": _CROP_DEG}),
)


def load_examples(folder=FOLDER):
    """The examples: [{'name', 'caption', 'street', 'satellite', inputs}, ...]; files are Paths."""
    examples = json.loads((folder / _TABLE).read_text("utf-8"))
    return [one | {name: folder / one[name] for name in ("street", "satellite")} for one in examples]


def street_image(panorama, known):
    """The street image of an example, cut from a panorama (H, W, 3) with north in its centre."""
    if "hfov" in known:
        height, width = _PHOTO_PX
        camera = pinhole(width, height, hfov=known["hfov"], heading=known["heading"])[None]
        image = torch.from_numpy(panorama).permute(2, 0, 1)[None]
        return cut_photographs(image, camera, _PHOTO_PX)[0].permute(1, 2, 0).round().byte().numpy()
    panorama = roll_panorama(panorama, known.get("turned", 0))[0]
    height, (above, below) = len(panorama), known.get("vertical", (90, 90))
    first, end = (round(height * (90 + degrees) / 180) for degrees in (-above, below))
    return np.ascontiguousarray(panorama[first:end])


def draw_examples(folder):
    """Draw all examples into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for name, caption, styles, seed, known in CHOSEN:
        with tempfile.TemporaryDirectory() as place:
            street = draw_street(Path(place, "street"), seed, styles)
            panorama, satellite = (read_whole(file, _MOST_PX) for file in street[:2])
        files = {"street": f"{name}.jpg", "satellite": f"{name}_above.jpg"}
        images = street_image(panorama, known), satellite
        for file, image in zip(files.values(), images, strict=True):
            (folder / file).write_bytes(encode(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
        told = {key: value for key, value in known.items() if key != "turned"}
        places = {"centre": street.centre, "truth": street.truth, "zoom": ZOOM}
        facing = float(wrap_degrees(known.get("heading", known.get("turned", 0))))
        table.append({"name": name, "caption": caption, **files, **told, **places, "facing": facing})
    (folder / _TABLE).write_text(json.dumps(table, indent=1) + "\n", "utf-8")


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    parser.add_argument("--output_dir", default=str(FOLDER), metavar="DIR", help="folder of the examples")
    return parser


def main(args):
    """Run the command."""
    draw_examples(Path(args.output_dir))
    print(f"{len(CHOSEN)} examples are in {args.output_dir}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
