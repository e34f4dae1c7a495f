"""The tab of finished evaluations."""

import gradio as gr

from engine.app.evaluated import ANY, Evaluations
from engine.app.forms import read_form
from engine.app.parts import (
    LAST,
    answered,
    column,
    filled,
    keep,
    numbers,
    picture_button,
    saved,
    scene_view,
    stop_button,
)

_EVALUATION = {"concurrency_id": "evaluation", "concurrency_limit": 2}
_SHEETS = {"buttons": ["fullscreen"], "show_label": False, "object_fit": "contain", "height": "auto"}


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
                with gr.Row():
                    with gr.Column(min_width=300):
                        self.scene = scene_view("dots")
                    with gr.Column(min_width=300, elem_classes="beside"):
                        self.beside = scene_view("beside")
                self.detail = scene_view("seen")
                with gr.Row():
                    looked = gr.Button("What the network looked at", size="sm")
                    given = [run, self.chosen]
                    picture = picture_button("pair_picture", self._draw, given, self.answer, _EVALUATION)
                    drawn, self.picture = picture
                self.details = numbers()
                self.sheets = gr.Gallery(columns=1, elem_id="sheets", visible=False, **_SHEETS)
        self.asked = asked = [run, self.city, self.kind, least, most, other]
        maps = [self.answer, self.scene, self.beside]
        shown = {"inputs": asked, "outputs": [*maps, self.chosen, self.worst, self.curve]}
        shown |= {"show_progress_on": self.answer, **LAST, **_EVALUATION}
        events = [run.select(self._choose, run, [self.answer, self.city, self.kind], **_EVALUATION)]
        events[0].success(self._show, **shown)
        filters = [self.city.select, self.kind.select, least.submit, most.submit, other.select]
        events.append(gr.on(filters, self._show, **shown))
        outputs = [*maps, self.detail, self.details, self.chosen, self.worst, self.sheets]
        self.restored = [*asked, self.curve, *outputs]
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
        maps = self._maps(there, city, pairs, against)
        yield {self.answer: words, self.chosen: None, self.worst: worst, **maps}
        yield {self.curve: saved("curve.png", there.curves(pairs, against))}

    @answered
    def _pick(self, run, city, kind, least, most, other, event: gr.EventData):
        given = [run, city, kind, least, most, other]
        there, pairs, other = self._asked(*given)
        place = float(event.x), float(event.y)
        there.step(pairs, None, 0)
        index = there.nearest(city, pairs, *place) if event.id is None else there.listed(event.id)
        yield from self._pair(there, city, pairs, index, other, given)

    @answered
    def _open(self, *given):
        *given, chosen = given
        there, pairs, other = self._asked(*given)
        if chosen is not None:
            yield from self._pair(there, given[1], pairs, there.listed(chosen), other, given)

    @answered
    def _step(self, *given):
        *given, chosen, by = given
        there, pairs, other = self._asked(*given)
        yield from self._pair(there, given[1], pairs, there.step(pairs, chosen, by), other, given)

    def restore(self, *given):
        """Show an evaluation, and its pair, as `given`."""
        yield from self._choose(given[0])
        yield filled(self.asked, given[:-1])
        yield from self._show(*given[:-1])
        yield from self._open(*given)

    def _maps(self, there, city, pairs, other, index=None):
        """The updates of both maps: the scene of an evaluation and, for the same pairs, of another."""
        kept = index is not None
        maps = {self.scene: there.scene(city, pairs, index, kept)}
        if other is None:
            return maps | {self.beside: None}
        chosen = other.same(there.rows(index))["index"].tolist()
        beside = other.scene(city, other.same(pairs), chosen[0] if chosen else None, kept)
        return maps | {self.beside: beside | {"picks": False}}

    def _pair(self, there, city, pairs, index, other, given):
        maps, detail = self._maps(there, city, pairs, other, index), there.detail(index, other)
        maps[self.scene] |= {"link": keep("Evaluation", [*given, index])}
        words, details = there.words(index)
        about = {self.answer: f"## {words}", self.details: f"```\n{details}```", self.chosen: index}
        worst = [value for _, value in there.worst(pairs)]
        about |= {self.worst: index if index in worst else None, self.sheets: gr.Gallery([], visible=False)}
        yield about | maps | {self.detail: detail}

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
