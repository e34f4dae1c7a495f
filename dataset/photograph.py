"""A user's photograph -> a network's input and its camera, which is given or read from the file."""

import numpy as np

from common.camera import hfov_of_35mm, pinhole
from common.errors import UserError
from dataset.decoding import name_of
from dataset.exif import read_header
from dataset.images import panorama_size_fault, read_photograph, resize_image

_SAME_SHAPE = 0.02  # by which an image's shape may differ from the shape in its EXIF
_CONTRADICTS = 1.15  # largest factor between the given field of view and EXIF's
_STEP = 32  # sides of a network's photographs are multiples of it, in pixels


def own_photograph(
    photo, view, *, heading=None, hfov=None, pitch=None, roll=None, intrinsics=None, distortion=None
):
    """A user's photograph as a network's input: (image (h, w, 3), its prior `Pinhole`, notes).

    photo: a source of `dataset.decoding`.
    view: the `View` of the network's training.
    heading: true bearing of its axis in degrees; None: not known.
    hfov: degrees from edge to edge; without it and intrinsics, EXIF's equivalent focal length gives it.
    pitch, roll: degrees, as in `common.camera.Pinhole`; level where they are not known.
    intrinsics: (fx, fy, cx, cy) in pixels of the photograph.
    distortion: up to OpenCV's five numbers.

    The image keeps its shape and has about as many pixels as photographs of training. The notes are lines on
    what was assumed. Raises UserError.
    """
    notes = []
    image = read_photograph(photo)
    height, width = image.shape[:2]
    header = None if isinstance(photo, np.ndarray) else read_header(photo)
    if header and header.gpano:
        raise UserError(
            f"{name_of(photo)}: says that it is a panorama (GPano), not a photograph; use --panorama"
        )
    lens = {"hfov": hfov}
    if intrinsics is not None:
        if hfov is not None:
            raise UserError("a camera: give either --hfov or --intrinsics")
        lens = dict(zip(("fx", "fy", "cx", "cy"), intrinsics, strict=True))
    from_file = hfov_of_file(header, width, height)
    if intrinsics is None and hfov is None:
        if from_file is None:
            raise UserError(_no_hfov(photo, header, width, height))
        lens["hfov"] = from_file
        notes.append(f"field of view of {from_file:.0f}° from the file (EXIF); --hfov overrules it")
    pose = {"heading": heading or 0.0, "pitch": pitch or 0.0, "roll": roll or 0.0}
    camera = pinhole(width, height, **lens, **pose, distortion=distortion or ())
    seen = float(camera.hfov)
    if from_file is not None and max(seen / from_file, from_file / seen) > _CONTRADICTS:
        says = f"the file says {from_file:.0f}° (EXIF); if that is right, leave it out"
        notes.append(f"a field of view of {seen:.0f}° was given, but {says}")
    least, most = view.hfov
    if not least - 5 <= seen <= most + 5:
        notes.append(f"{seen:.0f}° wide; this network learned {least:g} to {most:g}°, expect worse results")
    if pitch is None:
        within = f" within {view.tilt_noise:g}°, as this network learned" if view.tilt_noise else ""
        notes.append(f"no --pitch: the camera is assumed level{within}; compare the horizon in the picture")
    if header and heading is None and header.direction is not None:
        along = f"{header.direction:.0f}"
        notes.append(f"the file says that it looks along {along}° (EXIF); --heading {along} would use that")
    return _shrink(image, view.photo_px), camera, notes


def kind_of_street(file):
    """'panorama' or 'photo', by a street image's shape and its file's header. Raises UserError."""
    header = read_header(file)
    whole = panorama_size_fault(*header.size) is None and header.focal_35mm is None
    return "panorama" if whole or header.gpano else "photo"


def hfov_of_file(header, width, height):
    """The field of view in degrees by a file's EXIF; None without one, or if the image was cropped since."""
    if header is None or header.focal_35mm is None:
        return None
    taken = header.taken_size or (width, height)  # another shape than the file's: the image was cut
    shape = max(taken) / min(taken) / (max(width, height) / min(width, height))
    return None if abs(shape - 1) > _SAME_SHAPE else hfov_of_35mm(header.focal_35mm, width, height)


def _no_hfov(photo, header, width, height):
    """The message for a photograph without a known field of view."""
    name, usual = name_of(photo), "a phone's main camera sees about 67 degrees, held upright 53"
    if panorama_size_fault(width, height) is None:
        way_out = "give it as --panorama, or, if it is a photograph, its --hfov"
        return f"{name}: {width} x {height} px, as whole panoramas are; {way_out}"
    if header and header.focal_35mm is not None:
        taken = header.taken_size
        cut = f"{width} x {height} px, but {taken[0]} x {taken[1]} by its EXIF: it was cropped"
        return f"{name}: {cut}, so its field of view is unknown; give --hfov in degrees"
    return f"{name}: has no focal length (EXIF); give --hfov in degrees: {usual}"


def _shrink(image, size):
    """The image in its own shape, with sides of whole steps and about as many pixels as `size` (h, w)."""
    height, width = image.shape[:2]
    scale = (size[0] * size[1] / (height * width)) ** 0.5
    sides = (max(1, round(side * scale / _STEP)) * _STEP for side in (height, width))
    return resize_image(image, *sides)
