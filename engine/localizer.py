"""The door for programs: a checkpoint and two images -> a place.

from engine.localizer import Localizer

localizer = Localizer()                        # the network of the repository; or Localizer("runs/VIGOR/<run>", device="auto")
found = localizer.locate("street.jpg", "above.png", metres_per_pixel=0.11, heading=0.0, centre=(41.85, -87.68))
found = localizer.locate(photo="phone.jpg", satellite="above.png", metres_per_pixel=0.11)      # its EXIF tells how wide it is
found.row, found.col, found.latitude, found.longitude, found.heading, found.probability, found.notes
"""

import math
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch.utils.data import default_collate

from common.device import pick_device
from common.geometry import wrap_degrees
from dataset.images import stored_size
from dataset.own import own_sample, to_gps
from dataset.photograph import kind_of_street
from engine.batch import to_device
from engine.evaluation.calibration import find_heat_map
from engine.evaluation.conditions import Conditions
from engine.evaluation.prediction import Estimate, estimate, mass_within, other_places
from engine.evaluation.tta import FORMS
from model.checkpoint import PRETRAINED, checkpoint_file, load_model, pretrained_for

NEAR_M = 5.0  # how far from the place `probability` reaches
SURE = 0.5  # a probability from which on nothing is said of doubt
_NEAR_SHARE = NEAR_M / 72.0  # the same as a share of the image, where its resolution is not known


@dataclass(frozen=True)
class Found:
    """Where a panorama was taken, as a network says.

    row, col: the place, in pixels of the satellite image as it was given, (0, 0) being its north-west corner.
    latitude, longitude: degrees, None where the image's centre was not told.
    heading: true bearing of the panorama's centre column, degrees clockwise from north: as the network sees it where it was
    trained for unknown headings, else as it was given, or north.
    camera_height: of the camera above the street, metres, as both images say, where the network was trained for unknown heights,
    else None; one that cannot be tells of a wrong metres_per_pixel.
    probability: that the camera stood within 5 m of the place, by the heat map; see `heat_map` for how far to trust it.
    turned: degrees, clockwise, by which the panorama was rolled before the network looked at it.
    notes: a line for each thing that had to be assumed, and one where the heat map is spread over several places.
    other_places: up to three more places that hold a tenth of the probability or more, [((row, col), probability), ...].
    heat_map: the temperature of the heat map, and whether it is calibrated, in words.
    sample, estimate: what the network saw, and its answer with the whole heat map, both at the network's sizes.
    """

    row: float
    col: float
    latitude: float | None
    longitude: float | None
    heading: float
    camera_height: float | None
    probability: float
    turned: float
    notes: list
    other_places: list
    heat_map: str
    sample: dict = field(repr=False)
    estimate: Estimate = field(repr=False)

    @property
    def certainty(self):
        """The probability in words."""
        return f"{100 * self.probability:.1f} % within {NEAR_M:g} m"

    def words(self):
        """The probability, the heading and the heat map's kind in a line, then the notes."""
        line = f"{self.certainty} · heading {self.heading % 360:.1f}° · {self.heat_map}"
        return [line, *self.notes]

    def record(self):
        """What is known of the place, as a dict of numbers and words for JSON."""
        place = "row", "col", "latitude", "longitude", "heading", "camera_height"
        return {name: getattr(self, name) for name in (*place, "probability", "other_places", "heat_map", "notes")}


