"""Pictures by their own coordinates, and the arrays behind them by cases made by hand."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from children import bearing_and_distance, gaussian
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from common import geometry
from common.camera import Panorama, pinhole
from engine.figures import attention, pictures
from engine.figures.street import draw_street
from engine.inference.predictor import Estimate
from engine.visualization import explain
from model.fusion import LayerAttention
from model.matching.ground_plane import template_cells

SIZE = 64
PREDICTION, TRUTH = (10.25, 50.5), (40.0, 12.75)
BLACK = np.zeros((SIZE, SIZE, 3), np.uint8)


def panorama(span=360.0, top=90.0, bottom=90.0):
    return Panorama(torch.zeros(1, 1), span, top, bottom)


def estimate(position=PREDICTION, sigma=1.5, **known):
    """An `Estimate` of a whole panorama, with nothing else known."""
    unknown = ("truth", "metres_per_pixel", "heading", "true_heading", "error_px", "error_m")
    known = {**dict.fromkeys(unknown), "camera": panorama(), **known}
    return Estimate(gaussian(*position, sigma), position, **known)


def localization(span=360.0, finer=1, mask=None, **known):
    street = np.zeros((32, round(64 * span / 360), 3), np.uint8)
    satellite = np.zeros((finer * SIZE, finer * SIZE, 3), np.uint8)
    known = {"truth": TRUTH, "metres_per_pixel": 0.9, "true_heading": 0.0, "camera": panorama(span)} | known
    return pictures.localization_figure((street, satellite), estimate(**known), mask=mask)


def rendered(figure):
    """The figure's pixels, and its height, from which y counts."""
    figure.savefig(file := io.BytesIO(), dpi=figure.dpi, format="png")
    image = np.asarray(Image.open(file).convert("RGB"))
    return image, len(image) - 1


def marks(axes):
    """{label: (row, col)} of what is marked."""
    labelled = (line for line in axes.lines if not line.get_label().startswith("_"))
    return {line.get_label(): (float(line.get_ydata()[0]), float(line.get_xdata()[0])) for line in labelled}


@pytest.mark.parametrize("finer", [1, 10])
def test_marks_stand_at_their_positions(finer):
    figure = localization(finer=finer, mask=np.full((SIZE, SIZE), 255, np.uint8))
    for axes in figure.axes[1:4]:
        assert axes.images[0].get_array().shape[:2] == (finer * SIZE, finer * SIZE)
        assert marks(axes) == {"truth": TRUTH, "prediction": PREDICTION}
        assert {tuple(image.get_extent()) for image in axes.images} == {(0, SIZE, SIZE, 0)}
    heat = figure.axes[2].images[1]
    assert np.unravel_index(heat.get_array().argmax(), (SIZE, SIZE)) == (10, 50)


@pytest.mark.parametrize("place", [PREDICTION, (1.5, 63.0)])
def test_the_middle_shows_a_sharp_heat_map_between_its_marks(place):
    one, figure = estimate(place, sigma=0.4, metres_per_pixel=0.5), Figure()
    corner, side = pictures.draw_middle(axes := figure.subplots(), BLACK, one)
    assert side == pytest.approx(0.2 * SIZE) and "6.4 m" in axes.get_title()
    limits = (corner[0], corner[0] + side, corner[1] + side, corner[1])
    assert (*axes.get_xlim(), *axes.get_ylim()) == limits
    for at, start in zip(place[::-1], corner, strict=True):
        assert 0 <= start <= at <= start + side <= SIZE
    image, height = rendered(figure)
    brightest = np.add(np.unravel_index(one.probability.argmax(), one.probability.shape), 0.5)
    x, y = axes.transData.transform(brightest[::-1])
    colour = np.multiply(0.85, matplotlib.colormaps[pictures.HEAT_COLOURS](1.0)[:3])
    np.testing.assert_allclose(image[height - int(y), int(x)] / 255, colour, atol=0.1)


