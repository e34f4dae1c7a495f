"""The page, as docs/PAGE.md describes it: tabs over `LocatedFiles`, `Cities`, `Evaluated`, and a server."""

import gc
import json
import os
import tempfile
from pathlib import Path

import gradio as gr

from common.errors import UserError
from dataset.mini_vigor.street import draw_street
from engine.app.cities import Cities
from engine.app.evaluated import ANY, Evaluations
from engine.app.forms import read_form
from engine.app.located import LocatedFiles
from engine.app.panels import bearing_in_satellite, bearing_in_street
from engine.app.parts import (
    GALLERY,
    QUEUE,
    SESSIONS,
    UPLOAD_MB,
    answered,
    column,
    large,
    panel,
    saved,
    stop_button,
    uploaded,
)
from engine.app.process import check_address, share_freed_memory, stay_on_this_machine
from engine.localizer import Localizer

# A tab's events that compute or draw run one at a time, in their order; a long one leaves other tabs alone.
_IMAGES, _CITY, _EVALUATION = ({"concurrency_id": name} for name in ("images", "city", "evaluation"))
_LAST = {"trigger_mode": "always_last"}
_DROP = {"sources": ["upload", "clipboard"], "type": "filepath"}
_OPEN = {"placeholder": "not known"}
_NORTH = "degrees clockwise from north, of its centre"
_LENS = {"label": "A photograph's camera", "info": "degrees: field of view, pitch, roll; or as in its file"}
_VERTICAL = {"label": "Vertical", "info": "of a cropped panorama: degrees above, below the horizon"}
_NO_DATA = "⚠ VIGOR's folder is missing: give --dataset_root, or draw one, python -m dataset.mini_vigor."
_CSS = ".large .icon-button-wrapper.top-panel {top: auto; bottom: 0}"  # or it hides which mark is which
# The browser's own.
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
_TITLE = """# Where was this street image taken?

CVM-VIGOR finds the place inside a satellite image, or anywhere in a city. Give a panorama or a photograph and
what is known of it; nothing leaves this machine."""


