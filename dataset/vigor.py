"""VIGOR's samples.

    index = load_index(root, area="samearea", split="train")
    dataset = VigorDataset(index, satellite_size=512, panorama_size=(320, 640), use_mask=True)
    sample = dataset[0]            # or dataset[(epoch, 0)]: random draws come from (seed, epoch, index)

Positions and headings follow `common.geometry`.
"""

import zlib

import numpy as np
import torch

from common import geometry
from common.errors import UserError
from dataset.cache import open_cache
from dataset.images import OriginalImages
from dataset.index import find_root, load_index

ON_BAD_IMAGE = ("error", "skip")


class VigorDataset(torch.utils.data.Dataset):
    """Samples of an index: uint8 images, position, heading, metres per pixel, city; a batch's dict without its first dimension.

    satellite_size: side in pixels of satellite and mask · panorama_size: (height, width) of the whole panorama ·
    cache_root: read the copies that `dataset.cache` made, not the originals · on_bad_image: 'error', or 'skip' for loaders
    that drop a sample whose images cannot be read; a sample asked for by itself always raises UserError.

    Heading and field of view. The panorama is rolled to a heading drawn evenly within +- `ori_noise` degrees (0 keeps north
    in the centre): in training from (seed, epoch, index), in evaluation from (seed, panorama name), so that two networks are
    asked the same questions, or taken from `orientations`, (N,) headings of the index's panoramas in degrees. Evaluation then
    cuts `FoV` degrees about the centre out. Training returns the whole panorama, since `dataset.augment` has to roll and
    mirror it; `augment` cuts the same `FoV` out at its end.

    Semi-positives. With `pos_only` False every second training sample, at random, uses one of its semi-positives that contain
    the panorama; in evaluation all that contain it become pairs of their own. `pairs` is (row of the index, kind) of each.
    """

    def __init__(
        self,
        index,
        *,
        satellite_size,
        panorama_size,
        use_mask,
        FoV=360.0,
        ori_noise=0.0,
        orientations=None,
        pos_only=True,
        training=False,
        seed=0,
        cache_root=None,
        on_bad_image="error",
    ):
        if on_bad_image not in ON_BAD_IMAGE:
            raise UserError(f"on_bad_image {on_bad_image!r} is not one of {', '.join(ON_BAD_IMAGE)}")
        if orientations is not None and (training or len(orientations) != len(index)):
            raise UserError(f"{len(orientations)} orientations for {len(index)} panoramas; they fix the headings of evaluation")
        self.index = index
        self.satellite_size = satellite_size
        self.panorama_size = tuple(panorama_size)
        self.use_mask = use_mask
        self.FoV = FoV
        self.ori_noise = ori_noise
        self.orientations = orientations
        self.training = training
        self.seed = seed
        self.on_bad_image = on_bad_image
        self.swap_semi_positive = training and not pos_only
        if cache_root is None:
            self.images = OriginalImages(index.root, satellite_size, self.panorama_size)
        else:
            self.images = open_cache(cache_root, index, satellite_size, self.panorama_size, use_mask)
        if training or pos_only:
            self.pairs = np.stack([np.arange(len(index)), np.zeros(len(index), np.int64)], 1)
        else:
            self.pairs = np.argwhere(index.inside | (np.arange(4) == 0))  # (row, kind), in list order

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, key):
        epoch, i = key if isinstance(key, tuple) else (0, key)
        row, kind = (int(value) for value in self.pairs[i])
        if self.training:
            rng = np.random.default_rng([self.seed, epoch, i])
        else:
            rng = np.random.default_rng([self.seed, zlib.crc32(self.index.panorama[row])])
        heading = rng.uniform(-self.ori_noise, self.ori_noise) if self.orientations is None else self.orientations[row]
        if self.swap_semi_positive and rng.random() < 0.5:
            usable = np.flatnonzero(self.index.inside[row, 1:]) + 1
            kind = int(rng.choice(usable)) if len(usable) else 0
        return self.pair(row, kind, heading) | {"index": torch.tensor(i)}

    def pair(self, row, kind=0, heading=0.0):
        """One panorama of the index with one of its four satellite images, rolled to a heading in degrees."""
        index, size = self.index, self.satellite_size
        satellite = index.satellite[row, kind]
        panorama = self.images.panorama(index.panorama_path(row))
        panorama, heading = roll_and_crop(panorama, heading, 360.0 if self.training else self.FoV)
        metres_per_pixel = geometry.metres_per_pixel(index.satellite_gps[satellite, 0], size)
        sample = {
            "panorama": _channels_first(panorama),
            "satellite": _channels_first(self.images.satellite(index.satellite_path(satellite))),
            "position": torch.from_numpy(index.position[row, kind] * np.float32(size / geometry.SATELLITE_PX)),
            "heading": torch.tensor(heading, dtype=torch.float32),
            "metres_per_pixel": torch.tensor(metres_per_pixel, dtype=torch.float32),
            "city": torch.tensor(int(index.city[row])),
        }
        if self.use_mask:
            sample["mask"] = torch.from_numpy(self.images.mask(index.mask_path(satellite)))[None]
        return sample


def open_split(dataset_root, area, split, *, labels="corrected", orientation_file=None, **options):
    """The samples of one split, a `VigorDataset`, which takes the other options. Raises UserError."""
    index = load_index(find_root(dataset_root), area, split, labels)
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
        raise UserError(
            f"{path}: not an .npy file of numbers; --orientation_file takes one angle in degrees a panorama"
        ) from None
    kind = getattr(angles, "dtype", None)
    if kind is None or kind.kind not in "fiu" or angles.shape != (count,):
        found = "an archive" if kind is None else f"{kind} of shape {angles.shape}"
        raise UserError(f"{path}: {found} where the test list needs {count} angles in degrees, of shape ({count},)")
    if not np.isfinite(angles).all():
        raise UserError(f"{path}: entry {int(np.isfinite(angles).argmin())} is not a finite number")
    return geometry.wrap_degrees(-angles.astype(np.float64))


def roll_and_crop(panorama, heading, FoV):
    """A north-centred panorama (H, W, 3), turned by whole columns towards a heading and cut to its field of view.

    Returns the view and the exact heading of its centre, in degrees within [-180, 180).
    """
    width = panorama.shape[1]
    shift = int(geometry.heading_to_shift(heading, width))
    start, stop = geometry.view_columns(FoV, width)
    view = np.take(panorama, np.arange(start + shift, stop + shift), axis=1, mode="wrap")
    return view, float(geometry.wrap_degrees(shift * 360.0 / width))


def _channels_first(image):
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()
