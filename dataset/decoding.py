"""Image files -> their size and upright pixels, with orientation tags applied. All images are read here.

`orientation` reads the tag: OpenCV reads EXIF otherwise than Pillow does, and turns nothing but TIFFs.

A source is a file's path, the bytes of a file, or an array: (H, W, 3) uint8 RGB, or (H, W) for a mask.
A file that is no image raises a UserError that names it and says what it contains instead.
"""

import os
import stat
import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from common.errors import UserError

MOST_PX = 178_000_000  # of an image; more take gigabytes
COLOUR, GREY = cv2.IMREAD_COLOR_RGB, cv2.IMREAD_GRAYSCALE
MASK = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
WITH_ALPHA = cv2.IMREAD_UNCHANGED  # gives BGR
# OpenCV gives BGR in these modes.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values for which rows are columns
_UPRIGHT = {  # how pixels that are stored with a tag are turned
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
_WITH_EXIF = b"Exif\0", b"eXIf", b"EXIF"  # in JPEG, PNG and WebP
_LONGEST_EXIF = 2**16  # bytes
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif")
_TIFF = {b"II*\x00": "little", b"MM\x00*": "big"}  # their first bytes and their order of bytes
_TIFF_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # of a value by its kind; else one
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_GARBLED = (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, EOFError, KeyError)
_AGAIN = "unpack or download it again"
# Contents of files that are no images, by their first bytes.
_INSTEAD = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image; git lfs pull fetches it"),
    (b"<!doctype html", "a web page, not an image; download the image itself"),
    (b"<html", "a web page, not an image; download the image itself"),
    (b"<svg", "an SVG drawing; export it as PNG or JPEG"),
    (b"<?xml", "an XML text, not an image"),
    (b"%pdf", "a PDF, not an image; export it as PNG or JPEG"),
    (b"pk\x03\x04", "a ZIP archive, not an image; unpack it"),
    (b"{", "a JSON text, not an image"),
)

cv2.setNumThreads(0)  # the loader's workers are the parallelism
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # an error is one line, ours
warnings.filterwarnings("ignore", module="PIL")  # likewise
Image.MAX_IMAGE_PIXELS = None  # `open_image` has its own limit, with a clearer message


def shown_size(source, data=None):
    """(width, height) of an upright image. data: the file's bytes, if they have been read already."""
    if isinstance(source, np.ndarray):
        return source.shape[1::-1]
    return upright_size(open_image(source, data))


def upright_size(image):
    """(width, height) of an image opened by Pillow, after its orientation tag is applied."""
    size = image.size
    if image.format == "TIFF":  # some versions of Pillow give its upright size
        size = image.tag_v2.get(_TIFF_WIDTH, size[0]), image.tag_v2.get(_TIFF_HEIGHT, size[1])
    return size[::-1] if orientation(image) in _TURNED else size


def orientation(image):
    """EXIF's orientation tag of an image that Pillow has opened, 1 without one; nothing is decoded.

    What XMP says of it is ignored, as it is by browsers.
    """
    exif = Image.Exif()
    try:
        if image.format == "TIFF":
            return image.tag_v2.get(_ORIENTATION, 1)
        data = image.info.get("exif")
        if data is None and image.format == "PNG" and (file := getattr(image, "fp", None)):
            data = _exif_behind_pixels(file)
        exif.load(data or b"")
        return exif.get(_ORIENTATION, 1)
    except _GARBLED:
        return 1


def _exif_behind_pixels(file):
    """EXIF of an open PNG that has it behind its pixels, where Pillow would decode these first."""
    before, size = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_EXIF))
    _, _, data = file.read().rpartition(b"eXIf")
    file.seek(before)
    return data


def turn_upright(image, tag):
    """Pixels (H, W, ...) as they are to be shown, of an image that is stored with an orientation tag."""
    return np.ascontiguousarray(_UPRIGHT[tag](image)) if tag in _UPRIGHT else image


def is_turned(source):
    """Whether a file's orientation tag exchanges its rows and columns."""
    return not isinstance(source, np.ndarray) and orientation(open_image(source)) in _TURNED


def check_pixels(path, most):
    """The path of an image. Raises UserError, without decoding, for one of more than `most` pixels."""
    open_image(path, most=most)
    return path


def name_of(source):
    """The name of an image in messages: its path, or 'the image given'."""
    return "the image given" if isinstance(source, (np.ndarray, bytes)) else source


def open_image(source, data=None, most=MOST_PX):
    """A file or its bytes opened by Pillow, which reads only the header. Raises UserError.

    data: the file's bytes, if they have been read already. most: the largest number of pixels.
    """
    data = source if isinstance(source, bytes) else data
    file = check_file(source) if data is None else BytesIO(data)
    first = _first_bytes(source) if data is None else data[:512]
    if is_heif(first):
        from pillow_heif import register_heif_opener  # a second of imports, for iPhones alone

        register_heif_opener()
    try:
        image = Image.open(file)
    except _GARBLED:
        raise UserError(f"{name_of(source)}: {_instead(first)}") from None
    if image.mode == "LAB":  # which OpenCV takes for RGB
        raise UserError(f"{name_of(source)}: colours in CIELAB; save it as RGB")
    width, height = image.size
    if width * height > most:
        says = f"{width} x {height} px; up to {most / 1e6:g} million pixels are taken; cut or shrink it"
        raise UserError(f"{name_of(source)}: {says}")
    return image


