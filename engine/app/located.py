"""The user's two images on the page: the answer in words, in panels that take clicks, and as a picture."""

from pathlib import Path
from typing import NamedTuple

from engine.app.panels import bearing_in_satellite, bearing_in_street, satellite_panel, street_panel
from engine.localizer import Located
from engine.search.report import map_link
from engine.visualization.localization import own_images, own_views


class LocatedFiles(NamedTuple):
    """A `Located`, and the files of its two images."""

    located: Located
    street: Path
    satellite: Path

    @classmethod
    def by(cls, localizer, street, satellite, lens=None, vertical=None, **known):
        """The answer of a `Localizer`, asked as its `locate` is.

        street: a panorama or a photograph.
        lens: what is known of a photograph's camera, a dict, or None.
        vertical: what a cropped panorama shows, or None.

        Raises UserError.
        """
        kind = localizer.kind_of(street) if vertical is None else "panorama"
        known |= (lens or {}) | ({} if vertical is None else {"vertical": vertical})
        located = localizer.locate(**{kind: street, "satellite": satellite}, **known)
        return cls(located, Path(street), Path(satellite))

    def words(self):
        """The answer as Markdown."""
        place = self.located
        where = "" if place.latitude is None else f" · {map_link(place.latitude, place.longitude)}"
        return "\n\n".join([f"### row {place.row:.2f}, column {place.col:.2f}{where}", *place.words()])

    def panels(self, opacity, bearing):
        """Panels of the satellite image, the heat map at an opacity, and the street; both mark a bearing."""
        street, satellite = own_views(*self)
        one = self.located.estimate
        return satellite_panel(satellite, one, opacity, bearing), street_panel(street, one, bearing)

    def picture(self):
        """The figure that the script draws."""
        return own_images(*self)[0]

    def bearing_above(self, click):
        """The bearing of a click (x, y) into the satellite image's panel, from the predicted position."""
        return bearing_in_satellite(click, self.located.estimate)

    def bearing_in_street(self, click):
        """The bearing of a click (x, y) into the street image's panel."""
        return bearing_in_street(click, self.located.estimate)
