"""The tab for the user's two images: examples, input fields by importance, answer, files."""

import secrets
import tempfile
from pathlib import Path

import gradio as gr

from common.errors import UserError
from common.geometry import gps_to_position, metres_per_pixel
from dataset.georeference import read_georeference
from dataset.mini_vigor.street import draw_street
from engine.app.examples import ZOOM
from engine.app.forms import read_form, warning
from engine.app.located import LocatedFiles, preview
from engine.app.parts import (
    LAST,
    LENS,
    NORTH,
    OPEN,
    VERTICAL,
    answered,
    column,
    downloads,
    filled,
    keep,
    numbers,
    offered,
    picture_button,
    satellite_file,
    saved,
    scene_view,
    stop_button,
    street_file,
    temporary,
    tiles,
    uploaded,
)

_IMAGES = {"concurrency_id": "images"}
_START = "### Drop two images."
_NEW = "Another street, drawn now"
_FIELDS = ("heading", "centre", "zoom", "metres_per_pixel", "lens", "vertical")
_TIFF = (b"II*\0", b"MM\0*")


class TwoImagesTab:
    """Locates the user's two images with a `Localizer`; it opens with the first of `load_examples`."""

    def __init__(self, localizer, examples):
        self.localizer, self.examples = localizer, examples
        first, scene = self._first()
        pictures = [(one["street"], one["caption"]) for one in examples]
        self.gallery = tiles("examples", [*pictures, (None, _NEW)])
        with gr.Row(elem_classes="two"):
            with column(2, "form"):
                gr.Markdown("### Your own two images")
                self.street, self.satellite = street_file("street"), satellite_file("above")
                gr.Markdown(
                    "How large is the satellite image's pixel? One of these; a GeoTIFF says it itself."
                )
                with gr.Group():
                    words = "latitude, longitude in degrees"
                    centre = gr.Textbox(label="Satellite center", info=words, **OPEN)
                    with gr.Row():
                        zoom = gr.Textbox(label="Zoom", info="of its web map, such as 20", **OPEN)
                        metres = gr.Textbox(label="Metres per pixel", info="instead of the zoom", **OPEN)
                    words = "metres between two points; press Measure under the map and click them"
                    distance = gr.Textbox(label="Measured distance", info=words, **OPEN)
                info = f"{NORTH}; or press Set the heading under the map"
                heading = gr.Textbox(label="Heading of the street image", info=info, **OPEN)
                with gr.Accordion("More: photographs, cropped panoramas", open=False):
                    lens, vertical = gr.Textbox(**LENS), gr.Textbox(**VERTICAL)
                go = gr.Button("Find the place", variant="primary")
                stopped = gr.Row()
            with column(3, "answer"):
                self.answer = gr.Markdown(first.words() if first else _START, elem_id="answer")
                self.scene = scene_view("scene", scene)
                with gr.Row():
                    self.save = downloads(first.files() if first else {})
                    self.found = gr.State(first)
                    picture = picture_button("picture", self._draw, self.found, self.answer, _IMAGES)
                    drawn, self.picture = picture
                self.details = numbers(first.details() if first else "")
        self.pixels = gr.State()
        self.fields = dict(zip(_FIELDS, (heading, centre, zoom, metres, lens, vertical), strict=True))
        given = [self.street, self.satellite, *self.fields.values()]
        self.outputs = [self.answer, self.scene, self.details, self.found, *self.save]
        how = {"preprocess": False, "show_progress_on": self.answer, **LAST, **_IMAGES}
        located = go.click(self._locate, given, self.outputs, **how)
        changes = [event for file in given[:2] for event in (file.upload, file.clear)]
        looked = gr.on([*changes, heading.submit], self._look, given, self.outputs[:2], **how)
        every = [*self.outputs, *given]
        chosen = self.gallery.pick(self._example, None, every, **_IMAGES)
        self.scene.aim(self._aim, None, heading, show_progress="hidden")
        measured = {"outputs": [self.pixels, metres, self.answer], "show_progress": "hidden"}
        self.scene.measure(self._measure, distance, **measured)
        distance.change(self._measure_again, [self.pixels, distance], **measured)
        self.given, self.restored = given, every
        with stopped:
            stop_button(self.answer, [located, looked, chosen, drawn])

    def _first(self):
        """(answer, scene) of the first example that the network accepts, or (None, None)."""
        for example in self.examples:
            try:
                found = self._found(example)
            except UserError:  # a photograph for a network of panoramas, or the reverse
                continue
            return found, self._scene(found, example) | {"link": None}
        return None, None

    def _found(self, example):
        """The answer for an example."""
        names = ("centre", "heading", "lens", "vertical")
        known = {name: example.get(name) for name in names}
        known["metres_per_pixel"] = _metres(known["centre"], example["zoom"])
        files = example["street"], example["satellite"]
        if "hfov" in example:
            known["lens"] = {"hfov": example["hfov"]}
        return LocatedFiles.by(self.localizer, *files, **known)

    def _scene(self, found, example):
        truth = gps_to_position(*example["truth"], *example["centre"], size_px=found.located.size[1])
        return found.scene(truth) | {"link": f"?example={example['name']}"}

    def _answers(self, found, scene):
        """The updates for an answer."""
        about = {self.answer: found.words(), self.details: found.details(), self.found: found}
        return about | {self.scene: scene} | offered(self.save, found.files())

    @answered
    def _locate(self, street, satellite, *fields):
        if not (street and satellite):
            yield {self.answer: warning(f"the {'street' if satellite else 'satellite'} image is missing")}
            return
        yield {self.answer: "Looking …"}
        files = uploaded(street), uploaded(satellite)
        known = read_form(**dict(zip(_FIELDS, fields, strict=True)))
        known |= _scale(files[1], known["centre"], known.pop("zoom"), known["metres_per_pixel"])
        found = LocatedFiles.by(self.localizer, *files, **known)
        yield self._answers(found, found.scene() | {"link": keep("Images", [street, satellite, *fields])})

    @answered
    def _look(self, street, satellite, *fields):
        if not (street and satellite):
            missing = "street image" if satellite else "satellite image"
            yield {self.answer: f"### Now the {missing}." if street or satellite else _START}
            return
        known = read_form(**dict(zip(_FIELDS, fields, strict=True)))
        files = uploaded(street), uploaded(satellite)
        scene = preview(*files, known["heading"], known["lens"], known["vertical"])
        scale = _scale(files[1], known["centre"], known["zoom"], known["metres_per_pixel"])
        words = "Press *Find the place*."
        if scale["metres_per_pixel"] is None:
            words = "How large is a pixel? Give *Satellite center* and *Zoom*, or *Measure*."
        else:
            scene["map"]["metres"] = scale["metres_per_pixel"]
        yield {self.answer: f"### {words}", self.scene: scene}

    @answered
    def _example(self, event: gr.EventData):
        index = int(event.id)
        if 0 <= index < len(self.examples):
            yield self._shown(self.examples[index])
            return
        yield {self.answer: "Drawing a street that nobody has seen; this takes some seconds …"}
        folder = Path(tempfile.mkdtemp(dir=temporary()))
        street = draw_street(folder / "street", secrets.randbelow(2**20))
        about = {"street": street.panorama, "satellite": street.satellite, "centre": street.centre}
        yield self._shown(about | {"name": "", "truth": street.truth, "zoom": ZOOM, "heading": 0})

    def _shown(self, example):
        """The updates for an example: its answer, and its known values in the fields."""
        found = self._found(example)
        texts = {name: "" for name in _FIELDS} | {"centre": "{:.7f}, {:.7f}".format(*example["centre"])}
        texts |= {name: f"{example[name]:g}" for name in ("heading", "zoom") if name in example}
        texts["lens"] = f"{example['hfov']:g}" if "hfov" in example else ""
        texts["vertical"] = "{:g} {:g}".format(*example["vertical"]) if "vertical" in example else ""
        fields = {self.fields[name]: text for name, text in texts.items()}
        files = {self.street: str(example["street"]), self.satellite: str(example["satellite"])}
        return self._answers(found, self._scene(found, example)) | fields | files

    def restore(self, *given):
        """Show the answer again that `given` led to."""
        yield filled(self.given, given)
        yield from self._locate(*given)

    @answered
    def restore_example(self, name):
        """Show the example of a name, if there is one."""
        for example in self.examples:
            if example["name"] == name:
                yield self._shown(example)

    def _aim(self, event: gr.EventData):
        return f"{float(event.heading) % 360:.1f}"

    def _measure(self, distance, event: gr.EventData):
        return self._measure_again(float(event.pixels), distance)

    def _measure_again(self, pixels, distance):
        """(pixels, metres per pixel, next instruction) from a measured line and the text of its distance."""
        try:
            metres = read_form(measured_distance=distance)["measured_distance"]
        except UserError as error:
            return pixels, gr.skip(), warning(str(error))
        if not pixels or metres is None:
            says = "Now give the *Measured distance* of these points." if pixels else gr.skip()
            return pixels, gr.skip(), says
        return pixels, f"{metres / pixels:.5f}", "### Press *Find the place*."

    @answered
    def _draw(self, found):
        if found:
            yield {self.picture: saved("localization.png", found.picture())}


def _metres(centre, zoom):
    """Metres per pixel of a web map at a centre (latitude, longitude) and a zoom."""
    return float(metres_per_pixel(centre[0])) * 2.0 ** (ZOOM - zoom)


def _scale(satellite, centre, zoom, metres):
    """{'centre', 'metres_per_pixel'} of a satellite image's file, from the fields or the file itself."""
    if metres is None and centre is not None and zoom is not None:
        metres = _metres(centre, zoom)
    if centre is None or metres is None:
        with open(satellite, "rb") as file:
            place = read_georeference(satellite) if file.read(4) in _TIFF else None
        if place is not None:
            centre, metres = centre or place.centre, metres or place.metres_per_pixel
    return {"centre": centre, "metres_per_pixel": metres}