class TwoImagesTab:
    """Two images of the user's own, by a `Localizer`. A click into either marks its bearing in both."""

    def __init__(self, localizer):
        self.localizer, self.found = localizer, gr.State()
        with gr.Row():
            with column(2):
                words = "Street image: a panorama, twice as wide as high, or a photograph"
                self.panorama = gr.Image(label=words, height=200, **_DROP)
                self.satellite = gr.Image(label="Satellite image, north up", height=300, **_DROP)
                with gr.Row():
                    self.heading = gr.Textbox(label="Heading", info=_NORTH, **_OPEN)
                    metres = gr.Textbox(label="Metres per pixel", info="of the satellite image", **_OPEN)
                self.centre = gr.Textbox(label="Satellite center", info="latitude, longitude", **_OPEN)
                lens, vertical = gr.Textbox(**_LENS), gr.Textbox(**_VERTICAL)
                go = gr.Button("Find the place", variant="primary")
                example = gr.Button("Draw a street that no network has seen")
                buttons = "Save the picture", "Save the answer (JSON)"
                self.save = [gr.DownloadButton(words) for words in buttons]
            with column(3):
                words = "Drop a street and a satellite image, or have an example drawn."
                self.answer = gr.Markdown(words, elem_id="answer")
                stopped = gr.Row()
                opacity = gr.Slider(0, 1, 0.85, step=0.05, label="Opacity of the heat map")
                words = "Bearing, degrees clockwise from north, marked in both; a click into either sets it"
                bearing = gr.Slider(-180, 180, 0, step=0.5, label=words)
                self.above = panel("above", "the satellite image and the heat map")
                self.street = panel("street", "the street image and its compass")
        self.picture = large("picture", "the picture that visualize_loc.py draws")
        given = [self.panorama, self.satellite, self.heading, metres, self.centre, lens, vertical]
        marks, views = [opacity, bearing], [self.above, self.street]
        outputs = [self.answer, *views, self.found, self.picture, *self.save]
        how = {"preprocess": False, "show_progress_on": self.answer, **_LAST, **_IMAGES}
        changes = [part.change for part in given]
        located = gr.on([*changes, go.click], self._locate, [*given, *marks], outputs, **how)
        how = {"show_progress": "hidden", **_LAST, **_IMAGES}
        views = [self.answer, *views]
        gr.on([mark.change for mark in marks], self._draw, [self.found, *marks], views, **how)
        for part, above in ((self.above, gr.State(True)), (self.street, gr.State(False))):
            part.select(self._click, [self.found, above], bearing, show_progress="hidden")
        drawn = example.click(self._example, None, [self.answer, *given[:3], self.centre], **_IMAGES)
        with stopped:
            stop_button(self.answer, [located, drawn])

    @answered
    def _locate(self, street, satellite, heading, metres, centre, lens, vertical, opacity, bearing):
        marks = read_form(opacity=opacity, bearing=bearing).values()
        if not (street and satellite):
            yield {self.answer: f"Now the {'street image' if satellite else 'satellite image'}."}
            return
        yield {self.answer: "Looking …"}
        known = {"lens": lens, "vertical": vertical, "metres_per_pixel": metres}
        known = read_form(heading=heading, centre=centre, **known)
        found = LocatedFiles.by(self.localizer, uploaded(street), uploaded(satellite), **known)
        yield {self.answer: found.words()}
        above, street = found.panels(*marks)
        yield {self.above: above, self.street: street, self.found: found}
        record = saved("localization.json", json.dumps(found.located.record(), indent=2))
        picture = saved("localization.png", found.picture())
        yield dict(zip((self.picture, *self.save), (picture, picture, record), strict=True))

    @answered
    def _draw(self, found, opacity, bearing):
        if found:
            above, street = found.panels(*read_form(opacity=opacity, bearing=bearing).values())
            yield {self.above: above, self.street: street}

    def _click(self, found, above, click: gr.SelectData):
        if found is None:
            raise gr.Error(
                "This answer is no longer here; press Find the place again.", print_exception=False
            )
        bearing_at = bearing_in_satellite if above else bearing_in_street
        return round(bearing_at(click.index, found.located.estimate), 1)

    @answered
    def _example(self):
        yield {self.answer: "Drawing …"}
        with tempfile.TemporaryDirectory() as folder:
            seed = int.from_bytes(os.urandom(2), "big")
            panorama, satellite, centre = draw_street(Path(folder, "street"), seed)
            known = {self.heading: "0", self.centre: f"{centre[0]:.7f}, {centre[1]:.7f}"}
            yield {self.answer: "Drawn.", self.panorama: panorama, self.satellite: satellite} | known


