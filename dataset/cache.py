"""Bring all images of a VIGOR folder to a network's sizes once; training then reads the small copies.

    python -m dataset.cache --dataset_root /data/VIGOR --cache_root /data/VIGOR_512 --workers 8
    python train_VIGOR.py --dataset_root /data/VIGOR --cache_root /data/VIGOR_512

Stopped half-way, the same command goes on where it was. The lists are still read from --dataset_root. Of photographs,
--panorama_size is their size.
"""

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from common import flags
from common.errors import UserError
from common.files import locked, remove_leftovers, resumable, write_bytes
from common.parallel import in_threads
from common.settings import BOOLEAN, PIXELS, Number, Settings, setting
from dataset.cameras import holds_photographs
from dataset.images import OriginalImages, encode, is_whole, read_copy
from dataset.lists import listed_images, root_cities
from dataset.manifest import read_manifest, read_own_manifest, write_manifest
from dataset.roots import find_root
from dataset.sets import refuse_other_sets

VERSION = 2  # of what a cache holds
MANIFEST, FILES, WHAT = "manifest.json", "files.txt", "a cache"
SUFFIX = {"panorama": ".jpg", "satellite": ".jpg", "point_prompt_mask": ".png"}
SPOT_CHECKS = 64  # originals whose size on disk is compared when a cache is opened
_copied = partial(setting, group="what to copy")


@dataclass(frozen=True)
class CacheSettings(Settings):
    """What a cache holds, as its manifest says. Raises UserError for values that cannot be."""

    satellite_size: int = _copied(512, PIXELS, "side of satellite images and masks", metavar="PX")
    panorama_size: tuple = _copied((320, 640), PIXELS, "of panoramas, or of photographs", metavar=("H", "W"), count=2)
    quality: int = _copied(95, Number(int, least=1, most=100), "of the JPEGs, 1 to 100", metavar="Q")
    use_mask: bool = _copied(True, BOOLEAN, "copy the masks as well", metavar="BOOL")


class CachedImages(OriginalImages):
    """What `OriginalImages` gives, from the copies of a cache, its `root`; paths are those of the originals."""

    def panorama(self, path):
        """(H, W, 3) RGB of a panorama, (S, S, 3) RGB of a satellite image, (S, S) of a mask."""
        copy, side = copy_path(self.root, path), self.satellite_size
        height, width = self.panorama_size if copy.parent.name == "panorama" else (side, side)
        return read_copy(copy, height, width, grey=copy.suffix == ".png")

    satellite = mask = panorama


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
    manifest = read_manifest(cache_root / MANIFEST, WHAT)
    if manifest is None:
        raise UserError(f"{cache_root}: no cache is here; make it with {make} --cache_root {cache_root} {sizes}")
    if manifest.get("version") != VERSION:
        raise UserError(f"{cache_root / MANIFEST}: not of a cache that this version reads; remove {cache_root} and make it again")
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
    needed = index.images(use_mask)
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


def read_files(cache_root):
    """Path -> size in bytes of the originals that a cache was made of; 0 for those that could not be read."""
    path = cache_root / FILES
    try:
        lines = path.read_text("utf-8").splitlines()
        return {name: int(size) for size, name in (line.split("\t", 1) for line in lines)}
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", "not the list of a cache")
        raise UserError(f"{path}: {fault}; remove the folder {cache_root} and make it again") from None


def make_cache(root, cache_root, *, workers, on_bad_image="error", **settings):
    """Write a cache of all images that the lists under `root` name, or finish one. Returns the number of copies it made.

    settings: those of `CacheSettings`. The manifest is written first and called complete at the end. An image that cannot be
    read is noted and the others are still copied; then it is an error, or with on_bad_image 'skip' it is left out. Raises
    UserError for these, for a folder that holds something else, and where nothing can be written.
    """
    cache_root, settings = Path(cache_root), CacheSettings(**settings)
    with locked(cache_root, "is making a cache in"):
        return _fill(root, cache_root, settings, workers, on_bad_image)


def _fill(root, cache_root, settings, workers, on_bad_image):
    kinds = {holds_photographs(root, city) for city in root_cities(root)}
    if len(kinds) == 2:
        raise UserError(
            f"{root}: has cities of photographs and of panoramas, but a cache holds one kind; keep them in two folders"
        )
    sizes = {path: _bytes_of(root / path) for path in listed_images(root, settings.use_mask)}
    manifest = {"version": VERSION, **settings.plain()}
    listing = "".join(f"{size}\t{path}\n" for path, size in sizes.items()).encode()
    with resumable(cache_root):
        if read_own_manifest(cache_root / MANIFEST, WHAT, manifest) and (cache_root / FILES).exists():
            for path, size in read_files(cache_root).items():
                if sizes.get(path, size) != size:  # the original has changed since
                    copy_path(cache_root, path).unlink(missing_ok=True)
        manifest |= {"files": len(sizes), "files_sha256": hashlib.sha256(listing).hexdigest()}
        write_manifest(cache_root / MANIFEST, manifest, complete=False)
        write_bytes(cache_root / FILES, listing)
        for folder in {copy_path(cache_root, path).parent for path in sizes}:
            folder.mkdir(parents=True, exist_ok=True)
        todo = [path for path in sizes if not is_whole(copy_path(cache_root, path))]
        originals = OriginalImages(root, settings.satellite_size, settings.panorama_size, kinds == {True})
        bad = _copy_all(originals, cache_root, todo, settings.quality, workers)
        if bad and on_bad_image == "error":
            raise UserError(
                f"{len(bad)} of {len(sizes)} images cannot be read, and the cache stays unfinished. The first: {bad[0]}. "
                "python -m dataset.check lists them all; --on_bad_image skip leaves them out"
            )
        remove_leftovers(cache_root)
        manifest["left_out"] = len(bad)
        write_manifest(cache_root / MANIFEST, manifest, complete=True)
    return len(todo) - len(bad)


def _copy_all(originals, cache_root, paths, quality, workers):
    """Copy these images; returns one line for each that cannot be read. The first failure to write ends it with OSError."""

    def copy(path):
        target = copy_path(cache_root, path)
        options = (cv2.IMWRITE_PNG_COMPRESSION, 9) if target.suffix == ".png" else (cv2.IMWRITE_JPEG_QUALITY, quality)
        try:
            write_bytes(target, encode(originals.read(path), target.suffix, *options))
        except UserError as error:
            return str(error)

    return [error for error in in_threads(copy, paths, workers, "caching") if error]


def _bytes_of(path):
    """Size of a file, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("folders")
    flags.add_dataset_root(group)
    group.add_argument("--cache_root", required=True, metavar="DIR", help="a new folder, or the unfinished cache to go on with")
    flags.add_settings(parser, CacheSettings)
    group = parser.add_argument_group("machine")
    flags.add_workers(group)
    text = "what an unreadable image is in the end: left out, or an error"
    group.add_argument("--on_bad_image", choices=("error", "skip"), default="error", help=text)
    return parser


def main(args):
    """Run the command."""
    root = find_root(args.dataset_root)
    refuse_other_sets(root, "dataset.cache")
    try:
        made = make_cache(root, **{name: value for name, value in vars(args).items() if name != "dataset_root"})
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with {args.cache_root}", file=sys.stderr)
        raise SystemExit(130) from None
    manifest = read_manifest(Path(args.cache_root, MANIFEST), WHAT)
    print(f"{args.cache_root}: complete, {manifest['files']} images, {made} copied now, {manifest['left_out']} left out")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
