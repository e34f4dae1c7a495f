"""Localization for programs: a checkpoint and two images -> a `Located`, with row, col, heading, notes, ...

    localizer = Localizer()  # the repository's networks; or Localizer("runs/VIGOR/<run>")
    found = localizer.locate("street.jpg", "above.png", metres_per_pixel=0.11, centre=(41.85, -87.68))
    found = localizer.locate(photo="phone.jpg", satellite="above.png", metres_per_pixel=0.11)

An image is a file, its bytes, an open file, an array (H, W, 3) uint8 RGB or (H, W) grey, a tensor (C, H, W)
of uint8 or of values from 0 to 1, or an image of Pillow.
"""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

import numpy as np
import torch

from common.device import pick_device
from common.errors import UserError
from common.flags import fault
from common.geometry import wrap_degrees
from common.settings import COUNT, POSITIVE, TEXT, Number, checked
from common.view import View
from common.words import renamed
from dataset import given
from dataset.decoding import shown_size
from dataset.loader import collate
from dataset.own import Needs, own_sample, to_gps
from dataset.photograph import kind_of_street
from dataset.protocol import Protocol
from engine.inference.asked import asked_view, with_forms
from engine.inference.decode import NEAR_M, mass_within, other_places, spread
from engine.inference.notes import doubt_note, height_note, ridge_note, tilt_note
from engine.inference.predictor import Estimate, Predictor, to_device
from engine.inference.temperatures import conditions_key, find_heat_map
from engine.tracking.maps import PlacedMap, follow_maps
from model.checkpoint import load_model, pretrained_for

_PLACE = Number()
SURE = 0.5  # below this probability a doubt is noted
RIDGE_M, RIDGE = 3.0, 2.5  # a place is a ridge if longer than this, and so many times longer than wide
# What a program calls what messages name by its flag.
_KEYWORDS = {given.FLAGS.get(name, name): name for name in given.NAMES} | {"model_path": "checkpoint"}
_KEYWORDS |= {name: name for name in ("device", "FoV", "tta", "ori_noise", "batch_size")}
_KEYWORDS |= {name: name for name in ("camera_height", "height_prior")}
_NEAR_SHARE = NEAR_M / 72.0  # the same as a share of the image, where its resolution is unknown


@dataclass(frozen=True)
class Located:
    """Where a query image was taken, as a network estimates it, in the satellite image as given."""

    row: float  # pixels, (0, 0) being the north-west corner
    col: float
    latitude: float | None  # degrees; None without the image's centre
    longitude: float | None
    heading: float  # true bearing of the query image's centre in degrees: estimated, given, or north
    camera_height: float | None  # metres above the street; an impossible one hints at a wrong resolution
    probability: float  # that the camera stood within 5 m, by the heat map
    along_m: float | None  # standard deviation of the place along `along_deg`; None: resolution unknown
    across_m: float | None  # the same across it, which is the smaller one
    along_deg: float  # bearing of the heat map's longer axis, degrees from 0 to 180
    turned: float  # degrees clockwise by which the panorama was rolled for the network
    notes: list  # a line for each assumption, and one if the heat map is spread over several places
    other_places: list  # up to three more with a probability of 0.1 or more, [((row, col), probability), ...]
    heat_map: str  # its temperature, and whether it is calibrated, in words
    network: str  # the file of the network that answered, and its hash
    size: tuple = field(repr=False)  # (height, width) of the satellite image as given
    sample: dict = field(repr=False)  # the network's input
    estimate: Estimate = field(repr=False)  # its answer, at the network's sizes

    @property
    def certainty(self):
        """The probability in words."""
        return f"{100 * self.probability:.1f} % within {NEAR_M:g} m"

    def probability_near(self, row, col, metres=NEAR_M):
        """The probability that the camera stood within `metres` of (row, col), pixels as in `row` and `col`.

        Raises ValueError if the satellite image's resolution is unknown.
        """
        if self.estimate.metres_per_pixel is None:
            raise ValueError("metres: the satellite image's resolution is not known")
        row, col = checked("row", _PLACE, row), checked("col", _PLACE, col)
        metres = checked("metres", POSITIVE, metres)
        height, width = self.estimate.probability.shape
        place = row * height / self.size[0], col * width / self.size[1]
        return _mass(self.estimate.probability, place, metres / self.estimate.metres_per_pixel)

    def words(self):
        """The probability, the heading and the heat map's kind in a line, the notes, the network."""
        line = f"{self.certainty} · heading {self.heading % 360:.1f}° · {self.heat_map}"
        return [line, *self.notes, f"network: {self.network}"]

    def record(self):
        """What is known of the place, as a dict of numbers and words for JSON."""
        place = "row", "col", "latitude", "longitude", "heading", "camera_height"
        spread = "along_m", "across_m", "along_deg"
        names = (*place, "probability", *spread, "other_places", "heat_map", "network", "notes")
        return {name: getattr(self, name) for name in names}


