"""Writes VIGOR's lists; `dataset.index` reads them."""

from common import geometry
from common.files import write_bytes


def satellite_at(centre):
    """(name, (latitude, longitude) as in it) of the satellite image with a centre (row, col) on the map."""
    gps = tuple(f"{degrees:.12f}" for degrees in geometry.latitude_longitude(*centre))
    return f"satellite_{gps[0]}_{gps[1]}.png", gps


def label_line(panorama, gps, satellites):
    """A line of a label list.

    panorama: its file's name · gps: its (latitude, longitude), as text or numbers · satellites: its four images as (name,
    (latitude, longitude)), the positive first.
    """
    words = [panorama]
    for name, centre in satellites:
        position = geometry.gps_to_position(*(float(degrees) for degrees in (*gps, *centre)))
        words += [name, *(f"{offset:.4f}" for offset in geometry.position_to_offsets(*position))]
    return " ".join(words)


def write_lists(folder, satellites, lines, train, test):
    """The list of a city's satellite images and its three label lists, all, training and test.

    lines: of all panoramas · train, test: numbers of those in the same-area lists.
    """
    for name, content in (
        ("satellite_list.txt", sorted(satellites)),
        ("same_area_balanced_train__corrected.txt", [lines[i] for i in sorted(train)]),
        ("same_area_balanced_test__corrected.txt", [lines[i] for i in sorted(test)]),
        ("pano_label_balanced__corrected.txt", lines),
    ):
        write_bytes(folder / name, "".join(f"{line}\n" for line in content).encode())