def test_the_rendered_picture_has_the_mark_at_its_position():
    image, height = rendered(figure := localization())
    x, y = figure.axes[1].transData.transform((PREDICTION[1], PREDICTION[0]))
    # From the centre to the middle of one of the cross's four arms.
    arm = 0.7 * pictures.PREDICTION["markersize"] / 2 * figure.dpi / 72

    def colour_at(right, up):
        return image[height - int(y + up), int(x + right)] / 255

    for right, up in ((arm, arm), (arm, -arm), (-arm, arm), (-arm, -arm)):
        np.testing.assert_allclose(colour_at(right, up), to_rgb(pictures.PREDICTION_COLOUR), atol=0.02)
    assert not colour_at(0, 0).any() and not colour_at(0, 3 * arm).any()  # the black image


def test_nothing_is_drawn_for_what_is_not_known():
    figure = localization(truth=None, true_heading=None, metres_per_pixel=None)
    assert all("truth" not in marks(axes) for axes in figure.axes[1:3])
    assert not figure.axes[0].get_xticklabels()
    assert not any(text.get_text().endswith(" m") for text in figure.axes[1].texts)


def bearing_of(word):
    names = {"N": 0, "NE": 45, "E": 90, "SE": 135, "S": 180, "SW": 225, "W": 270, "NW": 315}
    return names[word] if word in names else float(word[:-1])


@pytest.mark.parametrize(("heading", "span"), [(0, 360), (137, 360), (-100, 180), (200, 90)])
def test_bearings_along_the_panorama(heading, span):
    axes = localization(span, true_heading=heading).axes[0]
    assert len(axes.get_xticks()) >= 3
    for x, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        col = ((x - 0.5) * span / 360 + 0.5) % 1.0 * 512
        seen_at = geometry.bearing_to_column(bearing_of(label.get_text()), 512, heading)
        assert col == pytest.approx(float(seen_at), abs=1e-3)


def test_a_cropped_panorama_keeps_its_shape():
    one = estimate(camera=panorama(top=38.6, bottom=26.9), true_heading=0.0)
    draw_street(axes := Figure().subplots(), np.zeros((56, 308, 3), np.uint8), one)
    assert axes.images[0].get_extent() == [0, 1, 56 / 308, 0]
    assert [label.get_text() for label in axes.get_xticklabels()] == "S SW W NW N NE E SE S".split()


def test_bearings_along_the_horizon_of_a_photograph():
    """The camera looks 10 degrees up: ahead, the horizon lies tan(10) focal lengths below the middle."""
    camera = pinhole(400, 300, hfov=90, pitch=10)[None]
    one = estimate(camera=camera, heading=90.0)
    draw_street(axes := Figure().subplots(), np.zeros((300, 400, 3), np.uint8), one)
    places = {bearing_of(text.get_text()): text.xy for text in axes.texts}
    assert places[90] == pytest.approx((0.5, 0.375 + 0.5 * np.tan(np.radians(10))), abs=1e-5)
    assert places[60][0] < 0.5 < places[120][0]
    assert "assumed" in axes.get_title()
    draw_street(axes, np.zeros((300, 400, 3), np.uint8), one._replace(tilt_estimated=True))
    assert "estimated" in axes.get_title()


def test_the_scale_bar_is_as_long_as_it_says():
    axes = localization(metres_per_pixel=0.3).axes[1]
    (bar,) = (line for line in axes.lines if line.get_label().startswith("_"))
    (words,) = (text.get_text() for text in axes.texts if text.get_text().endswith(" m"))
    assert np.ptp(bar.get_xdata()) * 0.3 == pytest.approx(float(words.split()[0]))


def test_arrows_point_along_headings():
    figure = localization(true_heading=200.0, heading=75.0)
    arrows = [text for text in figure.axes[2].texts if getattr(text, "arrow_patch", None)]
    found = [bearing_and_distance(*a.xyann[::-1], *a.xy[::-1])[0] for a in arrows]
    np.testing.assert_allclose(found, [75.0, -160.0])


