"""The page: three tabs over `Located`, `Cities` and `Evaluated`, and the server behind them, as docs/PAGE.md tells."""

import functools
import gc
import json
import os
import tempfile
from pathlib import Path

import gradio as gr
from common.network import stay_on_this_machine

from common import settings
from common.errors import UserError
from common.parallel import share_freed_memory
from dataset.images import check_pixels
from dataset.mini_vigor.street import draw_street
from engine.localizer import Localizer
from engine.visualization.cities import Cities
from engine.visualization.evaluated import ANY, Evaluations
from engine.visualization.flags import read_view
from engine.visualization.located import Located

UPLOAD_MB, UPLOAD_PX = 50, 64_000_000  # of a file, and of the image in it
QUEUE = 64  # events that wait, and sessions that are remembered, at most
_NETWORK = {"concurrency_id": "network"}  # of events that need the network or draw: one at a time, in their order
_DROP = {"sources": ["upload", "clipboard"], "type": "filepath"}
_OPEN = {"placeholder": "not known"}
_LENS = {"label": "A photograph's camera", "info": "degrees: field of view, pitch, roll", "placeholder": "as its file tells"}
_VIEW = {"interactive": False, "buttons": ["fullscreen"], "show_label": False, "format": "jpeg"}
_LARGE = {**_VIEW, "elem_classes": "large", "format": "png"}
_GALLERY = {"buttons": ["fullscreen"], "show_label": False, "object_fit": "contain", "height": "auto"}
_NO_DATA = "⚠ No folder of VIGOR is at hand: start with --dataset_root, or draw one, python -m dataset.mini_vigor."
_CSS = ".large .icon-button-wrapper.top-panel {top: auto; bottom: 0}"  # or it hides which mark is which
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # the browser's own


def told(event):
    """Wraps an event of a tab, a generator of {component: value}: a UserError becomes a sentence in the tab's `answer`."""

    @functools.wraps(event)
    def wrapped(tab, *given):
        try:
            yield from event(tab, *given)
        except Exception as error:
            if (line := settings.fault_on_page(error)) is None:
                raise
            yield {tab.answer: line}

    return wrapped


def uploaded(photo):
    """The path of an image that the browser sends, or None; nothing has decoded it yet. Raises UserError for too many pixels."""
    return check_pixels(photo["path"], UPLOAD_PX) if photo else None


def saved(name, content):
    """The path of a new file of the page's own, to be shown or downloaded; content: a text or a figure."""
    path = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]), name)
    path.write_text(content) if isinstance(content, str) else content.savefig(path, dpi=110)
    gc.collect()  # figures are rings of objects, which Python would let pile up to some 100 MB
    return path


