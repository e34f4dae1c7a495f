"""The tabs of a data set: `Cities` to search, `CityDrives` to follow, `Evaluations`, with one kind of map."""

import gradio as gr

from engine.app.cities import Cities
from engine.app.drives import CityDrives
from engine.app.evaluated import ANY, Evaluations
from engine.app.forms import read_form
from engine.app.parts import (
    CIRCLE,
    LAST,
    LENS,
    NORTH,
    OPEN,
    VERTICAL,
    answered,
    column,
    downloads,
    numbers,
    offered,
    picture_button,
    saved,
    scene_view,
    stop_button,
    street_file,
    uploaded,
)
from engine.tracking.table import SENSORS

# A tab's events that compute or draw run one at a time, in their order; a long one leaves other tabs alone.
_CITY, _DRIVE, _EVALUATION = ({"concurrency_id": name} for name in ("city", "drive", "evaluation"))
_PROGRESS = gr.Progress(track_tqdm=True)
_SHEETS = {"buttons": ["fullscreen"], "show_label": False, "object_fit": "contain", "height": "auto"}


def near_fields(info="latitude, longitude in degrees"):
    """The fields of a prior: a centre and a radius."""
    near = gr.Textbox(label="Near", info=info, **OPEN)
    return near, gr.Slider(20, 1000, 200, step=10, label="Radius, metres")


def read_near(near, radius):
    """(latitude, longitude, radius in metres) from the fields of `near_fields`, or None. Raises UserError."""
    near, radius = read_form(near=near, radius=radius).values()
    return near and (*near, radius)


class CityTab:
    """Searches `Cities`, around a prior if one is given."""

    def __init__(self, cities: Cities):
        self.cities, self.found = cities, gr.State()
        with gr.Row(elem_classes="two"):
            with column(2, "form"):
                city = gr.Dropdown(cities.names, label="City", value=None)
                street = street_file("own_street")
                words = "in place of an image of yours: its number in the city's list, from 0 on"
                number = gr.Textbox(label="Test panorama", info=words)
                heading = gr.Textbox(label="Heading", info=NORTH, **OPEN)
                with gr.Accordion("More: search near a place, photographs, cropped panoramas", open=False):
                    near, radius = near_fields(CIRCLE)
                    lens, vertical = gr.Textbox(**LENS), gr.Textbox(**VERTICAL)
                go = gr.Button("Search", variant="primary")
                stopped = gr.Row()
            with column(3, "seen"):
                self.answer = gr.Markdown("### Choose a city.", elem_id="places")
                self.scene, self.detail = scene_view("city"), scene_view("place")
                with gr.Row():
                    self.save = downloads({})
                    picture = picture_button("city_picture", self._draw, self.found, self.answer, _CITY)
                    drawn, self.picture = picture
                self.details = numbers()
        outputs = [self.answer, self.scene, self.detail, self.details, self.found, *self.save]
        prior = [city, near, radius]
        changes = [city.select, near.change, radius.release]
        events = [gr.on(changes, self._show, prior, outputs[:2], show_progress_on=self.answer, **_CITY)]
        self.near = near
        picked = [self.answer, near, self.scene, self.detail]
        how = {"show_progress": "hidden", **_CITY}
        events.append(self.scene.pick(self._pick, [city, self.found], picked, **how))
        given = [*prior, street, number, heading, lens, vertical]
        how = {"preprocess": False, "show_progress_on": self.answer, **_CITY}
        events.append(go.click(self._search, given, outputs, **how))
        with stopped:
            stop_button(self.answer, [*events, drawn])

    @answered
    def _show(self, name, near, radius):
        yield {self.answer: f"### Opening {name} …" if name else "### Choose a city."}
        words, scene = self.cities.look(name, read_near(near, radius))
        yield {self.answer: f"### {words}", self.scene: scene}

    @answered
    def _pick(self, name, found, event: gr.EventData):
        if event.id is not None and found and found.name == name:
            rank = min(max(1, int(event.id)), len(found.searched.places))
            yield {self.scene: found.scene(rank, kept=True), self.detail: found.detail(rank)}
        else:
            place = self.cities.place(name, float(event.x), float(event.y))
            yield {self.near: "{:.6f}, {:.6f}".format(*place)}

    @answered
    def _search(self, name, near, radius, street, number, heading, lens, vertical):
        yield {self.answer: "### Searching …"}
        known = read_form(heading=heading, lens=lens, vertical=vertical)
        known["near"] = read_near(near, radius)
        number = read_form(test_panorama=number)["test_panorama"]
        found = self.cities.search(name, number=number, street=uploaded(street), **known)
        best = found.searched.places[0]
        words = f"## {100 * best.probability:.0f} % within 5 m of place 1. Click a number to look at it."
        words += f"\n\n{found.searched.links()}"
        details = {self.details: f"```\n{found.words()}```", self.found: found}
        yield {self.answer: words, self.scene: found.scene(), **details}
        yield {self.detail: found.detail(1), **offered(self.save, found.files())}

    @answered
    def _draw(self, found):
        if found:
            yield {self.picture: saved("search.png", found.picture())}


