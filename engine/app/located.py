"""A panorama found in a satellite image, to be looked at, clicked into and taken away."""

from pathlib import Path
from typing import NamedTuple

from engine.localizer import Found
from engine.search.report import map_link
from engine.visualization.localization import own_images, own_views
from engine.visualization.panels import bearing_in_satellite, bearing_in_street, satellite_panel, street_panel


class Located(NamedTuple):
    """What a `Localizer` has found, for two image files."""

    found: Found
    street: Path
    satellite: Path

    @classmethod
    def by(cls, localizer, street, satellite, lens=None, **known):
        """The answer of a `Localizer`, asked as its `locate` is. Raises UserError.

        street: a panorama or a photograph · lens: what is known of a photograph's camera, a dict.
        """
        given = {localizer.kind_of(street): street, "satellite": satellite}
        return cls(localizer.locate(**given, **known, **(lens or {})), Path(street), Path(satellite))

    def words(self):
        """The answer as Markdown."""
        found = self.found
        where = "" if found.latitude is None else f" · {map_link(found.latitude, found.longitude)}"
        return "\n\n".join([f"### row {found.row:.2f}, column {found.col:.2f}{where}", *found.words()])

    def panels(self, opacity, bearing):
        """Panels of the satellite image, with the heat map at an opacity, and of the street; a bearing is marked in both."""
        street, satellite = own_views(*self)
        one = self.found.estimate
        return satellite_panel(satellite, one, opacity, bearing), street_panel(street, one, bearing)

    def picture(self):
        """The figure that the script draws."""
        return own_images(*self)[0]

    def bearing_above(self, click):
        """The bearing of a click (x, y) into the satellite image's panel, from the place that was found."""
        return bearing_in_satellite(click, self.found.estimate)

    def bearing_in_street(self, click):
        """The bearing of a click (x, y) into the street image's panel."""
        return bearing_in_street(click, self.found.estimate)