class TwoImages:
    """Where in a satellite image was a street image taken, by a `Localizer`? By a click into either: does the heading hold?"""

    def __init__(self, localizer):
        self.localizer, self.found = localizer, gr.State()
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.panorama = gr.Image(label="Panorama, twice as wide as high, or photograph", height=200, **_DROP)
                self.satellite = gr.Image(label="Satellite image, north up", height=300, **_DROP)
                with gr.Row():
                    self.heading = gr.Textbox(label="Heading", info="degrees, of its centre", **_OPEN)
                    metres = gr.Textbox(label="Metres per pixel", info="of the satellite image", **_OPEN)
                self.centre = gr.Textbox(label="Satellite center", info="latitude, longitude", **_OPEN)
                lens = gr.Textbox(**_LENS)
                example = gr.Button("Draw a street that no network has seen")
                self.save = gr.DownloadButton("Save the picture"), gr.DownloadButton("Save the answer (JSON)")
            with gr.Column(scale=3, min_width=300):
                self.answer = gr.Markdown("Drop a street and a satellite image, or have an example drawn.", elem_id="answer")
                opacity = gr.Slider(0, 1, 0.85, step=0.05, label="Opacity of the heat map")
                bearing = gr.Slider(-180, 180, 0, step=0.5, label="Bearing, degrees, marked in both; a click into either sets it")
                self.above = gr.Image(elem_id="above", alt_text="the satellite image and the heat map", **_VIEW)
                self.street = gr.Image(elem_id="street", alt_text="the street image and its compass", **_VIEW)
        self.picture = gr.Image(elem_id="picture", alt_text="the picture that visualize_loc.py draws", **_LARGE)
        given, marks = [self.panorama, self.satellite, self.heading, metres, self.centre, lens], [opacity, bearing]
        views, last = [self.above, self.street], {"trigger_mode": "always_last", **_NETWORK}
        how = {"outputs": [self.answer, *views, self.found, self.picture, *self.save], "show_progress_on": self.answer}
        gr.on([part.change for part in given], self._locate, [*given, *marks], preprocess=False, **how, **last)
        gr.on([mark.change for mark in marks], self._draw, [self.found, *marks], views, show_progress="hidden", **last)
        for part, above in ((self.above, gr.State(True)), (self.street, gr.State(False))):
            part.select(self._click, [self.found, above], bearing, show_progress="hidden")
        example.click(self._example, None, [self.answer, *given[:3], self.centre], **_NETWORK)

    @told
    def _locate(self, street, satellite, heading, metres, centre, lens, opacity, bearing):
        if not (street and satellite):
            yield {self.answer: f"Now the {'street image' if satellite else 'satellite image'}."}
            return
        yield {self.answer: "Looking …"}
        known = {"metres_per_pixel": (settings.POSITIVE, metres), "heading": (settings.BEARING, heading)}
        known = settings.read_form(**known, centre=(settings.read_place, centre), lens=(read_view, lens))
        located = Located.by(self.localizer, uploaded(street), uploaded(satellite), **known)
        yield {self.answer: located.words()}
        yield dict(zip((self.above, self.street, self.found), (*located.panels(opacity, bearing), located), strict=True))
        record = saved("localization.json", json.dumps(located.found.record(), indent=2))
        picture = saved("localization.png", located.picture())
        yield dict(zip((self.picture, *self.save), (picture, picture, record), strict=True))

    def _draw(self, located, opacity, bearing):
        return located.panels(opacity, bearing) if located else (gr.skip(), gr.skip())

    def _click(self, located, above, click: gr.SelectData):
        return round((located.bearing_above if above else located.bearing_in_street)(click.index), 1)

    @told
    def _example(self):
        yield {self.answer: "Drawing …"}
        with tempfile.TemporaryDirectory() as folder:
            panorama, satellite, centre = draw_street(Path(folder, "street"), int.from_bytes(os.urandom(2), "big"))
            known = {self.heading: "0", self.centre: f"{centre[0]:.7f}, {centre[1]:.7f}"}
            yield {self.answer: "Drawn.", self.panorama: panorama, self.satellite: satellite} | known