class DriveTab:
    """Follows `CityDrives` frame by frame."""

    def __init__(self, drives: CityDrives):
        self.drives, self.found, names = drives, gr.State(), list(drives.names)
        with gr.Row(elem_classes="two"):
            with column(2, "form"):
                drive = gr.Dropdown(names, label="Drive", value=names[0] if names else None)
                words = "Its sensors; without any, the images alone tell"
                use = gr.CheckboxGroup(list(SENSORS), label=words, value=["odometry", "compass"])
                near, radius = near_fields()
                with gr.Accordion("A drive of your own", open=not names):
                    words = "A table (.csv, docs/SEQUENCES.md) and its images"
                    files = gr.File(label=words, file_count="multiple", height=132)
                    city = gr.Dropdown(drives.cities.names, label="In the city", value=None)
                go = gr.Button("Follow the drive", variant="primary")
                stopped = gr.Row()
            with column(3, "seen"):
                words = "### Choose a drive." if names else "### No drives here yet."
                if not names:
                    words += "\n\n`python -m dataset.mini_vigor --root data/drives --drives 8` draws some."
                self.answer = gr.Markdown(words, elem_id="drive")
                self.scene = scene_view("track")
                with gr.Row():
                    self.save = downloads({})
                    picture = picture_button("drive_picture", self._draw, self.found, self.answer, _DRIVE)
                    drawn, self.picture = picture
                self.details = numbers()
        outputs = [self.answer, self.scene, self.details, self.found, *self.save]
        given = [drive, use, near, radius, files, city]
        how = {"preprocess": False, "show_progress_on": self.answer, **_DRIVE}
        followed = go.click(self._follow, given, outputs, **how)
        with stopped:
            stop_button(self.answer, [followed, drawn])

    @answered
    def _follow(self, name, use, near, radius, files, city, progress=_PROGRESS):
        yield {self.answer: "### Following; the first time, the city's index is made …"}
        files = [(uploaded(one, image=False), one.get("orig_name") or one["path"]) for one in files or ()]
        known = [kind for kind in SENSORS if kind in (use or ())]
        found, scene = self.drives.follow(name, known, read_near(near, radius), files, city)
        words, details = found.words().split("\n", 1)
        about = {self.answer: f"## {words}", self.details: f"{found.name}\n\n{details}", self.scene: scene}
        yield {self.found: found, **about, **offered(self.save, found.files())}

    @answered
    def _draw(self, found):
        if found:
            yield {self.picture: saved("drive.png", found.picture())}


