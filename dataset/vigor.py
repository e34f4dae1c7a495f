"""VIGOR's samples.

    index = read_index(root, area="samearea", split="train")
    dataset = VigorDataset(index, satellite_size=512, panorama_size=(320, 640), use_mask=True)
    sample = dataset[0]            # or dataset[(epoch, 0)]: random draws come from (seed, epoch, index)

Positions and headings follow `common.geometry`.
"""

import zlib
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch

from common import geometry
from common.camera import CameraRange, cut_photographs
from common.errors import UserError
from dataset.cache import open_cache
from dataset.images import OriginalImages
from dataset.index import VigorIndex, find_root
from dataset.negatives import NONE
from dataset.sets import read_index

ON_BAD_IMAGE = ("error", "skip")


@dataclass(eq=False)
class VigorDataset(torch.utils.data.Dataset):
    """Samples of an index: uint8 images, position, heading, metres per pixel, city, and the satellite image's north-west corner
    on the map (pixels at zoom 20, float64); a batch's dict without its first dimension.

    Heading and field of view. The panorama is rolled to a heading drawn evenly within +- `ori_noise` degrees (0 keeps north
    in the centre): in training from (seed, epoch, index), in evaluation from (seed, panorama name), so that two networks are
    asked the same questions, or taken from `orientations`, (N,) headings of the index's panoramas in degrees. Evaluation then
    cuts `FoV` degrees about the centre out. Training returns the whole panorama, since `dataset.augment` has to roll and
    mirror it; `augment` cuts the same `FoV` out at its end.

    Photographs. With `cameras`, evaluation cuts a photograph out of each panorama, its camera drawn from (seed, panorama name);
    `heading` is then the true bearing of its axis, `tilt` its true pitch and roll, and `camera` what is told. Training leaves
    that to `augment`. Where the index has photographs, these are read as a whole at the size of `cameras`, in training as well;
    what is told of heading, pitch and roll is drawn about the true ones, as headings of panoramas are, or the heading is the
    set's own where that was told as wrong.

    Semi-positives. With `pos_only` False every second training sample, at random, uses one of its semi-positives that contain
    the panorama; in evaluation all that contain it become pairs of their own. `pairs` is (row of the index, kind) of each.
    """

    index: VigorIndex
    _: KW_ONLY
    satellite_size: int  # side in pixels of satellite and mask
    panorama_size: tuple  # (height, width) of the whole panorama
    use_mask: bool
    FoV: float = 360.0
    cameras: CameraRange = None
    ori_noise: float = 0.0
    orientations: np.ndarray = None
    pos_only: bool = True
    training: bool = False
    seed: int = 0
    cache_root: str = None  # of the copies that `dataset.cache` made, to be read and not the originals
    mined: torch.Tensor = None  # (pairs, M) rows of the satellite table that training pairs are to be told from, or `NONE`
    on_bad_image: str = "error"  # or 'skip', for loaders that drop what cannot be read; by itself it always raises UserError

    def __post_init__(self):
        index, sizes = self.index, (self.satellite_size, tuple(self.panorama_size))
        if self.on_bad_image not in ON_BAD_IMAGE:
            raise UserError(f"on_bad_image {self.on_bad_image!r} is not one of {', '.join(ON_BAD_IMAGE)}")
        if self.orientations is not None and (self.training or len(self.orientations) != len(index)):
            found = f"{len(self.orientations)} orientations for {len(index)} panoramas"
            raise UserError(f"{found}; they fix the headings of evaluation")
        if self.cameras:
            self.cameras = self.cameras._replace(ori_noise=self.ori_noise)
            if self.orientations is not None:
                raise UserError("--orientation_file fixes headings of panoramas; those of photographs are drawn")
        if self.photographs:
            if not self.cameras:
                way_out = "train one with --network light --camera photo"
                raise UserError(f"{index.root}: holds photographs, and this network is for panoramas; {way_out}")
            if self.FoV != 360:
                raise UserError(f"--FoV {self.FoV:g} cuts panoramas; a photograph's field of view is --hfov")
            sizes = self.satellite_size, self.cameras.size
        if index.by_path:
            if self.use_mask:
                raise UserError(f"{index.root}: this data set has no masks; train with --use_mask False")
            if self.cache_root is not None:
                raise UserError(
                    f"--cache_root: caches are of folders in VIGOR's layout; {index.root} is read as it is, leave it out"
                )
        if self.cache_root is None:
            self.images = OriginalImages(index.root, *sizes, self.photographs)
        else:
            self.images = open_cache(self.cache_root, index, *sizes, self.use_mask)
        kinds = index.inside & (not (self.training or self.pos_only)) | (np.arange(4) == 0)
        self.pairs = np.argwhere(kinds)  # (row, kind), in list order

    @property
    def photographs(self):
        """Whether the street images themselves are photographs."""
        return self.index.cameras is not None

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, key):
        epoch, i = key if isinstance(key, tuple) else (0, key)
        row, kind = (int(value) for value in self.pairs[i])
        rng = self._generator(row, *((epoch, i) if self.training else ()))
        heading, told = 0.0, None
        if self.photographs:
            told = self._told(row, rng)
        elif not self.cameras:
            heading = rng.uniform(-self.ori_noise, self.ori_noise) if self.orientations is None else self.orientations[row]
        if self.training and not self.pos_only and rng.random() < 0.5:
            usable = np.flatnonzero(self.index.inside[row, 1:]) + 1
            kind = int(rng.choice(usable)) if len(usable) else 0
        sample = self.pair(row, kind, heading, told) | {"index": torch.tensor(i)}
        return sample | self._others(i) if self.training else sample

    def _generator(self, row, *drawn_from):
        """What a sample's random draws come from: the seed, and the panorama's name where nothing else is given."""
        return np.random.default_rng([self.seed, *(drawn_from or (zlib.crc32(self.index.panorama[row]),))])

    def camera_of(self, row):
        """The cameras of a panorama's photograph in evaluation: (as it is, as it is told), (12,) each."""
        if self.photographs:
            return torch.from_numpy(self.index.cameras[row]), self._told(row, self._generator(row))
        taken, told = self.cameras.draw(torch.from_numpy(self._generator(row).random((1, CameraRange.DRAWS))))
        return taken[0], told[0]

    def _told(self, row, rng):
        """The camera (12,) that is told of a photograph of the index: its heading the set's own in evaluation, else drawn."""
        index, taken = self.index, torch.from_numpy(self.index.cameras[row])
        own = index.told is not None and not self.training and self.ori_noise == index.told_within
        heading = index.told[row] if own else float(taken[0]) + rng.uniform(-self.ori_noise, self.ori_noise)
        tilt = taken[1:3] - torch.from_numpy(rng.uniform(-self.cameras.tilt_noise, self.cameras.tilt_noise, 2)).to(taken)
        return torch.cat((torch.tensor([geometry.wrap_degrees(float(heading))]).to(taken), tilt, taken[3:]))

    def _read_satellite(self, satellite):
        """(S, S, 3) of a row of the satellite table: a file, or the part of it that it is."""
        path, crop = self.index.satellite_path(satellite), self.index.crop
        return self.images.satellite(path) if crop is None else self.images.part(path, crop[satellite])

    def _others(self, i):
        """The mined satellite images of pair i, (M, 3, S, S) and masks likewise, where there are any yet."""
        if self.mined is None or self.mined[i, 0] == NONE:
            return {}
        rows = self.mined[i].tolist()
        others = {"others": np.stack([self._read_satellite(other) for other in rows])}
        if self.use_mask:
            others["others_mask"] = np.stack([self.images.mask(self.index.mask_path(other)) for other in rows])[..., None]
        return {name: torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() for name, images in others.items()}

    def __getitems__(self, keys):
        """The samples of a batch for a loader's process; where images cannot be read, the UserError stands in the sample's place.

        Raised there, it would come wrapped in that process's traceback, and PyTorch would wait five seconds for it to end.
        """
        samples = []
        for key in keys:
            try:
                samples.append(self[key])
            except UserError as error:
                samples.append(error)
        return samples

    def pair(self, row, kind=0, heading=0.0, told=None):
        """One panorama of the index with one of its four satellite images, rolled to a heading in degrees.

        Of a photograph neither is up to the heading; told: what is told of its camera, (12,), None: as in evaluation.
        """
        index, size, camera = self.index, self.satellite_size, {}
        satellite = index.satellite[row, kind]
        panorama = self.images.panorama(index.panorama_path(row))
        if self.photographs:
            taken, told = self.camera_of(row) if told is None else (torch.from_numpy(index.cameras[row]), told)
            heading, camera = float(taken[0]), {"camera": told, "tilt": taken[1:3]}
        else:
            panorama, heading = roll_and_crop(panorama, heading, 360.0 if self.training else self.FoV)
            if self.cameras and not self.training:
                taken, told = self.camera_of(row)
                panorama, heading = photograph_of(panorama, taken, self.cameras.size), float(taken[0])
                camera = {"camera": told, "tilt": taken[1:3]}
        return as_sample(
            panorama,
            self._read_satellite(satellite),
            self.images.mask(index.mask_path(satellite)) if self.use_mask else None,
            position=index.position[row, kind] * np.float32(size / geometry.SATELLITE_PX),
            heading=heading,
            metres_per_pixel=index.metres_per_pixel(satellite, size),
        ) | {"city": torch.tensor(int(index.city[row])), "corner": torch.from_numpy(index.corner(satellite)), **camera}