class City:
    """Where in one of some `Cities` was a panorama taken, as far as known around a guess?"""

    def __init__(self, cities):
        self.cities = cities
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                city = gr.Dropdown(cities.names, label="City", value=None)
                street = gr.Image(label="Panorama or photograph of your own", height=200, **_DROP)
                heading = gr.Textbox(label="Heading", info="degrees, of your image's centre", **_OPEN)
                lens = gr.Textbox(**_LENS)
                number = gr.Textbox(label="Test panorama", info="by its number in the list, in place of one of your own")
                near = gr.Textbox(label="Near", info="latitude, longitude; a click into the map sets it", **_OPEN)
                radius = gr.Slider(20, 1000, 200, step=10, label="Radius, metres")
                go, self.save = gr.Button("Search", variant="primary"), gr.DownloadButton("Save the places (GeoJSON)")
            with gr.Column(scale=3, min_width=300):
                self.answer = gr.Markdown("Choose a city.", elem_id="places")
                self.above = gr.Image(elem_id="city", alt_text="the city from above", **_VIEW)
                self.best = gr.Gallery(columns=3, elem_id="best", **_GALLERY)
        self.picture = gr.Image(elem_id="searched", alt_text="the picture that search_VIGOR.py draws", **_LARGE)
        outputs = [self.answer, self.above, self.best, self.picture, self.save]
        gr.on([city.input, near.change, radius.release], self._show, [city, near, radius], outputs[:2], **_NETWORK)
        self.above.select(self._click, city, near, **_NETWORK)
        go.click(self._search, [city, street, number, heading, near, radius, lens], outputs, preprocess=False, **_NETWORK)

    @told
    def _show(self, name, near, radius):
        yield {self.answer: f"Opening {name} …"}
        near = settings.read_form(near=(settings.read_place, near))["near"]
        yield dict(zip((self.answer, self.above), self.cities.panel(name, near and (*near, radius)), strict=True))

    def _click(self, name, click: gr.SelectData):
        return "{:.6f}, {:.6f}".format(*self.cities.place(name, click.index))

    @told
    def _search(self, name, street, number, heading, near, radius, lens):
        yield {self.answer: "Searching …"}
        asked = {"test_panorama": (settings.COUNT_OR_NONE, number), "heading": (settings.BEARING, heading)}
        number, heading, near, lens = settings.read_form(**asked, near=(settings.read_place, near), lens=(read_view, lens)).values()
        found = self.cities.search(name, number, uploaded(street), heading, near and (*near, radius), lens)
        words, record = f"```\n{found.searched.report}```\n{found.searched.links()}", found.searched.geojson
        yield {self.answer: words, self.save: saved("places.geojson", record), self.above: found.panel()}
        yield {self.best: list(found.details())}
        yield {self.picture: saved("search.png", found.picture())}


class Evaluation:
    """Every pair of one of some `Evaluations` as a dot on its city, and what the network saw there."""

    def __init__(self, evaluations):
        self.evaluations, self.chosen, runs = evaluations, gr.State(), evaluations.names
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                run = gr.Dropdown(runs, label="Evaluation", value=None)
                other = gr.Dropdown(runs, label="Compared with", value=None)
                with gr.Row():
                    self.city, self.kind = gr.Dropdown([], label="City"), gr.Dropdown([ANY], value=ANY, label="Kind")
                with gr.Row():
                    least, most = gr.Textbox(label="Errors from", info="metres"), gr.Textbox(label="up to", info="metres")
                with gr.Row():
                    previous, following = gr.Button("◀ Previous"), gr.Button("Next worst ▶", variant="primary")
                self.curve = gr.Image(elem_id="curve", alt_text="cumulative errors", **_LARGE)
            with gr.Column(scale=3, min_width=300):
                self.answer = gr.Markdown("Choose an evaluation." if runs else "⚠ No evaluation is at hand.", elem_id="pair")
                self.above = gr.Image(elem_id="dots", alt_text="the city with a dot for each pair", **_VIEW)
        self.picture = gr.Image(elem_id="located", alt_text="the picture that visualize_loc.py draws", **_LARGE)
        self.sheets = gr.Gallery(columns=2, elem_id="sheets", **_GALLERY)
        asked, outputs = [run, self.city, self.kind, least, most], [self.answer, self.above, self.chosen, self.picture]
        shown = {"inputs": [*asked, other], "outputs": [*outputs[:3], self.curve], "trigger_mode": "always_last", **_NETWORK}
        run.input(self._choose, run, [self.answer, self.city, self.kind], **_NETWORK).success(self._show, **shown)
        gr.on([self.city.input, self.kind.input, least.submit, most.submit, other.input], self._show, **shown)
        step, last = [*asked, self.chosen], {"outputs": outputs, "trigger_mode": "always_last", **_NETWORK}
        opened = [self.above.select(self._click, asked, **last)]
        opened += [one.click(self._step, [*step, gr.State(by)], **last) for one, by in ((following, 1), (previous, -1))]
        drawn = [one.then(self._sheets, [run, self.chosen], [self.answer, self.sheets], **_NETWORK) for one in opened]
        gr.on([self.above.select, following.click, previous.click], None, cancels=drawn)  # those of the pair before

    def _asked(self, run, city, kind, least, most):
        bounds = settings.read_form(errors_from=(settings.NOT_NEGATIVE, least), errors_up_to=(settings.NOT_NEGATIVE, most)).values()
        return self.evaluations.open(run), self.evaluations.open(run).pairs(city, kind, *bounds)

    @told
    def _choose(self, run):
        yield {self.answer: f"Opening {run} …"}
        cities, kinds = self.evaluations.open(run).cities, [ANY, *self.evaluations.open(run).kinds]
        yield {self.city: gr.Dropdown(cities, value=cities[0]), self.kind: gr.Dropdown(kinds, value=ANY)}

    @told
    def _show(self, run, city, kind, least, most, other):
        there, pairs = self._asked(run, city, kind, least, most)
        words = f"{len(pairs)} pairs; a click or *Next worst* opens one."
        yield {self.answer: words, self.above: there.panel(city, pairs), self.chosen: None}
        yield {self.curve: saved("curve.png", there.curves(pairs, self.evaluations.folders.get(other)))}

    @told
    def _click(self, run, city, kind, least, most, click: gr.SelectData):
        there, pairs = self._asked(run, city, kind, least, most)
        yield from self._pair(there, city, pairs, there.nearest(city, pairs, click.index))

    @told
    def _step(self, run, city, kind, least, most, chosen, by):
        there, pairs = self._asked(run, city, kind, least, most)
        yield from self._pair(there, city, pairs, there.step(pairs, chosen, by))

    def _pair(self, there, city, pairs, i):
        figure, report = there.picture(i)
        yield {self.answer: f"```\n{report}```", self.above: there.panel(city, pairs, i), self.chosen: i}
        yield {self.picture: saved("localization.png", figure)}

    @told
    def _sheets(self, run, chosen):
        yield {self.sheets: (drawn := [])}
        for figure in () if chosen is None else self.evaluations.open(run).sheets(chosen):
            yield {self.sheets: (drawn := [*drawn, saved("sheet.png", figure)])}


