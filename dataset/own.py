"""Any two images of the user's own -> a sample like VIGOR's, without a position."""

from pathlib import Path

import torch

from dataset import geometry
from dataset.images import DataError, read_mask, read_panorama, read_satellite, stored_size
from dataset.vigor import roll_and_crop

_USUAL_GROUND_M = (55.0, 90.0)  # VIGOR's images are 64 to 76 m on a side


def own_sample(panorama, satellite, settings, *, mask=None, centre=None, heading=None, metres_per_pixel=None):
    """A sample of two image files at the sizes of a network's settings, and notes on what had to be assumed.

    panorama: a file, twice as wide as high · satellite, mask: square files, north up, of any size; without a mask a network that
    wants one sees foreground everywhere · centre: (latitude, longitude) of the satellite image · heading: true bearing of the
    panorama's centre, degrees; where it lies outside the headings that the network was trained for, the panorama is rolled to
    north · metres_per_pixel: of the satellite file; without it the image is taken to span the ground of a VIGOR image at that
    latitude, 640 px at zoom 20.

    Returns (dict as `VigorDataset` gives it, list of lines). Unknown numbers are NaN there. Raises DataError.
    """
    panorama, satellite, mask = (None if path is None else Path(path) for path in (panorama, satellite, mask))
    for path in (panorama, satellite, mask):
        if path is not None and not path.is_file():
            raise DataError(f"{path}: no such file")
    size, notes = settings["satellite_size"], []
    view = read_panorama(panorama, *settings["panorama_size"])
    above = read_satellite(satellite, size, any_side=True)
    metres = _ground(satellite, centre, metres_per_pixel, settings, notes)
    turn = 0.0
    if heading is None:
        if settings["ori_noise"] == 0:
            notes.append("no --heading: north is taken to be in the panorama's centre column, as this network expects it")
    elif abs(geometry.wrap_degrees(heading)) > settings["ori_noise"]:
        turn = -heading
        notes.append(f"panorama rolled by {heading:g}°, so that its centre looks north")
    view, turned = roll_and_crop(view, turn, settings["FoV"])
    known = float("nan") if heading is None and settings["ori_noise"] else geometry.wrap_degrees((heading or 0.0) + turned)
    sample = {
        "panorama": torch.from_numpy(view).permute(2, 0, 1),
        "satellite": torch.from_numpy(above).permute(2, 0, 1),
        "position": torch.full((2,), torch.nan),
        "heading": torch.tensor(known, dtype=torch.float32),
        "metres_per_pixel": torch.tensor(metres, dtype=torch.float32),
        "index": torch.tensor(0),
    }
    if settings["use_mask"]:
        if mask is None:
            notes.append("no --mask: the whole satellite image counts as foreground, but this network was trained with masks")
            sample["mask"] = torch.full((1, size, size), 255, dtype=torch.uint8)
        else:
            sample["mask"] = torch.from_numpy(read_mask(mask, size, any_side=True))[None]
    elif mask is not None:
        notes.append("--mask is not used: this network was trained without masks")
    return sample, notes


def to_gps(row, col, centre, metres_per_pixel, size_px):
    """Latitude and longitude of a position (row, col) in a satellite image of any resolution, `size_px` on a side.

    centre: its (latitude, longitude), degrees.
    """
    scale = metres_per_pixel / geometry.metres_per_pixel(centre[0])  # pixels of the map at zoom 20 to one of the image
    half = geometry.SATELLITE_PX / 2
    return geometry.position_to_gps(half + (row - size_px / 2) * scale, half + (col - size_px / 2) * scale, *centre)


def _ground(satellite, centre, metres_per_pixel, settings, notes):
    """Metres per pixel of the satellite tensor; NaN where nothing tells and the network does not ask."""
    if metres_per_pixel is not None:
        ground = metres_per_pixel * stored_size(satellite)[0]
    elif centre is not None:
        ground = float(geometry.metres_per_pixel(centre[0])) * geometry.SATELLITE_PX
        notes.append(
            f"no --metres_per_pixel: the satellite image is taken to span {ground:.1f} m, as VIGOR's do at that latitude"
        )
    elif settings["matching"] == "ground_plane":
        raise DataError(
            f"{satellite}: this network matches on the ground and needs its resolution; give --metres_per_pixel, "
            "or --satellite_center LAT LON for an image with the extent of VIGOR's (640 px at zoom 20)"
        )
    else:
        notes.append("neither --metres_per_pixel nor --satellite_center: nothing can be said in metres")
        return float("nan")
    if not _USUAL_GROUND_M[0] <= ground <= _USUAL_GROUND_M[1]:
        notes.append(f"the satellite image spans {ground:.0f} m; VIGOR's span 64 to 76 m, expect worse results")
    return ground / settings["satellite_size"]
