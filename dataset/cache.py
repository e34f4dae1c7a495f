"""Resize all images of a data set to a network's input sizes once; training then reads the small copies.

    python -m dataset.cache --dataset_root /data/VIGOR --cache_root /data/VIGOR_512 --workers 8
    python train_VIGOR.py --dataset_root /data/VIGOR --cache_root /data/VIGOR_512

The same command continues a stopped run. The lists are still read from --dataset_root. For photographs,
--panorama_size is their size. Copies are JPEGs, or with --lossless True PNGs; those of masks are PNGs.
"""

import hashlib
import sys
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

import cv2

from common import flags
from common.camera import WHOLE_DEG
from common.errors import UserError
from common.files import file_size, locked, remove_leftovers, resumable, write_bytes
from common.parallel import in_threads
from common.settings import BOOLEAN, PIXELS, Number, Settings, setting
from common.view import ELEVATION
from dataset.decoding import encode, is_whole
from dataset.images import OriginalImages, need_masks, read_copy
from dataset.lists import listed_images
from dataset.manifest import read_manifest, read_own_manifest, write_manifest
from dataset.roots import find_root
from dataset.sets import other_set, read_all, view_of_set

VERSION = 3  # of the cache's content: raise it with every change to the pixels that are read
MANIFEST, FILES, WHAT = "manifest.json", "files.txt", "a cache"
PNG_LEVELS = {"mask": 9}  # of compression; photographs would take long for little
SPOT_CHECKS = 64  # originals whose file size is compared when a cache is opened
_setting = partial(setting, group="what to copy")


@dataclass(frozen=True)
class CacheSettings(Settings):
    """The content of a cache, as in its manifest. Raises UserError for invalid values."""

    satellite_size: int = _setting(512, PIXELS, "side of satellite images and masks", metavar="PX")
    panorama_size: tuple = _setting(
        (320, 640), PIXELS, "height and width of panoramas or photographs", metavar=("H", "W"), count=2
    )
    quality: int = _setting(95, Number(int, least=1, most=100), "quality of the JPEGs, 1 to 100", metavar="Q")
    use_mask: bool = _setting(True, BOOLEAN, "copy the masks too", metavar="BOOL")
    vertical: tuple = _setting(
        None,
        ELEVATION,
        "degrees that panoramas show above and below the horizon (default: 90 90, or the set's own)",
        metavar=("TOP", "BOTTOM"),
        count=2,
    )
    lossless: bool = _setting(None, BOOLEAN, "True: lossless PNGs, which are larger", metavar="BOOL")


@dataclass
class CachedImages(OriginalImages):
    """`OriginalImages` read from the copies of a cache, its `root`."""

    lossless: bool = None

    def read(self, image):
        """The copy of an `ImageFile`, as in `OriginalImages`."""
        is_above = image.kind in ("satellite", "mask")
        size = (self.satellite_size,) * 2 if is_above else self.panorama_size
        return read_copy(copy_path(self.root, image, self.lossless), *size, grey=image.kind == "mask")


def copy_path(cache_root, image, lossless=None):
    """The path of the copy of an `ImageFile`."""
    return (cache_root / image.name).with_suffix(".png" if lossless or image.kind == "mask" else ".jpg")


