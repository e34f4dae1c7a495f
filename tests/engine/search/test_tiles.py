"""An image cut out of a city around any place."""

import numpy as np
import pytest
from worlds import CORNER, PIXEL, SIZE, colour, make_tiles


@pytest.mark.parametrize("place", [(480, 480), (333, 517), (600, 601), (322, 322)])
@pytest.mark.parametrize("shift", [0, 5.5])
def test_a_cut_shows_what_lies_there(place, shift):
    """The second image of four lies off the others' pixels."""
    tiles = make_tiles([(0, 0), (shift, 320 + shift), (320, 0), (320, 320)])
    image, mask, corner = tiles.cut(CORNER + place, use_mask=True)
    assert image.shape == (SIZE, SIZE, 3) and abs(corner + 320 - (CORNER + place)).max() <= PIXEL / 2
    steps = (np.arange(SIZE) + 0.5) * PIXEL
    expected = colour(np.stack(np.meshgrid(steps, steps, indexing="ij"), -1) + corner)
    covered = image.any(-1)
    assert covered.mean() > 0.9
    assert np.abs(image[covered] - expected[covered])[:, :2].max() <= 1.01
    np.testing.assert_array_equal(mask[covered], image[covered][:, 0])


def test_the_nearest_image_is_taken_over_as_it_is():
    tiles = make_tiles([(0, 0), (3, 320)])
    own = tiles.load(1)
    image, mask, corner = tiles.cut(tiles.centres_px[1] + (21, -17), use_mask=False)
    assert mask is None and tiles.nearest(tiles.centres_px[1] + (21, -17)) == 1
    down, right = np.rint((corner - (tiles.centres_px[1] - 320)) / PIXEL).astype(int)
    assert (down, right) == (2, -2)
    np.testing.assert_array_equal(image[:-down, -right:], own[down:, :right])
    assert not image[-1].any(), "nothing covers what lies further south"


@pytest.mark.parametrize("pixel", [PIXEL, 2.5 * PIXEL])
def test_a_mosaic_shows_what_lies_there_and_reads_few_images(pixel):
    tiles = make_tiles([(320 * row, 320 * col) for row in range(5) for col in range(5)])
    tiles.images.numbers.clear()
    side = int(1920 / pixel)
    picture = tiles.mosaic(CORNER - 100, side + int(200 / pixel), side, pixel)
    steps = (np.arange(max(picture.shape)) + 0.5) * pixel - 100
    places = np.stack(np.meshgrid(steps[: picture.shape[0]], steps[:side], indexing="ij"), -1) + CORNER
    expected = colour(places)
    covered = (picture != 255).any(-1)
    assert 0.8 < covered.mean() < 0.95 and len(tiles.images.numbers) == 9  # of 25, every other one each way
    assert np.abs(picture[covered] - expected[covered])[:, :2].max() <= pixel / 20 + 1