class CityTab:
    """Searches in `Cities`, where known around a prior."""

    def __init__(self, cities):
        self.cities = cities
        with gr.Row():
            with column(2):
                city = gr.Dropdown(cities.names, label="City", value=None)
                street = gr.Image(label="Street image of your own", height=200, **_DROP)
                heading = gr.Textbox(label="Heading", info=_NORTH, **_OPEN)
                lens, vertical = gr.Textbox(**_LENS), gr.Textbox(**_VERTICAL)
                words = "by its number in the list, in place of one of your own"
                number = gr.Textbox(label="Test panorama", info=words)
                words = "latitude, longitude; a click into the map sets it"
                near = gr.Textbox(label="Near", info=words, **_OPEN)
                radius = gr.Slider(20, 1000, 200, step=10, label="Radius, metres")
                go = gr.Button("Search", variant="primary")
                self.save = gr.DownloadButton("Save the places (GeoJSON)")
            with column(3):
                self.answer = gr.Markdown("Choose a city.", elem_id="places")
                stopped = gr.Row()
                self.above = panel("city", "the city from above")
                self.best = gr.Gallery(columns=3, elem_id="best", **GALLERY)
        self.picture = large("searched", "the picture that search_VIGOR.py draws")
        outputs = [self.answer, self.above, self.best, self.picture, self.save]
        prior = [city, near, radius]
        how = {"preprocess": False, **_CITY}
        changes = [city.input, near.change, radius.release]
        events = [gr.on(changes, self._show, prior, outputs[:2], **how)]
        self.above.select(self._click, city, near, **_CITY)
        given = [*prior, street, number, heading, lens, vertical]
        events.append(go.click(self._search, given, outputs, **how))
        with stopped:
            stop_button(self.answer, events)

    @answered
    def _show(self, name, near, radius):
        yield {self.answer: f"Opening {name} …"}
        near, radius = read_form(near=near, radius=radius).values()
        words, above = self.cities.panel(name, near and (*near, radius))
        yield {self.answer: words, self.above: above}

    def _click(self, name, click: gr.SelectData):
        return "{:.6f}, {:.6f}".format(*self.cities.place(name, click.index))

    @answered
    def _search(self, name, near, radius, street, number, heading, lens, vertical):
        yield {self.answer: "Searching …"}
        known = read_form(heading=heading, near=near, lens=lens, vertical=vertical)
        known["near"] = known["near"] and (*known["near"], read_form(radius=radius)["radius"])
        number = read_form(test_panorama=number)["test_panorama"]
        found = self.cities.search(name, number=number, street=uploaded(street), **known)
        words = f"```\n{found.words()}```\n{found.searched.links()}"
        record = saved("places.geojson", found.searched.geojson)
        yield {self.answer: words, self.save: record, self.above: found.panel()}
        yield {self.best: list(found.details())}
        yield {self.picture: saved("search.png", found.picture())}


class EvaluationTab:
    """`Evaluations`: each pair as a dot on its city, and what the network saw there."""

    def __init__(self, evaluations):
        self.evaluations, self.chosen, runs = evaluations, gr.State(), list(evaluations.folders)
        with gr.Row():
            with column(2):
                run = gr.Dropdown(runs, label="Evaluation", value=None)
                other = gr.Dropdown(runs, label="Compared with", value=None)
                with gr.Row():
                    self.city = gr.Dropdown([], label="City")
                    self.kind = gr.Dropdown([ANY], value=ANY, label="Kind")
                with gr.Row():
                    least = gr.Textbox(label="Errors from", info="metres")
                    most = gr.Textbox(label="up to", info="metres")
                with gr.Row():
                    previous = gr.Button("◀ Previous")
                    following = gr.Button("Next worst ▶", variant="primary")
                self.curve = large("curve", "cumulative errors")
            with column(3):
                words = "Choose an evaluation." if runs else "⚠ No finished evaluation was found."
                self.answer = gr.Markdown(words, elem_id="pair")
                stopped = gr.Row()
                self.above = panel("dots", "the city with a dot for each pair")
        self.picture = large("located", "the picture that visualize_loc.py draws")
        self.sheets = gr.Gallery(columns=2, elem_id="sheets", **GALLERY)
        asked = [run, self.city, self.kind, least, most]
        outputs = [self.answer, self.above, self.chosen, self.picture]
        shown = {"inputs": [*asked, other], "outputs": [*outputs[:3], self.curve], **_LAST, **_EVALUATION}
        chosen = run.input(self._choose, run, [self.answer, self.city, self.kind], **_EVALUATION)
        chosen.success(self._show, **shown)
        filters = [self.city.input, self.kind.input, least.submit, most.submit, other.input]
        gr.on(filters, self._show, **shown)
        opened = [self.above.select(self._click, asked, outputs, **_LAST, **_EVALUATION)]
        for button, by in ((following, 1), (previous, -1)):
            opened.append(
                button.click(self._step, [*asked, self.chosen, gr.State(by)], outputs, **_LAST, **_EVALUATION)
            )
        sheets = [run, self.chosen], [self.answer, self.sheets]
        drawn = [event.then(self._sheets, *sheets, **_EVALUATION) for event in opened]
        changes = [self.above.select, following.click, previous.click]
        gr.on(changes, None, cancels=drawn)  # sheets of the previous pair
        with stopped:
            stop_button(self.answer, [chosen, *opened, *drawn])

    def _asked(self, run, city, kind, least, most):
        bounds = read_form(errors_from=least, errors_up_to=most).values()
        there = self.evaluations.open(run)
        return there, there.pairs(city, kind, *bounds)

    @answered
    def _choose(self, run):
        yield {self.answer: f"Opening {run} …"}
        there = self.evaluations.open(run)
        kinds = gr.Dropdown([ANY, *there.kinds], value=ANY)
        yield {self.city: gr.Dropdown(there.cities, value=there.cities[0]), self.kind: kinds}

    @answered
    def _show(self, run, city, kind, least, most, other):
        there, pairs = self._asked(run, city, kind, least, most)
        words = f"{len(pairs)} pairs; a click or *Next worst* opens one."
        yield {self.answer: words, self.above: there.panel(city, pairs), self.chosen: None}
        curves = there.curves(pairs, self.evaluations.folders.get(other))
        yield {self.curve: saved("curve.png", curves)}

    @answered
    def _click(self, run, city, kind, least, most, click: gr.SelectData):
        there, pairs = self._asked(run, city, kind, least, most)
        yield from self._pair(there, city, pairs, there.nearest(city, pairs, click.index))

    @answered
    def _step(self, run, city, kind, least, most, chosen, by):
        there, pairs = self._asked(run, city, kind, least, most)
        yield from self._pair(there, city, pairs, there.step(pairs, chosen, by))

    def _pair(self, there, city, pairs, i):
        figure, report = there.picture(i)
        yield {self.answer: f"```\n{report}```", self.above: there.panel(city, pairs, i), self.chosen: i}
        yield {self.picture: saved("localization.png", figure)}

    @answered
    def _sheets(self, run, chosen):
        yield {self.sheets: (drawn := [])}
        for figure in () if chosen is None else self.evaluations.open(run).sheets(chosen):
            yield {self.sheets: (drawn := [*drawn, saved("sheet.png", figure)])}


