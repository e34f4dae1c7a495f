"""What an answer says of itself: notes in words."""

from engine.inference.decode import NEAR_M

_RANGE_END = 1.1  # a height within this factor of an end of what a network knows hints at a wrong scale


def tilt_note(pitch, roll):
    """The estimated tilt of a photograph's camera, degrees."""
    up, clockwise = "up" if pitch >= 0 else "down", "clockwise" if roll >= 0 else "counter-clockwise"
    tilt = f"the camera looks {abs(pitch):.1f}° {up} and is turned {abs(roll):.1f}° {clockwise}"
    return f"by the photograph, {tilt}"


def height_note(metres, usual, factor):
    """The estimated height of a camera; a wrong scale looks like a wrong height (docs/TRIED.md).

    The network knows heights in metres from `usual` divided by `factor` to `usual` times `factor`.
    """
    line = f"by both images, the camera stood {metres:.1f} m above the street"
    reach = factor / _RANGE_END
    if usual / reach < metres < usual * reach:
        return line
    end, fault = ("most", "large") if metres > usual else ("least", "small")
    hint = f"if that cannot be, --metres_per_pixel is too {fault}"
    return f"{line}, about the {end} that this network knows; {hint}"


def ridge_note(along, across, bearing):
    """A heat map that is a ridge: its standard deviations in metres and the bearing of its longer axis."""
    line = f"the place is better known across a line that runs {round(bearing) % 180}° than along it"
    return f"{line}: ±{across:.1f} m across, ±{along:.1f} m along"


def doubt_note(probability, others, in_metres):
    """An answer of low probability, with the other places ((row, col), probability) that are likely."""
    reach = f"within {NEAR_M:g} m of" if in_metres else "near"
    places = [f"{100 * share:.0f} % about row {row:.0f}, column {col:.0f}" for (row, col), share in others]
    where = "; ".join(places) or "the rest is spread"
    return f"not sure: {100 * probability:.0f} % of the probability lie {reach} this place, {where}"