class Localizer:
    """Networks that localize many images, loaded on first use.

    checkpoint: a file, ours or a published one, or a run folder. None takes the repository's networks: each
    pair goes to the one trained for its kind of query image and for what is known of its heading.
    device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
    FoV: field of view of panoramas in degrees; None: as trained.
    tta: 8 averages over eight forms of a pair, see `engine.inference.forms`, 1 does not. None: 8 for the
    repository's networks, else 1.
    ori_noise: degrees within which headings are known; None: as trained.
    camera_height: of all cameras above the street, in metres, if known.
    height_prior: where it is not, 'usual' (2.5 m, as of street-view cars, is far likelier than other heights)
    or 'any' (all heights of the network's training are equally likely).

    Raises UserError.
    """

    def __init__(
        self,
        checkpoint=None,
        device="auto",
        FoV=None,
        tta=None,
        ori_noise=None,
        camera_height=None,
        height_prior=None,
    ):
        asked = {"FoV": FoV, "tta": tta, "ori_noise": ori_noise}
        asked |= {"camera_height": camera_height, "height_prior": height_prior}
        with naming_keywords():
            self._open(checkpoint, device, asked)

    @classmethod
    def of_flags(cls, checkpoint, device, **asked):
        """A `Localizer` for command lines and the page: errors name arguments by their flags."""
        localizer = cls.__new__(cls)
        localizer._open(checkpoint, device, asked)
        return localizer

    def _open(self, checkpoint, device, asked):
        path = os.fspath(checkpoint) if isinstance(checkpoint, os.PathLike) else checkpoint
        self.checkpoint = checked("--model_path", TEXT, path)
        self.device = pick_device(device)
        self.asked = View.read_given(asked)
        self._answerers = {}
        if checkpoint:
            self.answerer()  # so that a wrong file is noticed here

    def locate(self, panorama=None, satellite=None, **known):
        """Where inside a satellite image a query image was taken: a `Located`.

        panorama: a whole panorama, twice as wide as high, or a cropped one with vertical=(degrees above,
        degrees below the horizon); or photo=, a photograph.
        satellite: north up and square; of any shape and extent for the light network.
        known: metres_per_pixel of the satellite image as given, its centre (latitude, longitude), its
        semantic mask, heading, the true bearing of the query image's centre in degrees. Of a photograph's
        camera: hfov, pitch, roll, intrinsics, distortion, as `dataset.photograph.own_photograph` takes them;
        the repository's network takes its heading to be right within 20 degrees.

        `notes` name all assumptions. Raises UserError.
        """
        return self.locate_many([{"panorama": panorama, "satellite": satellite, **known}])[0]

    def locate_many(self, pairs, batch_size=8):
        """A `Located` for each of many pairs, dicts of the arguments of `locate`, from any iterable."""
        with naming_keywords():
            found = self.answers(pairs, batch_size)
        return [replace(one, notes=[renamed(note, _KEYWORDS) for note in one.notes]) for one in found]

    def answers(self, pairs, batch_size=8):
        """`locate_many` for command lines and the page: errors and notes name arguments by their flags."""
        batch_size, found = checked("--batch_size", COUNT, batch_size), []
        pairs = _check_each("pairs", pairs)
        while batch := list(islice(pairs, batch_size)):
            for answerer, alike in groupby(batch, key=self.answerer_of):
                found += answerer.answer(list(alike))
        return found

    def locate_sequence(self, frames, motion, noise=None):
        """A `engine.tracking.maps.Followed` for each frame of a sequence, which all of them together tell.

        frames: dicts of the arguments of `locate`, each with its satellite image's centre and resolution.
        motion, noise: from each frame to the next, (forward, left, turn), as `follow_maps` takes them.
        """
        with naming_keywords():
            frames = list(_check_each("frames", frames))
        located = self.locate_many(frames)
        maps = []
        for pair, one in zip(frames, located, strict=True):
            if pair.get("centre") is None or one.estimate.metres_per_pixel is None:
                raise UserError("a sequence: each frame needs its satellite image's centre and resolution")
            estimated = one.estimate.heading is not None or pair.get("heading") is not None
            size = one.estimate.metres_per_pixel
            heading = one.heading if estimated else None
            maps.append(PlacedMap(one.estimate.probability, pair["centre"], size, heading))
        return follow_maps(maps, motion, noise)

    def kind_of(self, query):
        """'panorama' or 'photo': the kind of a query image's file."""
        if self.checkpoint is None:
            return kind_of_street(query)
        return self.answerer().predictor.view.camera

    def answerer_of(self, pair):
        """The `Answerer` of a pair, as of `check_given`."""
        return self.answerer(pair.get("photo") is not None, pair.get("heading") is not None)

    def answerer(self, photo=False, heading_known=True):
        """The `Answerer` for a kind of query image whose heading is known or not, loaded on first use."""
        word, changes = (self.checkpoint, {}) if self.checkpoint else pretrained_for(photo, heading_known)
        key = str(word), *changes.items()
        if key not in self._answerers:
            checkpoint = load_model(word, self.device)
            view = asked_view(checkpoint, changes | self.asked)
            view = with_forms(checkpoint, view, self.asked)
            self._answerers[key] = Answerer(checkpoint, view, self.device)
        return self._answerers[key]