def serve(model_path, source, runs_root, index_root, device, host, port):
    """Serve the page until Ctrl-C or SIGTERM; arguments as flags of `app_VIGOR.py`. Raises UserError."""
    check_address(host, port)
    share_freed_memory()
    localizer, data = Localizer.of_flags(model_path, device), source.at_hand
    with tempfile.TemporaryDirectory(prefix="page_of_cvm_vigor_") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_EXAMPLES_CACHE": folder}
        stay_on_this_machine(host)
        kept = {"delete_cache": (600, 21_600)}  # files are deleted after six hours
        with gr.Blocks(title="CVM-VIGOR", analytics_enabled=False, **kept) as page:
            gr.Markdown(_TITLE)
            with gr.Tab("Two images"):
                TwoImagesTab(localizer)
            with gr.Tab("A city"):
                CityTab(Cities(localizer, source, index_root)) if data else gr.Markdown(_NO_DATA)
            with gr.Tab("An evaluation"):
                runs = data and Evaluations(runs_root, model_path, source, device)
                EvaluationTab(runs) if data else gr.Markdown(_NO_DATA)
        look = {"theme": gr.themes.Default(**_FONTS), "css": _CSS, "footer_links": []}
        shut = dict.fromkeys(("share", "enable_monitoring", "run_history", "mcp_server", "ssr_mode"), False)
        bounds = {"max_file_size": UPLOAD_MB * 10**6, "state_session_capacity": SESSIONS, "allowed_paths": []}
        where = {"server_name": host, "server_port": port, "quiet": True, "prevent_thread_lock": True}
        try:
            page.queue(max_size=QUEUE).launch(**where, **look, **shut, **bounds)
        except OSError as error:
            raise UserError(f"--port {port}: {error}; --port chooses another") from None
        gc.freeze()  # what exists stays; the collector need not scan it again
        print(f"The page is at {page.local_url}; Ctrl-C ends it.", flush=True)
        page.block_thread()
