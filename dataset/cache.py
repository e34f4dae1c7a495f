"""Bring all images of a VIGOR folder to a network's sizes once; training then reads the small copies.

    python -m dataset.cache --dataset_root /data/VIGOR --cache_root /data/VIGOR_512 --workers 8
    python train_VIGOR.py --dataset_root /data/VIGOR --cache_root /data/VIGOR_512

Stopped half-way, the same command goes on where it was. The lists are still read from --dataset_root.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

from common import flags
from common.errors import UserError
from common.files import locked, remove_leftovers, write_bytes
from common.parallel import in_threads
from dataset.images import OriginalImages, ends_well, read_copy
from dataset.index import CITIES, find_root, listed_images, mask_path, panorama_path, satellite_path

VERSION = 2  # of what a cache holds
MANIFEST, FILES = "manifest.json", "files.txt"
SUFFIX = {"panorama": ".jpg", "satellite": ".jpg", "point_prompt_mask": ".png"}
SPOT_CHECKS = 64  # originals whose size on disk is compared when a cache is opened


class CachedImages:
    """What `OriginalImages` gives, from the copies of a cache; paths are those of the originals."""

    def __init__(self, cache_root, satellite_size, panorama_size):
        self.root, self.satellite_size, self.panorama_size = Path(cache_root), satellite_size, panorama_size

    def panorama(self, path):
        """(H, W, 3) RGB."""
        return read_copy(copy_path(self.root, path), *self.panorama_size)

    def satellite(self, path):
        """(S, S, 3) RGB."""
        return read_copy(copy_path(self.root, path), self.satellite_size, self.satellite_size)

    def mask(self, path):
        """(S, S), the share of foreground in each pixel, 0 to 255."""
        return read_copy(copy_path(self.root, path), self.satellite_size, self.satellite_size, grey=True)


def copy_path(cache_root, path):
    """Where the copy of an original lies."""
    path = Path(path)
    return cache_root / path.with_suffix(SUFFIX[path.parent.name])


def open_cache(cache_root, index, satellite_size, panorama_size, use_mask):
    """The `CachedImages` for the samples of an index.

    Raises UserError, with the way out, for a cache that is missing, unfinished, of other sizes or of other files.
    """
    cache_root = Path(cache_root)
    make = f"python -m dataset.cache --dataset_root {index.root}"
    sizes = f"--satellite_size {satellite_size} --panorama_size {panorama_size[0]} {panorama_size[1]}"
    manifest = read_manifest(cache_root)
    if manifest is None:
        raise UserError(f"{cache_root}: no cache is here; make it with {make} --cache_root {cache_root} {sizes}")
    held = manifest["satellite_size"], tuple(manifest["panorama_size"])
    if held != (satellite_size, tuple(panorama_size)):
        raise UserError(
            f"{cache_root}: holds satellite images of {held[0]} px and panoramas of {held[1][0]} x {held[1][1]} px; "
            f"make one of the size at hand with {make} --cache_root <another folder> {sizes}"
        )
    again = f"{make} --cache_root {cache_root} {sizes} --quality {manifest['quality']}"
    if not manifest["complete"]:
        raise UserError(f"{cache_root}: this cache is not finished; go on with {again}")
    if use_mask and not manifest["use_mask"]:
        raise UserError(f"{cache_root}: this cache holds no masks; --use_mask False needs none, or {make} makes another")
    sizes_of = read_files(cache_root)
    needed = _images_of(index, use_mask)
    if absent := [path for path in needed if path not in sizes_of]:
        raise UserError(
            f"{cache_root}: {len(absent)} of the {len(needed)} images in the lists are not in this cache, {absent[0]} for one; "
            f"if it is a cache of {index.root}, bring it up to date with {again}"
        )
    for path in needed[:: max(1, len(needed) // SPOT_CHECKS)]:
        size = _bytes_of(index.root / path)
        if size and sizes_of[path] and size != sizes_of[path]:  # the originals themselves may be gone
            raise UserError(
                f"{cache_root}: was made of another file than {index.root / path}, {sizes_of[path]} bytes and not {size}; "
                f"bring it up to date with {again}"
            )
    return CachedImages(cache_root, satellite_size, tuple(panorama_size))


def _images_of(index, use_mask):
    """The images that the samples of an index can ask for, relative to the root."""
    panoramas = zip(index.city.tolist(), index.panorama.tolist(), strict=True)
    needed = [panorama_path(CITIES[city], name.decode()) for city, name in panoramas]
    used = np.unique(index.satellite)
    names = index.satellite_name[used].tolist()
    for city, name in zip(index.satellite_city[used].tolist(), (name.decode() for name in names), strict=True):
        needed.append(satellite_path(CITIES[city], name))
        if use_mask:
            needed.append(mask_path(CITIES[city], name))
    return needed


def read_manifest(cache_root):
    """The settings of a cache, or None where there is none."""
    path = cache_root / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path}: not the manifest of a cache; remove the folder {cache_root} and make it again") from None
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise UserError(f"{path}: not of a cache that this version reads; remove the folder {cache_root} and make it again")
    return manifest


def read_files(cache_root):
    """Path -> size in bytes of the originals that a cache was made of; 0 for those that could not be read."""
    path = cache_root / FILES
    try:
        lines = path.read_text("utf-8").splitlines()
        return {name: int(size) for size, name in (line.split("\t", 1) for line in lines)}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; remove the folder {cache_root} and make it again") from None
    except ValueError:
        raise UserError(f"{path}: not the list of a cache; remove the folder {cache_root} and make it again") from None


def make_cache(root, cache_root, *, satellite_size, panorama_size, quality, use_mask, workers, on_bad_image="error"):
    """Write a cache of all images that the lists under `root` name, or finish one. Returns the number of copies it made.

    The manifest is written first and called complete at the end. An image that cannot be read is noted and the others are
    still copied; then it is an error, or with on_bad_image 'skip' it is left out. Raises UserError for these, for a folder
    that holds something else, and where nothing can be written.
    """
    cache_root = Path(cache_root)
    with locked(cache_root, "is making a cache in"):
        return _fill(root, cache_root, satellite_size, panorama_size, quality, use_mask, workers, on_bad_image)


def _fill(root, cache_root, satellite_size, panorama_size, quality, use_mask, workers, on_bad_image):
    sizes = {path: _bytes_of(root / path) for path in listed_images(root, use_mask)}
    settings = {
        "version": VERSION,
        "satellite_size": satellite_size,
        "panorama_size": list(panorama_size),
        "quality": quality,
        "use_mask": use_mask,
    }
    listing = "".join(f"{size}\t{path}\n" for path, size in sizes.items()).encode()
    identity = {"files": len(sizes), "files_sha256": hashlib.sha256(listing).hexdigest()}
    try:
        _prepare(cache_root, settings, sizes)
        write_bytes(cache_root / MANIFEST, _as_json({**settings, **identity, "complete": False}))
        write_bytes(cache_root / FILES, listing)
        for folder in {copy_path(cache_root, path).parent for path in sizes}:
            folder.mkdir(parents=True, exist_ok=True)
        todo = [path for path in sizes if not _is_whole(copy_path(cache_root, path))]
        bad = _copy_all(OriginalImages(root, satellite_size, panorama_size), cache_root, todo, quality, workers)
        if bad and on_bad_image == "error":
            raise UserError(
                f"{len(bad)} of {len(sizes)} images cannot be read, and the cache stays unfinished. The first: {bad[0]}. "
                "python -m dataset.check lists them all; --on_bad_image skip leaves them out"
            )
        remove_leftovers(cache_root)
        write_bytes(cache_root / MANIFEST, _as_json({**settings, **identity, "left_out": len(bad), "complete": True}))
    except OSError as error:
        raise UserError(
            f"{error.filename or cache_root}: cannot be written ({error.strerror}); once that is mended, "
            "the same command goes on where it stopped"
        ) from None
    return len(todo) - len(bad)


def _prepare(cache_root, settings, sizes):
    """See that the folder is empty or holds a cache of these settings and drop the copies of originals that have changed."""
    manifest = read_manifest(cache_root)
    if manifest is None:
        if any(not path.name.startswith(".") for path in cache_root.iterdir()):
            raise UserError(f"{cache_root}: this folder holds something else than a cache; name an empty or a new one")
        return
    differing = [f"{name} {manifest.get(name)}, not {value}" for name, value in settings.items() if manifest.get(name) != value]
    if differing:
        raise UserError(f"{cache_root}: holds a cache of {'; '.join(differing)}; name another folder or remove this one")
    if (cache_root / FILES).exists():
        for path, size in read_files(cache_root).items():
            if sizes.get(path, size) != size:
                copy_path(cache_root, path).unlink(missing_ok=True)


def _copy_all(originals, cache_root, paths, quality, workers):
    """Copy these images; returns one line for each that cannot be read. The first failure to write ends it with OSError."""

    def copy(path):
        try:
            write_bytes(copy_path(cache_root, path), _encode(originals, path, quality))
        except UserError as error:
            return str(error)

    return [error for error in in_threads(copy, paths, workers, "caching") if error]


def _encode(originals, path, quality):
    """The copy of one image as bytes: JPEG, or PNG for a mask."""
    kind = Path(path).parent.name
    if kind == "point_prompt_mask":
        image, form = originals.mask(path), [cv2.IMWRITE_PNG_COMPRESSION, 9]
    else:
        image = originals.panorama(path) if kind == "panorama" else originals.satellite(path)
        image, form = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(SUFFIX[kind], image, form)[1].tobytes()


def _is_whole(path):
    """Is there a copy, and does it end as an image does? A machine that lost its power may have left an empty one."""
    try:
        with open(path, "rb") as file:
            first = file.read(4)
            file.seek(-12, os.SEEK_END)
            return ends_well(first, file.read())
    except OSError:
        return False


def _bytes_of(path):
    """Size of a file, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _as_json(manifest):
    return (json.dumps(manifest, indent=2) + "\n").encode()


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to copy")
    flags.add_dataset_root(group)
    group.add_argument("--cache_root", required=True, metavar="DIR", help="a new folder, or the unfinished cache to go on with")
    group.add_argument(
        "--satellite_size", type=flags.PIXELS, default=512, metavar="PX", help="side of satellite images and masks"
    )
    group.add_argument("--panorama_size", type=flags.PIXELS, nargs=2, default=[320, 640], metavar=("H", "W"), help="of panoramas")
    quality = flags.Number(int, least=1, most=100)
    group.add_argument("--quality", type=quality, default=95, metavar="Q", help="of the JPEGs, 1 to 100")
    group.add_argument("--use_mask", type=flags.BOOLEAN, default=True, metavar="BOOL", help="copy the masks as well")
    group.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="what an unreadable image is in the end: left out, or an error",
    )
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    root = find_root(args.dataset_root)
    wanted = {name: value for name, value in vars(args).items() if name not in ("dataset_root", "cache_root")}
    try:
        made = make_cache(root, args.cache_root, **wanted)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with {args.cache_root}", file=sys.stderr)
        raise SystemExit(130) from None
    manifest = read_manifest(Path(args.cache_root))
    print(f"{args.cache_root}: complete, {manifest['files']} images, {made} copied now, {manifest['left_out']} left out")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