class Answerer:
    """A network, its `View` and the temperature of its heat maps, which answer pairs of the user's images."""

    def __init__(self, checkpoint, view, device):
        network = checkpoint.network
        self.checkpoint, self.device = checkpoint, device
        self.predictor = Predictor(network, view, device)
        self.needs = Needs.of(network)
        key = conditions_key(checkpoint, Protocol.pick(checkpoint.data, {"pos_only": True}), view)
        self.heat_map = find_heat_map(checkpoint, key)

    def answer(self, pairs):
        """A `Located` for each of some pairs, as of `check_given`. Raises UserError for NaN as an answer."""
        made = [own_sample(self.predictor.view, self.needs, **pair) for pair in pairs]
        estimates = []
        for _, alike in groupby((sample for sample, _ in made), key=_shape):
            batch = to_device(collate(list(alike)), self.device)
            estimates += self.predictor.estimates(batch, self.heat_map)[1]
        if not all(np.isfinite(one.probability).all() for one in estimates):
            says = "answers with NaN: its weights are damaged, or one of the images is beyond its numbers"
            raise UserError(f"{self.checkpoint.file}: this network {says}")
        return [self._located(*each) for each in zip(pairs, made, estimates, strict=True)]

    def _located(self, pair, made, one):
        (sample, notes), size = made, one.probability.shape
        metres, centre, heading = one.metres_per_pixel, pair.get("centre"), pair.get("heading")
        width, height = shown_size(pair["satellite"])
        radius = NEAR_M / metres if metres else _NEAR_SHARE * size[1]
        probability = _mass(one.probability, one.position, radius)
        scale = height / size[0], width / size[1]
        others = other_places(torch.tensor(one.probability), one.position, radius)
        others = [((row * scale[0], col * scale[1]), share) for (row, col), share in others]
        if one.camera.kind == "photo" and self.checkpoint.settings.estimate_tilt:
            notes.append(tilt_note(float(one.camera.pitch), float(one.camera.roll)))
        if one.camera_height is not None:
            settings = self.checkpoint.settings
            notes.append(height_note(one.camera_height, settings.camera_height, settings.height_factor))
        along, across, bearing = spread(torch.from_numpy(one.probability))
        along, across = (metres and side * metres for side in (along, across))
        if metres and along > RIDGE_M and along > RIDGE * across:
            notes.append(ridge_note(along, across, bearing))
        if probability < SURE:
            notes.append(doubt_note(probability, others, metres is not None))
        gps = map(float, to_gps(*one.position, centre, metres, size)) if centre else (None, None)
        latitude, longitude = gps
        prior = float(sample["camera"].heading)
        turned = wrap_degrees(prior - (heading or 0.0))
        seen = prior if one.heading is None else one.heading
        values = {"row": one.position[0] * scale[0], "col": one.position[1] * scale[1]}
        values |= {"latitude": latitude, "longitude": longitude, "camera_height": one.camera_height}
        values |= {"heading": float(wrap_degrees(seen - turned)), "turned": float(turned)}
        values |= {"along_m": along, "across_m": across, "along_deg": bearing}
        values |= {"probability": probability, "other_places": others, "heat_map": self.heat_map.name}
        values |= {"network": self.checkpoint.name}
        return Located(**values, notes=notes, size=(height, width), sample=sample, estimate=one)


@contextmanager
def naming_keywords():
    """Errors of the block name a program's keywords in place of flags; those of files become a UserError."""
    try:
        yield
    except (UserError, OSError) as error:
        if (line := fault(error)) is None:
            raise
        raise UserError(renamed(line, _KEYWORDS)) from None


def _check_each(name, pairs):
    """Yields each of some pairs, by the argument's name, checked. Raises UserError."""
    if isinstance(pairs, (dict, str)) or not hasattr(pairs, "__iter__"):
        says = f"expected dicts of the arguments of locate, not one {type(pairs).__name__}"
        raise UserError(f"{name}: {says}")
    return map(given.check_given, pairs)


def _shape(sample):
    return sample["query"].shape, sample["satellite"].shape, sample["camera"].kind, sample["camera"].extent


def _mass(probability, position, radius):
    """The share of a heat map (H, W) within a radius of a position, both in pixels."""
    maps, places = torch.tensor(probability)[None], torch.tensor([position], dtype=torch.float32)
    return min(1.0, float(mass_within(maps, places, torch.tensor([float(radius)]))))
