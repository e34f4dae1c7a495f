"""The user's two images on the page: the answer in words, in panels that take clicks, and as a picture."""

from pathlib import Path
from typing import NamedTuple

from engine.app.forms import on_page
from engine.app.panels import satellite_panel, street_panel
from engine.localizer import Located
from engine.search.report import map_link
from engine.visualization.localization import own_images, own_views


def street_entries(localizer, street, lens=None, vertical=None):
    """A street image's file and what is known of its camera, as `Localizer.locate` takes them.

    lens: of a photograph, a dict; vertical: of a cropped panorama. Both may be None.
    """
    kind = localizer.kind_of(street) if vertical is None else "panorama"
    return {kind: street, "vertical": vertical, **(lens or {})}


class LocatedFiles(NamedTuple):
    """A `Located`, and the files of its two images."""

    located: Located
    street: Path
    satellite: Path

    @classmethod
    def by(cls, localizer, street, satellite, lens=None, vertical=None, **known):
        """The answer of a `Localizer`, asked as `street_entries` and its `locate` are. Raises UserError."""
        known |= street_entries(localizer, street, lens, vertical)
        (located,) = localizer.answers([{"satellite": satellite, **known}])
        return cls(located, Path(street), Path(satellite))

    def words(self):
        """The answer as Markdown."""
        place = self.located
        where = "" if place.latitude is None else f" · {map_link(place.latitude, place.longitude)}"
        words = map(on_page, place.words())
        return "\n\n".join([f"### row {place.row:.2f}, column {place.col:.2f}{where}", *words])

    def panels(self, opacity, bearing):
        """Panels of the satellite image, the heat map at an opacity, and the street; both mark a bearing."""
        (street, satellite), one = own_views(*self), self.located.estimate
        return satellite_panel(satellite, one, opacity, bearing), street_panel(street, one, bearing)

    def picture(self):
        """The figure that the script draws."""
        return own_images(*self)[0]