def test_the_attention_of_the_token_at_the_prediction():
    """2 x 3 anchors, two heads; the prediction lies in the token of row 1, column 2, whose number is 5."""
    to_panorama, to_satellite = torch.full((1, 2, 6, 6), 1 / 6), torch.full((1, 2, 6, 6), 1 / 6)
    to_panorama[0, 0, 5] = torch.tensor([0.0, 0.1, 0.1, 0.1, 0.7, 0.0])
    to_panorama[0, 1, 5] = torch.tensor([0.0, 0.9, 0.1, 0.0, 0.0, 0.0])
    to_satellite[0, :, 1] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    layer = LayerAttention(panorama_to_satellite=to_satellite, satellite_to_panorama=to_panorama)
    mean = explain.attention_maps(layer, (2, 3), (40.0, 63.9), SIZE)
    assert mean.satellite_token == (1, 2) and mean.panorama_token == (0, 1)
    np.testing.assert_allclose(mean.panorama, [[0, 0.5, 0.1], [0.05, 0.35, 0]])
    np.testing.assert_allclose(mean.satellite, [[0, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(mean.mean_satellite.sum(), 1, rtol=1e-6)
    assert mean.mean_satellite[0, 2] == pytest.approx((1 + 5 / 6) / 6)
    assert explain.attention_maps(layer, (2, 3), (40.0, 63.9), SIZE, head=0).panorama_token == (1, 1)


def test_tokens_are_outlined_where_they_lie():
    maps = explain.AttentionMaps((1, 2), (0, 1), *[np.full((2, 3), 1 / 6)] * 4)
    left, right = Figure().subplots(1, 2)
    draw_street(left, np.zeros((32, 64, 3), np.uint8), estimate())
    pictures.draw_satellite(right, BLACK)
    attention.draw_attention(left, right, maps)
    expected = (1 / 3, 2 / 3, 0, 1 / 4), (2 / 3 * SIZE, SIZE, SIZE / 2, SIZE)
    for axes, sides in zip((left, right), expected, strict=True):
        (token,) = axes.patches
        box = token.get_bbox()
        np.testing.assert_allclose((box.xmin, box.xmax, box.ymin, box.ymax), sides)


@pytest.mark.parametrize(("heading", "span"), [(0.0, 360), (90.0, 360), (90.0, 180)])
def test_the_panorama_on_the_ground_is_north_up(heading, span):
    width = 256 * span // 360
    street = torch.zeros(1, 3, 128, width, dtype=torch.uint8)
    col = int(((90 - heading + 180) % 360 - 180) / span * width + width / 2)
    street[..., col - 4 : col + 4] = 200  # a stripe in the east
    cells = template_cells(torch.tensor([0.5]), 20)
    ground = explain.on_the_ground(street, *cells, 2.5, panorama(float(span)), heading)
    assert ground.shape == (41, 41, 4)
    assert (ground[20, 32] == (200, 200, 200, 255)).all()
    assert ground[8, 20, 0] == 0 and ground[0, 0, 3] == 0
    assert ground[20, 8, 3] == (255 if span == 360 else 0)  # half a view to the east has no west


def test_features_as_colours():
    template, shown = np.zeros((5, 3, 3)), np.ones((3, 3), bool)
    shown[0, 0] = False
    template[2] = np.arange(9).reshape(3, 3)
    colours = explain.feature_colours(template, shown)
    assert colours.shape == (3, 3, 4) and colours[0, 0, 3] == 0 and (colours[shown][:, 3] == 1).all()
    red = colours[..., 0][shown]
    assert (np.diff(red) >= 0).all() or (np.diff(red) <= 0).all()  # cells differ in one direction


def test_heat_maps_side_by_side():
    """Each with its own truth, where that lies in the image, and its own prediction."""
    estimates = [estimate(truth=TRUTH), estimate((30.5, 20.5))]
    figure = pictures.heat_maps_figure(np.stack([BLACK, BLACK]), estimates)
    expected = {"truth": TRUTH, "prediction": PREDICTION}, {"prediction": (30.5, 20.5)}
    assert tuple(marks(axes) for axes in figure.axes) == expected
    for axes, one in zip(figure.axes, estimates, strict=True):
        brightest = np.unravel_index(axes.images[1].get_array().argmax(), (SIZE, SIZE))
        assert brightest == tuple(int(value) for value in one.position)
