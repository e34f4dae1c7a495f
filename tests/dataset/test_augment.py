"""Augmentation keeps one world in both views: a painted mark is seen where the labels say that it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from children import bearing_and_distance, draw_batch

from common import geometry
from common.camera import Camera, panorama
from common.view import View
from dataset import appearance
from dataset import augment as A
from dataset.loader import collate
from dataset.vigor import as_sample

B, S, H, W = 16, 160, 160, 320
HORIZON = H // 2 + 6  # rows above it are sky, or ground too far away to matter
METRES_PER_PIXEL, CAMERA_M, MAGENTA = 0.4, 2.5, (200, 60, 200)
VIEW = View(satellite_size=S, panorama_size=(H, W))


def painted_pair(rng):
    """A grey world with a magenta disc on the ground, seen from above and from a panorama with a heading."""
    position = rng.uniform(0.3, 0.7, 2) * S
    heading = round(rng.uniform(-180, 180) / 360 * W) * 360 / W
    bearing, distance = rng.uniform(-180, 180), rng.uniform(6, 9)
    mark = geometry.move(*position, bearing, distance / METRES_PER_PIXEL)
    rows, cols = np.mgrid[:S, :S] + 0.5
    disc = np.hypot(rows - mark[0], cols - mark[1]) * METRES_PER_PIXEL < 1.2
    satellite = np.where(disc[..., None], MAGENTA, 110).astype(np.uint8)
    rows, cols = np.mgrid[:H, :W] + 0.5
    away = CAMERA_M / np.tan(np.radians(np.clip(-geometry.row_to_elevation(rows, H), 1e-3, 90)))
    towards = np.radians(geometry.column_to_bearing(cols, W, heading) - bearing)
    seen = np.hypot(away * np.cos(towards) - distance, away * np.sin(towards)) < 1.2
    query = np.where(seen[..., None], MAGENTA, 110).astype(np.uint8)
    numbers = {"heading": geometry.wrap_degrees(heading), "metres_per_pixel": METRES_PER_PIXEL}
    sample = as_sample(query, satellite, disc * np.uint8(255), position=position, **numbers)
    return sample | {"camera": panorama()}


@pytest.fixture(scope="module")
def batch():
    """B pairs with a painted mark, drawn from `geometry` alone."""
    rng = np.random.default_rng(0)
    return collate([painted_pair(rng) for _ in range(B)])


def colourful(image):
    """(H, W) weights of the pixels that are not grey, 0 to 1."""
    spread = np.asarray(image, np.float32)
    spread = spread.max(0) - spread.min(0)
    return np.clip(spread - 0.4 * spread.max(), 0, None) / max(spread.max(), 1.0)


def centre(weight):
    """(row, col) of the weights' centre."""
    rows, cols = np.indices(weight.shape) + 0.5
    return (weight * rows).sum() / weight.sum(), (weight * cols).sum() / weight.sum()


def on_the_ground(weight, bearing, depression):
    """Bearing in degrees and distance in metres of a mark, from where its pixels' rays meet the ground."""
    bearing, below = np.radians(bearing), np.radians(np.clip(depression, 5, 89))
    away = CAMERA_M / np.tan(below)
    weight = weight * away / np.sin(below) ** 2  # pixels to square metres
    north, east = ((weight * away * f(bearing)).sum() / weight.sum() for f in (np.cos, np.sin))
    return np.degrees(np.arctan2(east, north)), np.hypot(north, east)


def seen_in_panorama(query, heading, span=360.0):
    weight = np.pad(colourful(query[:, HORIZON:]), ((HORIZON, 0), (0, 0)))  # without the sky
    rows, cols = np.indices(weight.shape) + 0.5
    bearing = (cols / weight.shape[1] - 0.5) * span + heading
    return on_the_ground(weight, bearing, -geometry.row_to_elevation(rows, H))


def seen_from_above(layer, position, metres_per_pixel):
    """The same, read from the satellite image."""
    bearing, pixels = bearing_and_distance(*position, *centre(layer))
    return bearing, pixels * metres_per_pixel