def read_bytes(source, way_out="python -m dataset.check lists everything that is missing"):
    """The bytes of a source that is no array. Raises UserError for a missing or empty file."""
    data = source
    if not isinstance(source, bytes):
        try:
            data = Path(check_file(source, way_out)).read_bytes()
        except OSError as error:
            raise UserError(f"{source}: {error.strerror}") from None
    if not data:
        raise UserError(f"{name_of(source)}: the file is empty; {_AGAIN}")
    return data


def _first_bytes(path):
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def check_file(path, way_out="give an image file"):
    """A path. Raises UserError, in a line with the way out, unless it names a regular file."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; {way_out}") from None
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero
        raise UserError(f"{str(path)[:200]}: {getattr(error, 'strerror', error)}") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: a folder, not a file; {way_out}")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: a pipe or a device, not a file; {way_out}")
    return path


def decode(name, data, mode=COLOUR, factor=1):
    """An image file's bytes as pixels: (H, W, 3) RGB, or of a `MASK` (H, W, ...) of any depth.

    name: names the image in the UserError for damaged files. factor: the image will be shrunk by at least
    this; a JPEG is then decoded at a half, a quarter or an eighth of its size, which takes less time.
    """
    if data[:2] == _JPEG:
        mode = next((mode for divisor, mode in _REDUCED.items() if factor >= divisor), mode)
    image = None
    if not is_heif(data) and ends_well(BytesIO(data)):  # else OpenCV may fill up what is missing
        try:
            flags = mode if mode == WITH_ALPHA else mode | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:  # a header that promises more pixels than OpenCV takes
            image = None
        if image is None and (data[:2] == _JPEG or data[:4] == _PNG):  # Pillow would read what is damaged
            raise UserError(f"{name_of(name)}: cannot be decoded; {_AGAIN}")
    if image is None:
        return _decode_by_pillow(name, data, mode)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if mode in _REDUCED.values() else image
    if data[:4] not in _TIFF and any(mark in data for mark in _WITH_EXIF):  # TIFFs it turns all the same
        image = turn_upright(image, orientation(open_image(name, data)))
    return image


def decode_tile(name, data):
    """An image file's bytes as (H, W, 3) RGB, or (H, W, 4) with alpha. Raises UserError, with the name."""
    image = decode(name, data, WITH_ALPHA)
    if image.ndim == 3 and image.dtype == np.uint8:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return decode(name, data)


def encode(image, suffix, *options):
    """The bytes of an image file: (H, W, 3) RGB or (H, W) in the format of a suffix, by OpenCV's options."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise OSError(f"OpenCV cannot write {suffix} files")
    return data.tobytes()


def as_rgb(image, name):
    """A Pillow image as upright (H, W, 3) uint8. name: for the UserError."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)  # Pillow itself would make everything white
        return np.repeat(grey[..., None], 3, -1)
    if image.mode in ("I", "F"):
        raise UserError(f"{name_of(name)}: 32 bits per pixel; save it with 8")
    pixels = np.array(image.convert("RGB"))  # of a TIFF, Pillow turns them itself
    return pixels if image.format == "TIFF" else turn_upright(pixels, orientation(image))


def is_heif(data):
    """Whether the first bytes of a file are those of a HEIF image, as iPhones write them (.heic)."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def ends_well(file):
    """Whether an open JPEG, PNG or TIFF has a complete end; True for all other files."""
    file.seek(0)
    first = file.read(4)
    size = file.seek(0, os.SEEK_END)
    if first in _TIFF:
        return _tiff_is_whole(file, size, _TIFF[first])
    file.seek(max(0, size - 12))
    last = file.read()
    if first[:2] == _JPEG:
        return last[-2:] == b"\xff\xd9"
    return first != _PNG or last[-8:-4] == b"IEND"


def _tiff_is_whole(file, size, order):
    """Whether the values of a TIFF's first directory lie within the file; OpenCV ignores a lost palette."""
    file.seek(4)
    file.seek(int.from_bytes(file.read(4), order))
    for _ in range(int.from_bytes(file.read(2), order)):
        entry = file.read(12)
        kind, count, at = (int.from_bytes(entry[a:b], order) for a, b in ((2, 4), (4, 8), (8, 12)))
        length = count * _TIFF_BYTES.get(kind, 1)
        if len(entry) < 12 or (length > 4 and at + length > size):
            return False
    return True


def is_whole(path):
    """Whether a file exists and holds an image with a complete end; a power cut may leave an empty file."""
    try:
        with open(path, "rb") as file:
            return os.path.getsize(path) > 12 and ends_well(file)
    except OSError:
        return False


def _decode_by_pillow(name, data, mode):
    """`decode` for HEIF, for JPEGs and PNGs with an odd end, and for formats that OpenCV does not know.

    Pillow refuses truncated images, and reads a whole image that is followed by other bytes.
    """
    image = open_image(name, data)
    try:
        pixels = as_rgb(image, name)
    except _GARBLED as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{name_of(name)}: cannot be decoded ({reason}); {_AGAIN}") from None
    return pixels[..., ::-1] if mode == WITH_ALPHA else pixels[..., 0] if mode == GREY else pixels


def _instead(data):
    """The content of a file that is no image, by its first bytes, with the way out."""
    if not data:
        return f"the file is empty; {_AGAIN}"
    first = data.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    says = next((says for start, says in _INSTEAD if first.startswith(start)), None)
    if says is None and first and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in first):
        says = "a text, not an image"
    return says or f"no image that can be read; {_AGAIN}"