class Localizer:
    """One network for many images.

    checkpoint: a file, ours or a published one, or a run folder; None takes the networks that come with the repository, each pair
    the one that was trained for its kind of street image and for what is known of its heading.
    device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
    FoV: degrees of the panorama to look at, where not those of training.
    tta: 8 averages over eight forms of a pair, see `engine.evaluation.tta`; None: 8 for the repository's networks, which meet
    images unlike those of their training, else 1.
    told_within: degrees within which photographs' headings are known, where that is less than training had.
    camera_height: of all cameras above the street, metres, where that is known; else as the network was trained.

    Raises UserError.
    """

    def __init__(self, checkpoint=None, device="auto", FoV=None, tta=None, told_within=None, camera_height=None):
        self.others = None if checkpoint else {}  # of the repository's networks, by what `for_pair` tells
        self.how = {"device": device, "FoV": FoV, "tta": tta, "camera_height": camera_height}
        checkpoint = checkpoint or "pretrained"
        self.device = pick_device(device)
        if tta is None:
            shipped = checkpoint_file(checkpoint) in PRETRAINED.values()
            tta = FORMS if shipped and FoV in (None, 360) else 1
        told = {"told_within": told_within, "camera_height": camera_height}
        self.loaded = load_model(checkpoint, self.device, FoV=FoV, tta=tta, **told)
        self.heat_map = find_heat_map(self.loaded, Conditions.of(self.loaded).of_calibration(self.loaded.area).key)

    def locate(self, panorama=None, satellite=None, **known):
        """Where inside a satellite image a panorama or a photograph was taken: a `Found`.

        panorama: a whole panorama, twice as wide as high; or photo, by its name, a photograph. satellite: north up and square,
        for the light network of any shape and extent. All are files or arrays, (H, W, 3) uint8 RGB, of any size.
        metres_per_pixel, of the satellite image as it is given; centre, its (latitude, longitude); heading, the true bearing of
        the street image's centre in degrees; mask, a semantic mask of the satellite image: what is known, all optional. Of a
        photograph's camera: hfov, pitch, roll, intrinsics, distortion, as `dataset.photograph.own_photograph` takes them; its
        heading is a compass's, which the repository's network takes to be right within 20 degrees. What is not known is assumed
        and said in `notes`, as `dataset.own.own_sample` tells. Raises UserError.
        """
        return self.locate_many([{"panorama": panorama, "satellite": satellite, **known}])[0]

    def locate_many(self, pairs, batch_size=8):
        """A `Found` for each of many pairs, dicts of the arguments of `locate`, so many at a time."""
        found = []
        for at_once in (pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)):
            for localizer, alike in groupby(at_once, key=self.for_pair):
                found += localizer._locate_batch(list(alike))
        return found

    def kind_of(self, street):
        """'panorama' or 'photo': as what a file is looked at, by what the network takes; the repository's take both."""
        if self.others is None:
            return "photo" if self.loaded.settings.cameras else "panorama"
        return kind_of_street(street)

    def for_pair(self, pair):
        """The Localizer that looks at a pair, as of `locate_many`: itself, but for the repository's networks."""
        photo, known = pair.get("photo") is not None, pair.get("heading") is not None
        if self.others is None or (known and not photo):
            return self
        if (photo, known) not in self.others:
            name, options = pretrained_for(photo, known)
            self.others[photo, known] = Localizer(name, **self.how, **options)
        return self.others[photo, known]

    def _locate_batch(self, pairs):
        settings = self.loaded.settings
        needs_metres = self.loaded.model.matching.has_templates
        how = {**settings.images, "ori_noise": settings.ori_noise, "needs_metres": needs_metres}
        how["any_extent"] = self.loaded.model.any_size
        made, estimates = [own_sample(**pair, **how) for pair in pairs], []
        samples = [sample for sample, _ in made]
        for _, alike in groupby(samples, key=lambda sample: (sample["panorama"].shape, sample["satellite"].shape)):
            batch = to_device(default_collate(list(alike)), self.device)
            estimates += estimate(self.loaded.model, batch, settings.temperature, self.heat_map)[1]
        return [self._found(*each) for each in zip(pairs, made, estimates, strict=True)]

    def _found(self, pair, made, one):
        (sample, notes), size = made, one.probability.shape
        metres, centre, heading = one.metres_per_pixel, pair.get("centre"), pair.get("heading")
        width, height = stored_size(pair["satellite"])
        radius = NEAR_M / metres if metres else _NEAR_SHARE * size[1]
        probability = torch.tensor(one.probability)
        near = min(1.0, float(mass_within(probability[None], torch.tensor([one.position]), torch.tensor([radius]))))
        others = [
            ((row * height / size[0], col * width / size[1]), share)
            for (row, col), share in other_places(probability, one.position, radius)
        ]
        if self.loaded.settings.estimate_tilt:
            notes.append("by the photograph, " + _tilt_in_words(*one.camera.numbers[0, 1:3].tolist()))
        if one.camera_height is not None:
            notes.append(f"by both images, the camera stood {one.camera_height:.1f} m above the street")
        if near < SURE:
            notes.append(_doubt(near, others, metres is not None))
        latitude, longitude = map(float, to_gps(*one.position, centre, metres, size)) if centre else (None, None)
        if one.heading is None:
            seen = heading or 0.0
        else:  # the network may have seen the panorama rolled
            seen = one.heading - (0.0 if heading is None or one.true_heading is None else one.true_heading - heading)
        known = float(sample["heading"])
        return Found(
            row=one.position[0] * height / size[0],
            col=one.position[1] * width / size[1],
            latitude=latitude,
            longitude=longitude,
            heading=float(wrap_degrees(seen)),
            camera_height=one.camera_height,
            probability=near,
            turned=0.0 if math.isnan(known) else float(wrap_degrees(known - (heading or 0.0))),
            notes=notes,
            other_places=others,
            heat_map=self.heat_map.name,
            sample=sample,
            estimate=one,
        )


def _tilt_in_words(pitch, roll):
    """How a camera is tilted: degrees up and clockwise."""
    up, clockwise = "up" if pitch >= 0 else "down", "clockwise" if roll >= 0 else "counter-clockwise"
    return f"the camera looks {abs(pitch):.1f}° {up} and is turned {abs(roll):.1f}° {clockwise}"


def _doubt(near, others, in_metres):
    """A line for a heat map that is spread."""
    reach = f"within {NEAR_M:g} m of" if in_metres else "near"
    where = "; ".join(f"{100 * share:.0f} % about row {row:.0f}, column {col:.0f}" for (row, col), share in others)
    return f"not sure: {100 * near:.0f} % of the probability lie {reach} this place, {where or 'the rest is spread widely'}"
