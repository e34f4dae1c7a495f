"""The tabs of a data set: `Cities` to search, `CityDrives` to follow, and `Evaluations`."""

import gradio as gr

from engine.app.cities import Cities
from engine.app.drives import CityDrives
from engine.app.evaluated import Evaluations
from engine.app.evaluation_tab import EvaluationTab
from engine.app.forms import read_form
from engine.app.parts import (
    CIRCLE,
    LENS,
    NORTH,
    OPEN,
    PROGRESS,
    VERTICAL,
    answered,
    column,
    downloads,
    filled,
    keep,
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

# Two events of a tab compute or draw at once, so that a long one leaves room for another's.
_CITY = {"concurrency_id": "city", "concurrency_limit": 2}
_DRIVE = {"concurrency_id": "drive", "concurrency_limit": 2}


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
        changes = [city.select, near.input, radius.release]
        events = [gr.on(changes, self._show, prior, outputs[:2], show_progress_on=self.answer, **_CITY)]
        self.near = near
        picked = [self.answer, near, self.scene, self.detail]
        how = {"show_progress": "hidden", **_CITY}
        events.append(self.scene.pick(self._pick, [city, radius, self.found], picked, **how))
        self.given = given = [*prior, street, number, heading, lens, vertical]
        self.restored = [*given, *outputs]
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
    def _pick(self, name, radius, found, event: gr.EventData):
        if event.id is not None and found and found.name == name:
            rank = min(max(1, int(event.id)), len(found.searched.places))
            yield {self.scene: found.scene(rank, kept=True), self.detail: found.detail(rank)}
        else:
            place = self.cities.place(name, float(event.x), float(event.y))
            words, scene = self.cities.look(name, (*place, float(radius)))
            yield {self.answer: f"### {words}", self.near: "{:.6f}, {:.6f}".format(*place), self.scene: scene}

    @answered
    def _search(self, name, near, radius, street, number, heading, lens, vertical):
        yield {self.answer: "### Searching …"}
        given = [name, near, radius, street, number, heading, lens, vertical]
        known = read_form(heading=heading, lens=lens, vertical=vertical)
        known["near"] = read_near(near, radius)
        number = read_form(test_panorama=number)["test_panorama"]
        found = self.cities.search(name, number=number, street=uploaded(street), **known)
        best = found.searched.places[0]
        words = f"## {100 * best.probability:.0f} % within 5 m of place 1. Click a number to look at it."
        words += f"\n\n{found.searched.links()}"
        details = {self.details: f"```\n{found.words()}```", self.found: found}
        yield {self.answer: words, self.scene: found.scene() | {"link": keep("City", given)}, **details}
        yield {self.detail: found.detail(1), **offered(self.save, found.files())}

    def restore(self, *given):
        """Search again as `given`."""
        yield filled(self.given, given)
        yield from self._search(*given)

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
        self.given = given = [drive, use, near, radius, files, city]
        self.restored = [*given, *outputs]
        how = {"preprocess": False, "show_progress_on": self.answer, **_DRIVE}
        followed = go.click(self._follow, given, outputs, **how)
        with stopped:
            stop_button(self.answer, [followed, drawn])

    @answered
    def _follow(self, name, use, near, radius, files, city, progress=PROGRESS):
        yield {self.answer: "### Following; the first time, the city's index is made …"}
        given = [name, use, near, radius, files, city]
        files = [(uploaded(one, image=False), one.get("orig_name") or one["path"]) for one in files or ()]
        known = [kind for kind in SENSORS if kind in (use or ())]
        found, scene = self.drives.follow(name, known, read_near(near, radius), files, city)
        words, details = found.words().split("\n", 1)
        about = {self.answer: f"## {words}", self.details: f"{found.name}\n\n{details}"}
        scene["link"] = keep("Drive", given)
        yield {self.found: found, self.scene: scene, **about, **offered(self.save, found.files())}

    def restore(self, *given):
        """Follow the drive again as `given`."""
        yield filled(self.given, given)
        yield from self._follow(*given)

    @answered
    def _draw(self, found):
        if found:
            yield {self.picture: saved("drive.png", found.picture())}


def add_tabs(localizer, source, runs_root, index_root, model_path, device):
    """Add the tabs of a data set to a `gr.Blocks`; returns them by name."""
    cities = Cities(localizer, source, index_root)
    made = {
        "City": (CityTab, cities),
        "Drive": (DriveTab, CityDrives(cities)),
        "Evaluation": (EvaluationTab, Evaluations(runs_root, model_path, source, device)),
    }
    tabs = {}
    for name, (tab, of) in made.items():
        with gr.Tab(name, id=name):
            tabs[name] = tab(of)
    return tabs