def as_sample(panorama=None, satellite=None, mask=None, **numbers):
    """A sample's tensors of what is given: images, (H, W, 3) uint8, a mask, (H, W) uint8, channels first; numbers as float32."""
    images = {"panorama": panorama, "satellite": satellite, "mask": None if mask is None else mask[..., None]}
    given = {name: image for name, image in images.items() if image is not None}
    tensors = {name: torch.from_numpy(image).permute(2, 0, 1).contiguous() for name, image in given.items()}
    return tensors | {name: torch.tensor(number, dtype=torch.float32) for name, number in numbers.items()}


def open_split(dataset_root, area, split, *, labels="corrected", cities=None, orientation_file=None, **options):
    """The samples of one split, a `VigorDataset`, which takes the other options; cities: as of `read_index`. Raises UserError."""
    index = read_index(find_root(dataset_root), area, split, labels, cities)
    if orientation_file:
        if split != "test":
            raise UserError(f"{orientation_file}: an orientation file follows the test list and cannot serve for {split}")
        options["orientations"] = read_orientations(orientation_file, len(index))
    return VigorDataset(index, **options)


def read_orientations(path, count):
    """Headings, (count,) in degrees, from an .npy file of angles in test-list order such as CCVPE publishes for VIGOR.

    There, an angle tells by how much of a full turn the north-centred panorama was rolled to the right, so that its centre
    looks as far to the left of north: our heading, clockwise, is its negative. Raises UserError for a file of another kind.
    """
    try:
        angles = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; --orientation_file takes an .npy file") from None
    except (ValueError, EOFError):
        way_out = "--orientation_file takes one angle in degrees a panorama"
        raise UserError(f"{path}: not an .npy file of numbers; {way_out}") from None
    found = f"{angles.dtype} of shape {angles.shape}" if isinstance(angles, np.ndarray) else "an archive"
    if not isinstance(angles, np.ndarray) or angles.dtype.kind not in "fiu" or angles.shape != (count,):
        raise UserError(f"{path}: {found} where the test list needs {count} angles in degrees, of shape ({count},)")
    if not np.isfinite(angles).all():
        raise UserError(f"{path}: entry {int(np.isfinite(angles).argmin())} is not a finite number")
    return geometry.wrap_degrees(-angles.astype(np.float64))


def photograph_of(panorama, camera, size):
    """The photograph (h, w, 3) uint8 that a camera (12,), its heading relative to the centre, takes of a panorama (H, W, 3)."""
    image = torch.from_numpy(np.ascontiguousarray(panorama)).permute(2, 0, 1)[None]
    return cut_photographs(image, camera[None], size)[0].round().byte().permute(1, 2, 0).numpy()


def roll_and_crop(panorama, heading, FoV):
    """A north-centred panorama (H, W, 3), turned by whole columns towards a heading and cut to its field of view.

    Returns the view and the exact heading of its centre, in degrees within [-180, 180).
    """
    width = panorama.shape[1]
    shift = int(geometry.heading_to_shift(heading, width))
    start, stop = geometry.view_columns(FoV, width)
    view = np.take(panorama, np.arange(start + shift, stop + shift), axis=1, mode="wrap")
    return view, float(geometry.wrap_degrees(shift * 360.0 / width))