def serve(model_path, source, runs_root, index_root, device, host, port):
    """Serve the page until Ctrl-C; arguments as the flags of `app_VIGOR.py`, `source` a `Source`. Raises UserError."""
    share_freed_memory()
    localizer, data = Localizer(model_path, device), source.at_hand
    with tempfile.TemporaryDirectory(prefix="page_of_cvm_vigor_") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_EXAMPLES_CACHE": folder}
        stay_on_this_machine(host)
        with gr.Blocks(title="CVM-VIGOR", analytics_enabled=False, delete_cache=(600, 21_600)) as page:  # older than 6 hours
            with gr.Tab("Two images"):
                TwoImages(localizer)
            with gr.Tab("A city"):
                City(Cities(model_path, source, index_root, localizer.device)) if data else gr.Markdown(_NO_DATA)
            with gr.Tab("An evaluation"):
                Evaluation(Evaluations(runs_root, model_path, source, device)) if data else gr.Markdown(_NO_DATA)
        look = {"theme": gr.themes.Default(**_FONTS), "css": _CSS, "footer_links": [], "quiet": True, "ssr_mode": False}
        shut = {"share": False, "enable_monitoring": False, "run_history": False, "mcp_server": False, "allowed_paths": []}
        bounds = {"max_file_size": UPLOAD_MB * 10**6, "state_session_capacity": QUEUE, "prevent_thread_lock": True}
        try:
            page.queue(max_size=QUEUE).launch(server_name=host, server_port=port, **look, **shut, **bounds)
        except OSError as error:
            raise UserError(f"--port {port}: {error}; --port chooses another") from None
        gc.freeze()  # what is there stays, and need not be looked through again
        print(f"The page is at {page.local_url}; Ctrl-C ends it.", flush=True)
        page.block_thread()