def assert_one_world(batch, which=None):
    """Both views and the mask of each sample agree on the mark, within a pixel's worth."""
    for i in range(len(batch["position"])) if which is None else which:
        position, scale = batch["position"][i].numpy(), float(batch["metres_per_pixel"][i])
        there = seen_from_above(colourful(batch["satellite"][i]), position, scale)
        seen = seen_in_panorama(batch["query"][i], float(batch["heading"][i]), batch["camera"].span)
        masked = seen_from_above(batch["mask"][i, 0].float().numpy(), position, scale)
        pixel_deg = 360 / W + np.degrees(0.5 * scale / there[1])
        for other in (seen, masked):
            assert abs(geometry.wrap_degrees(other[0] - there[0])) < pixel_deg, (i, there, other)
            assert abs(other[1] - there[1]) < scale, (i, there, other)


def change(**changes):
    """A PairChange that does nothing but what is asked for."""
    nothing = {"mirror": torch.zeros(B, dtype=torch.bool), "columns": torch.zeros(B, dtype=torch.long)}
    return A.PairChange(**nothing | {"zoom": torch.ones(B), "shift": torch.zeros(B, 2)} | changes)


def test_the_painted_world_is_one(batch):
    assert_one_world(batch)


ALONE = {
    "mirror": {"mirror": torch.ones(B, dtype=torch.bool)},
    "quarter turns": {"columns": torch.arange(B) % 4 * (W // 4)},
    "small turns": {"columns": torch.linspace(-9, 9, B).round().long()},
    "zoom": {"zoom": torch.linspace(0.9, 1.1, B)},
    "shift": {"shift": torch.stack((torch.linspace(-16, 16, B), torch.linspace(9, -14, B)), 1)},
}


@pytest.mark.parametrize("name", ALONE)
def test_one_change_alone_keeps_the_world(batch, name):
    changed = A.change_pair(batch, change(**ALONE[name]))
    assert_one_world(changed)
    apart = (changed["satellite"] - batch["satellite"].float()).abs().amax((1, 2, 3))
    assert apart.gt(20).sum() > B // 2  # it did something


def test_mirror_and_quarter_turns_move_whole_pixels(batch):
    before, after = batch["satellite"].float(), A.change_pair(batch, change(**ALONE["mirror"]))
    torch.testing.assert_close(after["satellite"], before.flip(3), atol=0.05, rtol=0)
    assert torch.equal(after["query"], batch["query"].flip(3))
    after = A.change_pair(batch, change(columns=torch.full((B,), W // 4)))  # clockwise
    torch.testing.assert_close(after["satellite"], before.rot90(-1, (2, 3)), atol=0.05, rtol=0)
    assert torch.equal(after["query"], batch["query"].roll(W // 4, 3))


def whole_marks(before, after, FoV):
    """Indices of the samples whose mark was there that erasing left alone and that no edge cuts."""
    usable = torch.ones(len(before["position"]), dtype=torch.bool)
    for view in ("query", "satellite"):
        mark = before[view].float()
        mark = mark.amax(1, keepdim=True) - mark.amin(1, keepdim=True) > 30
        cut = torch.zeros_like(mark)
        if view == "query":
            mark[:, :, :HORIZON] = False
        else:
            cut[:, :, [0, -1]] = True
        if view == "satellite" or FoV < 360:
            cut[..., [0, -1]] = True
        spoilt = mark & (cut | (before[view] != after[view]))
        usable &= mark.flatten(1).any(1) & ~spoilt.flatten(1).any(1)
    return torch.nonzero(usable)[:, 0].tolist()


@pytest.mark.parametrize("mode", ["photometric", "full"])
@pytest.mark.parametrize("FoV", [360.0, 200.0])
def test_all_changes_together_keep_the_world(batch, mode, FoV, monkeypatch):
    checked, view = 0, replace(VIEW, FoV=FoV)
    for seed in range(2):
        torch.manual_seed(seed)
        changed = A.augment(batch, mode, view)
        with monkeypatch.context() as patch:
            patch.setattr(appearance, "ERASE_SHARE", 0.0)
            torch.manual_seed(seed)
            unerased = A.augment(batch, mode, view)
        same = "position", "heading", "metres_per_pixel", "mask"
        assert all(torch.equal(unerased[name], changed[name]) for name in same)
        usable = whole_marks(unerased, changed, FoV)
        assert_one_world(changed, usable)
        checked += len(usable)
        assert changed["query"].shape == (B, 3, *view.query_px)
    assert checked > (B if FoV == 360 else B // 3)


def numbers(value):
    """What a batch's entry holds, as a tensor."""
    return value.values if isinstance(value, Camera) else value


def test_positions_stay_inside_up_to_the_border():
    torch.manual_seed(0)
    edge = torch.tensor([[0.0, 0.0], [0.0, 63.9], [63.9, 30.0], [1.0, 62.0], [32.0, 0.0], [20.0, 60.0]])
    for _ in range(50):
        drawn = A.draw_pair_change(len(edge), 64, 128)
        kept = A.keep_inside(drawn, edge, 64, 128)
        position = A.change_pair(draw_batch(0, B=6) | {"position": edge}, kept)["position"]
        assert ((position >= 0) & (position < 64)).all()
        changed = (kept.shift != 0).any(1)
        assert torch.equal(kept.columns[changed], drawn.columns[changed])
        assert (kept.columns[~changed] % 32 == 0).all()


@pytest.mark.parametrize("mode", ["full", "strong", "textures"])
def test_draws_hang_on_the_seed_alone_and_the_batch_stays_as_it_was(batch, mode):
    before = {name: numbers(value).clone() for name, value in batch.items()}
    torch.manual_seed(7)
    first = A.augment(batch, mode, VIEW)
    torch.manual_seed(7)
    second = A.augment(batch, mode, VIEW)
    assert all(torch.equal(numbers(first[name]), numbers(second[name])) for name in first)
    assert all(torch.equal(numbers(batch[name]), before[name]) for name in batch)
    assert len({float(value) for value in first["metres_per_pixel"]}) > B // 2  # each sample has its own
    assert 0 <= float(first["query"].min()) and float(first["query"].max()) <= 255


def test_a_scale_that_is_told_wrong(batch):
    """The views are those of the true change; metres per pixel are wrong, either way, by up to the factor."""
    torch.manual_seed(0)
    drawn = A.keep_inside(A.draw_pair_change(B, S, W, 1.5), batch["position"], S, W)
    assert 1 / 1.5 <= float(drawn.scale_error.min()) < 0.85 and 1.15 < float(drawn.scale_error.max()) <= 1.5
    wrong, right = (
        A.change_pair(batch, change) for change in (drawn, drawn._replace(scale_error=torch.ones(B)))
    )
    same = batch.keys() - {"metres_per_pixel"}
    assert all(torch.equal(numbers(wrong[name]), numbers(right[name])) for name in same)
    torch.testing.assert_close(right["metres_per_pixel"], batch["metres_per_pixel"] / drawn.zoom)
    torch.testing.assert_close(wrong["metres_per_pixel"] / right["metres_per_pixel"], drawn.scale_error)


def test_cropped_panoramas_keep_the_world_and_their_camera_says_what_they_show(batch, monkeypatch):
    monkeypatch.setattr(A, "CROPPED_BELOW", (60.0, 60.0))  # so that the mark stays in view
    shapes = set()
    for seed in range(6):
        torch.manual_seed(seed)
        cropped = A.augment(batch, "none", VIEW, cropped=1.0)
        camera, rows = cropped["camera"], cropped["query"].shape[2]
        assert rows % 8 == 0 and camera.top + camera.bottom == pytest.approx(180 * rows / H)
        assert 24 < camera.top < 61 and abs(camera.bottom - 60) < 6
        first = round((90 - camera.top) / 180 * H)
        assert torch.equal(cropped["query"], batch["query"][:, :, first : first + rows])
        # A pixel's ray is the same as in the whole panorama.
        x, y = torch.full((B, 1), 0.3), torch.full((B, 1), (20 + 0.5) / rows)
        whole = batch["camera"].rays(x, torch.full((B, 1), (first + 20 + 0.5) / H))
        for one, other in zip(camera.rays(x, y), whole, strict=True):
            torch.testing.assert_close(one, other)
        shapes.add(rows)
    assert len(shapes) > 2
    torch.manual_seed(0)
    share = sum(A.augment(batch, "none", VIEW, cropped=0.3)["query"].shape[2] < H for _ in range(200)) / 200
    assert 0.2 < share < 0.4


def test_a_heading_that_is_told_wrong(batch):
    torch.manual_seed(0)
    changed = A.augment(batch, "none", VIEW, heading_error=3.0)
    error = changed["camera"].heading - batch["camera"].heading
    assert error.abs().max() <= 3 and error.min() < -1 and error.max() > 1
    assert torch.equal(changed["heading"], batch["heading"]) and torch.equal(changed["query"], batch["query"])


VIEWS = [replace(VIEW, FoV=FoV) for FoV in (360.0, 90.0, 201.0)]
VIEWS += [replace(VIEW, camera="photo", photo_width=64)]


@pytest.mark.parametrize("view", VIEWS, ids=["whole", "90 degrees", "201 degrees", "photographs"])
def test_without_augmentation_only_the_view_acts(batch, view):
    plain = A.augment(batch, "none", view)
    moved = {"query", "camera", *(("heading", "tilt") if view.photographs else ())}
    assert plain["query"].shape == (B, 3, *view.query_px) and plain["camera"].kind == view.camera
    assert all(plain[name] is batch[name] for name in batch.keys() - moved)
    if not view.photographs:  # evaluation cuts as training does, and what is cut stays as it is
        start, stop = geometry.view_columns(view.FoV, W)
        cut = A.cut(batch, view)
        for other in (plain, cut, A.cut(cut, view)):
            assert torch.equal(other["query"], batch["query"][..., start:stop])
            assert other["camera"].span == pytest.approx(360 * (stop - start) / W)
    with pytest.raises(ValueError, match="augment 'wild'"):
        A.augment(batch, "wild", view)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives(batch):
    torch.manual_seed(1)
    here = A.augment(batch, "full", VIEW)
    torch.manual_seed(1)
    there = A.augment({name: value.to("cuda") for name, value in batch.items()}, "full", VIEW)
    for name, value in here.items():
        torch.testing.assert_close(numbers(there[name]).cpu(), numbers(value), atol=0.5, rtol=1e-4)


def test_hidden_bearings_leave_one_world(batch):
    """What is left of panoramas shows the mark where it was, and their prior headings turn as they do."""
    torch.manual_seed(1)
    part = A.hide_bearings(batch, VIEW)
    span = part["camera"].span
    assert A.KEPT[0] - 2 < span < A.KEPT[1] and part["query"].shape[-1] == round(span / 360 * W)
    turned = geometry.wrap_degrees(part["heading"] - batch["heading"])
    torch.testing.assert_close(part["camera"].heading, turned, atol=1e-3, rtol=0)
    assert turned.unique().numel() == B
    apart = []
    for i in range(B):
        mark = centre(batch["mask"][i, 0].float().numpy())
        bearing, _ = bearing_and_distance(*batch["position"][i].numpy(), *mark)
        apart.append(abs(geometry.wrap_degrees(bearing - float(part["heading"][i]))))
    seen = [i for i in range(B) if apart[i] < span / 2 - 15]
    assert 3 < len(seen)
    assert_one_world(part, seen)
    for view in (replace(VIEW, FoV=90.0), replace(VIEW, camera="photo")):
        drawn = A.move(batch, "none", view)
        assert A.hide_bearings(drawn, view) is drawn
