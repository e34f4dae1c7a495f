"""VIGOR's samples: uint8 images with position, heading and camera, from the table of all pairs.

    index = read_index(root, area="samearea", split="train")
    dataset = VigorDataset(index, view=View(), use_mask=True)
    sample = dataset[0]            # or dataset[(epoch, 0)]: random draws come from (seed, epoch, index)

Positions and headings follow `common.geometry`.
"""

import zlib
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch

from common import geometry
from common.camera import panorama
from common.errors import UserError
from common.geometry import wrap_degrees
from common.view import View
from dataset.cache import open_cache
from dataset.images import OriginalImages, need_masks
from dataset.index import VigorIndex
from dataset.negatives import NONE

ON_BAD_IMAGE = ("error", "skip")


@dataclass(eq=False)
class VigorDataset(torch.utils.data.Dataset):
    """Samples of an index, dicts of a batch's entries without its first dimension:

    query: (3, H, W) uint8, a whole panorama or a photograph.
    camera: its `Camera`, whose heading, pitch and roll are the prior.
    satellite, mask: (3, S, S) and (1, S, S) uint8.
    position, heading, metres_per_pixel: of the camera in the satellite image; the true bearing of the query
    image's centre; the satellite image's resolution.
    city, index: numbers. corner: the satellite image's north-west corner on the map, pixels at zoom 20,
    float64.
    tilt: of photographs, their true pitch and roll.
    accuracy: metres within which the position is right, where the index says so.
    taken: the `Camera` of a photograph that `dataset.augment.cut` cuts out of the panorama.

    Headings. A panorama is rolled to a heading drawn evenly within +- the view's `ori_noise` (0 keeps north
    in the centre): in training from (seed, epoch, index), in evaluation from (seed, panorama name), so that
    two networks see the same images, or taken from `orientations`, (N,) degrees.

    Photographs. Where the index has panoramas and the view is of photographs, evaluation draws a camera from
    (seed, panorama name); training leaves that to `dataset.augment`. Where the index has photographs, the
    prior of their heading, pitch and roll is drawn about the true ones, or the data set gives the prior
    heading.

    Semi-positives. With `pos_only` False every second training sample, at random, uses one of its
    semi-positives that contain the panorama; in evaluation, all that contain it become additional pairs.
    `pairs` is (row of the index, kind) of each.
    """

    index: VigorIndex
    _: KW_ONLY
    view: View
    use_mask: bool
    orientations: np.ndarray = None
    pos_only: bool = True
    training: bool = False
    seed: int = 0
    cache_root: str = None  # of the copies that `dataset.cache` made, which are read instead of the originals
    # (pairs, M) rows of the satellite table, hard negatives of training pairs, or `NONE`
    mined: torch.Tensor = None
    on_bad_image: str = "error"  # 'skip' is for loaders, which drop what cannot be read

    def __post_init__(self):
        index, view = self.index, self.view
        if self.orientations is not None and (self.training or len(self.orientations) != len(index)):
            found = f"{len(self.orientations)} orientations for {len(index)} panoramas"
            raise UserError(f"{found}; they fix the headings of evaluation")
        if self.orientations is not None and view.photographs:
            raise UserError("--orientation_file fixes headings of panoramas; those of photographs are drawn")
        if index.photographs and not view.photographs:
            way_out = "train one with --network light --camera photo"
            raise UserError(f"{index.root}: holds photographs, and this network is for panoramas; {way_out}")
        query_px = view.photo_px if index.photographs else view.panorama_px
        if self.cache_root is None:
            if self.use_mask:
                need_masks(index.root, index.mask_image(index.satellite[0, 0]))
            self.images = OriginalImages(index.root, view.satellite_size, query_px, view.vertical)
        else:
            sizes = view.satellite_size, query_px
            self.images = open_cache(self.cache_root, index, *sizes, self.use_mask, view.vertical)
        kinds = index.inside & (not (self.training or self.pos_only)) | (np.arange(4) == 0)
        self.pairs = np.argwhere(kinds)  # (row, kind), in list order

    @property
    def satellite_size(self):
        """Side in pixels of the satellite images."""
        return self.view.satellite_size

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, key):
        epoch, i = key if isinstance(key, tuple) else (0, key)
        row, kind = (int(value) for value in self.pairs[i])
        rng = self._generator(row, *((epoch, i) if self.training else ()))
        heading, prior, noise = 0.0, None, self.view.ori_noise
        if self.index.photographs:
            prior = self._prior(row, rng)
        elif not self.view.photographs:
            heading = rng.uniform(-noise, noise) if self.orientations is None else self.orientations[row]
        if self.training and not self.pos_only and rng.random() < 0.5:
            usable = np.flatnonzero(self.index.inside[row, 1:]) + 1
            kind = int(rng.choice(usable)) if len(usable) else 0
        sample = self.pair(row, kind, heading, prior) | {"index": torch.tensor(i)}
        return sample | self._others(i) if self.training else sample

    def __getitems__(self, keys):
        """The samples of a batch for a loader process; an unreadable one is replaced by its UserError.

        Raised there, the error would come wrapped in that process's traceback, and PyTorch would wait five
        seconds for the process to end.
        """
        samples = []
        for key in keys:
            try:
                samples.append(self[key])
            except UserError as error:
                samples.append(error)
        return samples

    def pair(self, row, kind=0, heading=0.0, prior=None):
        """One query image of the index with one of its four satellite images.

        heading: degrees to which a panorama is rolled.
        prior: the prior camera of a photograph of the index; None: as in evaluation.
        """
        index, size = self.index, self.satellite_size
        satellite = index.satellite[row, kind]
        image = self.images.read(index.panorama_image(row))
        top, bottom = self.view.vertical
        cameras = {"camera": panorama(top=top, bottom=bottom)}
        if index.photographs or (self.view.photographs and not self.training):
            taken, drawn = self.camera_of(row)
            cameras = {
                "camera": drawn if prior is None else prior,
                "tilt": torch.stack((taken.pitch, taken.roll)),
            }
            heading = float(taken.heading)
            if not index.photographs:
                labelled = float(index.cameras.heading[row])
                cameras |= {"taken": taken, "camera": cameras["camera"].turned(labelled)}
                heading = float(wrap_degrees(heading + labelled))
        else:
            labelled = float(index.cameras.heading[row])  # of the stored image's centre, mostly north
            image, turned = roll_panorama(image, heading - labelled)
            heading = float(wrap_degrees(turned + labelled))
        mask = self.images.read(index.mask_image(satellite)) if self.use_mask else None
        numbers = {
            "position": index.position[row, kind] * np.float32(size / geometry.SATELLITE_PX),
            "heading": heading,
            "metres_per_pixel": index.metres_per_pixel(satellite, size),
        }
        if index.accuracy is not None:
            numbers["accuracy"] = index.accuracy[row]
        above = self.images.read(index.satellite_image(satellite))
        sample = as_sample(image, above, mask, **numbers) | cameras
        city, corner = torch.tensor(int(index.city[row])), torch.from_numpy(index.corner(satellite))
        return sample | {"city": city, "corner": corner}

    def camera_of(self, row):
        """The cameras of a photograph in evaluation: (as it is, its prior), unbatched."""
        rng = self._generator(row)
        if self.index.photographs:
            return self.index.cameras[row], self._prior(row, rng)
        taken, prior = self.view.draw_cameras(torch.from_numpy(rng.random((1, self.view.CAMERA_DRAWS))))
        return taken[0], prior[0]

    def _generator(self, row, *drawn_from):
        """A generator from the seed and `drawn_from`, by default the panorama's name."""
        return np.random.default_rng([self.seed, *(drawn_from or (zlib.crc32(self.index.panorama[row]),))])

    def _prior(self, row, rng):
        """The prior camera of a photograph of the index.

        In evaluation its heading is the set's own, if the view's `ori_noise` is the set's, else drawn.
        """
        index, view, taken = self.index, self.view, self.index.cameras[row]
        own = index.prior_heading is not None and not self.training and view.ori_noise == index.prior_within
        if own:
            heading = index.prior_heading[row]
        else:
            heading = float(taken.heading) + rng.uniform(-view.ori_noise, view.ori_noise)
        noise = torch.from_numpy(rng.uniform(-view.tilt_noise, view.tilt_noise, 2)).to(taken.values)
        heading = torch.tensor(wrap_degrees(float(heading))).to(taken.values)
        return taken.replace(heading=heading, pitch=taken.pitch - noise[0], roll=taken.roll - noise[1])

    def _others(self, i):
        """The mined satellite images of pair i, (M, 3, S, S) and masks likewise, where there are any yet."""
        if self.mined is None or self.mined[i, 0] == NONE:
            return {}
        rows, read = self.mined[i].tolist(), self.images.read
        others = {"others": np.stack([read(self.index.satellite_image(other)) for other in rows])}
        if self.use_mask:
            masks = [read(self.index.mask_image(other)) for other in rows]
            others["others_mask"] = np.stack(masks)[..., None]
        return {name: torch.from_numpy(x).permute(0, 3, 1, 2).contiguous() for name, x in others.items()}


def as_sample(query=None, satellite=None, mask=None, **numbers):
    """A sample's tensors: images (H, W, 3) and a mask (H, W), uint8, channels first; numbers as float32."""
    images = {"query": query, "satellite": satellite, "mask": None if mask is None else mask[..., None]}
    given = {name: image for name, image in images.items() if image is not None}
    # One copy, which the sample owns: an image may be one that nobody may write to, as PIL's.
    copies = {name: np.array(image.transpose(2, 0, 1), order="C") for name, image in given.items()}
    tensors = {name: torch.from_numpy(copy) for name, copy in copies.items()}
    return tensors | {name: torch.tensor(number, dtype=torch.float32) for name, number in numbers.items()}


def roll_panorama(image, heading):
    """A north-centred panorama (H, W, 3) turned by whole columns towards a heading in degrees.

    Returns the image and the exact heading of its centre, within [-180, 180).
    """
    width = image.shape[1]
    shift = int(geometry.heading_to_shift(heading, width))
    return np.roll(image, -shift, axis=1), float(wrap_degrees(shift * 360.0 / width))