class EvaluationTab:
    """`Evaluations`: each pair as a dot on its city, with its images and prediction."""

    def __init__(self, evaluations: Evaluations):
        self.evaluations, self.chosen, runs = evaluations, gr.State(), list(evaluations.folders)
        with gr.Row(elem_classes="two"):
            with column(2, "form"):
                run = gr.Dropdown(runs, label="Evaluation", value=None)
                other = gr.Dropdown(runs, label="Compared with", value=None)
                with gr.Row():
                    self.city = gr.Dropdown([], label="City")
                    self.kind = gr.Dropdown([ANY], value=ANY, label="Kind")
                with gr.Row():
                    least = gr.Textbox(label="Errors from", info="metres, then Enter")
                    most = gr.Textbox(label="up to", info="metres, then Enter")
                self.worst = gr.Dropdown([], label="Pair, the worst first")
                with gr.Row():
                    previous = gr.Button("◀ Previous")
                    following = gr.Button("Next worst ▶", variant="primary")
                stopped = gr.Row()
                self.curve = _figure("curve", "Cumulative errors of these pairs")
            with column(3, "seen"):
                words = "### Choose an evaluation." if runs else "⚠ No finished evaluation was found."
                self.answer = gr.Markdown(words, elem_id="pair")
                self.scene, self.detail = scene_view("dots"), scene_view("seen")
                with gr.Row():
                    looked = gr.Button("What the network looked at", size="sm")
                    given = [run, self.chosen]
                    picture = picture_button("pair_picture", self._draw, given, self.answer, _EVALUATION)
                    drawn, self.picture = picture
                self.details = numbers()
                self.sheets = gr.Gallery(columns=1, elem_id="sheets", visible=False, **_SHEETS)
        asked = [run, self.city, self.kind, least, most, other]
        shown = {"inputs": asked, "outputs": [self.answer, self.scene, self.chosen, self.worst, self.curve]}
        shown |= {"show_progress_on": self.answer, **LAST, **_EVALUATION}
        events = [run.select(self._choose, run, [self.answer, self.city, self.kind], **_EVALUATION)]
        events[0].success(self._show, **shown)
        filters = [self.city.select, self.kind.select, least.submit, most.submit, other.select]
        events.append(gr.on(filters, self._show, **shown))
        outputs = [self.answer, self.scene, self.detail, self.details, self.chosen, self.worst, self.sheets]
        how = {"show_progress": "hidden", **LAST, **_EVALUATION}
        events.append(self.scene.pick(self._pick, asked, outputs, **how))
        events.append(self.worst.select(self._open, [*asked, self.worst], outputs, **how))
        for button, by in ((following, 1), (previous, -1)):
            given = [*asked, self.chosen, gr.State(by)]
            events.append(button.click(self._step, given, outputs, **LAST, **_EVALUATION))
        events.append(looked.click(self._look, [run, self.chosen], [self.answer, self.sheets], **_EVALUATION))
        with stopped:
            stop_button(self.answer, [*events, drawn])

    def _asked(self, run, city, kind, least, most, other):
        bounds = read_form(errors_from=least, errors_up_to=most).values()
        there = self.evaluations.open(run)
        return there, there.pairs(city, kind, *bounds), other and self.evaluations.open(other)

    @answered
    def _choose(self, run):
        yield {self.answer: f"### Opening {run} …"}
        there = self.evaluations.open(run)
        kinds = gr.Dropdown([ANY, *there.kinds], value=ANY)
        yield {self.city: gr.Dropdown(there.cities, value=there.cities[0]), self.kind: kinds}

    @answered
    def _show(self, run, city, kind, least, most, other):
        there, pairs, against = self._asked(run, city, kind, least, most, other)
        words = f"### {len(pairs)} pairs\n\nA click on a dot, or *Next worst*, opens one."
        worst = gr.Dropdown(there.worst(pairs), value=None)
        yield {self.answer: words, self.scene: there.scene(city, pairs), self.chosen: None, self.worst: worst}
        yield {self.curve: saved("curve.png", there.curves(pairs, against))}

    @answered
    def _pick(self, run, city, kind, least, most, other, event: gr.EventData):
        there, pairs, other = self._asked(run, city, kind, least, most, other)
        place = float(event.x), float(event.y)
        there.step(pairs, None, 0)
        index = there.nearest(city, pairs, *place) if event.id is None else there.listed(event.id)
        yield from self._pair(there, city, pairs, index, other)

    @answered
    def _open(self, *given):
        there, pairs, other = self._asked(*given[:-1])
        if given[-1] is not None:
            yield from self._pair(there, given[1], pairs, there.listed(given[-1]), other)

    @answered
    def _step(self, *given):
        there, pairs, other = self._asked(*given[:-2])
        yield from self._pair(there, given[1], pairs, there.step(pairs, *given[-2:]), other)

    def _pair(self, there, city, pairs, index, other):
        scene, detail = there.scene(city, pairs, index, kept=True), there.detail(index, other)
        words, details = there.words(index)
        about = {self.answer: f"## {words}", self.details: f"```\n{details}```", self.chosen: index}
        worst = [value for _, value in there.worst(pairs)]
        about |= {self.worst: index if index in worst else None, self.sheets: gr.Gallery([], visible=False)}
        yield about | {self.scene: scene, self.detail: detail}

    @answered
    def _look(self, run, chosen):
        drawn = []
        for figure in () if chosen is None else self.evaluations.open(run).sheets(chosen):
            drawn.append(saved("sheet.png", figure))
            yield {self.sheets: gr.Gallery(drawn, visible=True)}

    @answered
    def _draw(self, run, chosen):
        if chosen is not None:
            yield {self.picture: saved("localization.png", self.evaluations.open(run).picture(chosen))}


def _figure(name, words):
    """A drawn figure; `name` is its id on the page, `words` its alternative text."""
    return gr.Image(elem_id=name, alt_text=words, interactive=False, buttons=["fullscreen"], show_label=False)


def add_tabs(localizer, source, runs_root, index_root, model_path, device):
    """Add the tabs of a data set to a `gr.Blocks`."""
    cities = Cities(localizer, source, index_root)
    with gr.Tab("City"):
        CityTab(cities)
    with gr.Tab("Drive"):
        DriveTab(CityDrives(cities))
    with gr.Tab("Evaluation"):
        EvaluationTab(Evaluations(runs_root, model_path, source, device))