def open_cache(cache_root, index, satellite_size, panorama_size, use_mask, vertical=WHOLE_DEG):
    """The `CachedImages` for the samples of an index.

    panorama_size: of street images; vertical: what panoramas show, as in `OriginalImages`.

    Raises UserError, with the command that helps, for a cache that is missing, unfinished, or of other sizes
    or files.
    """
    cache_root = Path(cache_root)
    cropped = list(vertical) if tuple(vertical) != WHOLE_DEG and not index.photographs else None
    sizes = {"satellite_size": satellite_size, "panorama_size": list(panorama_size), "vertical": cropped}
    command = f"python -m dataset.cache --dataset_root {index.root} --cache_root {cache_root} "
    command += f"--satellite_size {satellite_size} --panorama_size {panorama_size[0]} {panorama_size[1]}"
    if cropped:
        command += " --vertical {:g} {:g}".format(*cropped)
    if read_manifest(cache_root / MANIFEST, WHAT) is None:
        raise UserError(f"{cache_root}: no cache; make it with {command}")
    try:
        manifest = read_own_manifest(cache_root / MANIFEST, WHAT, {"version": VERSION, **sizes})
    except UserError as error:
        raise UserError(f"{error}; the command is {command}") from None
    lossless = manifest.get("lossless")
    command += f" --quality {manifest['quality']}" + (" --lossless True" if lossless else "")
    if not manifest["complete"]:
        raise UserError(f"{cache_root}: this cache is not finished; continue with {command}")
    if use_mask and not manifest["use_mask"]:
        raise UserError(f"{cache_root}: holds no masks; set --use_mask False, or make another cache")
    bytes_of, needed = read_files(cache_root), index.images(use_mask)
    if absent := [image.name for image in needed if image.name not in bytes_of]:
        raise UserError(
            f"{cache_root}: {len(absent)} of the {len(needed)} listed images are not in this cache, "
            f"the first: {absent[0]}; if it is a cache of {index.root}, update it with {command}"
        )
    for image in needed[:: max(1, len(needed) // SPOT_CHECKS)]:
        path, held = index.root / image.path, bytes_of[image.name]
        size = file_size(path)
        if size and held and size != held:  # the originals may have been removed
            fault = f"was made from another {path}, of {held} bytes and not {size}"
            raise UserError(f"{cache_root}: {fault}; update it with {command}")
    return CachedImages(cache_root, satellite_size, tuple(panorama_size), lossless=lossless)


def read_files(cache_root):
    """{name of an `ImageFile`: bytes of its file when the cache was made, 0 if it could not be read}."""
    path = cache_root / FILES
    try:
        lines = path.read_text("utf-8").splitlines()
        return {name: int(size) for size, name in (line.split("\t", 1) for line in lines)}
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", "not the list of a cache")
        raise UserError(f"{path}: {fault}; remove the folder {cache_root} and make it again") from None


def make_cache(root, cache_root, *, workers, on_bad_image="error", **settings):
    """Write or finish a cache of `list_images` under `root`. Returns the number of new copies.

    settings: of `CacheSettings`. The manifest is written first, and marked as complete at the end. Unreadable
    images do not stop the others; at the end they are an error or, with on_bad_image 'skip', left out. Raises
    UserError for these, for a folder that holds something else, and where nothing can be written.
    """
    cache_root, settings = Path(cache_root), CacheSettings(**view_of_set(root) | settings)
    images = list_images(root, settings.use_mask)
    if {"panorama", "photo"} <= {image.kind for image in images}:
        fault = "has cities of photographs and of panoramas, but a cache holds one kind"
        raise UserError(f"{root}: {fault}; keep them in two folders")
    masks = [image for image in images if image.kind == "mask"]
    if masks and on_bad_image == "error":
        need_masks(root, masks[0])
    copies = {image.name: copy_path(cache_root, image, settings.lossless) for image in images}
    if len(set(copies.values())) < len(images):
        raise UserError(f"{root}: has images whose names differ in their endings alone; rename these")
    sizes = {image.name: file_size(root / image.path) for image in images}
    made_with = {"version": VERSION, **settings.plain()}
    manifest = {name: value for name, value in made_with.items() if value is not None}
    listing = "".join(f"{size}\t{name}\n" for name, size in sizes.items()).encode()
    with locked(cache_root, "is making a cache in"), resumable(cache_root):
        if read_own_manifest(cache_root / MANIFEST, WHAT, made_with) and (cache_root / FILES).exists():
            for name, size in read_files(cache_root).items():
                if sizes.get(name, size) != size:  # the original has changed since
                    copies[name].unlink(missing_ok=True)
        manifest |= {"files": len(sizes), "files_sha256": hashlib.sha256(listing).hexdigest()}
        write_manifest(cache_root / MANIFEST, manifest, complete=False)
        write_bytes(cache_root / FILES, listing)
        for folder in {copy.parent for copy in copies.values()}:
            folder.mkdir(parents=True, exist_ok=True)
        todo = [image for image in images if not is_whole(copies[image.name])]
        originals = OriginalImages(
            root, settings.satellite_size, settings.panorama_size, settings.vertical or WHOLE_DEG
        )

        def copy(image):
            """The error of an unreadable image; raises `Unwritable` if the copy cannot be written."""
            target = copies[image.name]
            png = cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVELS.get(image.kind, 3)
            options = png if target.suffix == ".png" else (cv2.IMWRITE_JPEG_QUALITY, settings.quality)
            try:
                pixels = originals.read(image)
            except UserError as error:
                return str(error)
            write_bytes(target, encode(pixels, target.suffix, *options))

        bad = [error for error in in_threads(copy, todo, workers, "caching") if error]
        if bad and on_bad_image == "error":
            raise UserError(
                f"{len(bad)} of {len(sizes)} images cannot be read; the cache is not finished. The first: "
                f"{bad[0]}. python -m dataset.check lists them all; --on_bad_image skip leaves them out"
            )
        remove_leftovers(cache_root)
        write_manifest(cache_root / MANIFEST, manifest | {"left_out": len(bad)}, complete=True)
    return len(todo) - len(bad)


def list_images(root, use_mask=True):
    """The `ImageFile`s, sorted by name, of all areas and splits of a folder. Raises UserError.

    Lists of other data sets than VIGOR that cannot be read are named on stdout and left out.
    """
    if other_set(root) is None:
        return listed_images(root, use_mask)
    tables, errors = read_all(root)
    for error in errors.values():
        print(f"not in the cache: {error}")
    images = {image for index in tables.values() for image in index.images(use_mask)}
    return sorted(images, key=attrgetter("name"))


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("folders")
    flags.add_dataset_root(group)
    text = "a new folder, or an unfinished cache"
    group.add_argument("--cache_root", required=True, metavar="DIR", help=text)
    flags.add_settings(parser, CacheSettings)
    group = parser.add_argument_group("machine")
    flags.add_workers(group)
    text = "for unreadable images: end with an error, or leave them out"
    group.add_argument("--on_bad_image", choices=("error", "skip"), default="error", help=text)
    return parser


def main(args):
    """Run the command."""
    root = find_root(args.dataset_root)
    try:
        settings = {name: value for name, value in vars(args).items() if name != "dataset_root"}
        made = make_cache(root, **settings)
    except KeyboardInterrupt:
        print(f"stopped; the same command continues with {args.cache_root}", file=sys.stderr)
        raise
    manifest = read_manifest(Path(args.cache_root, MANIFEST), WHAT)
    counts = f"{manifest['files']} images, {made} copied now, {manifest['left_out']} left out"
    print(f"{args.cache_root}: complete, {counts}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
