"""What the page's tabs share: components, errors and cancellation of events, uploads, saved files."""

import functools
import gc
import hashlib
import json
import os
import re
import tempfile
from html import escape
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext

from dataset.decoding import check_pixels
from dataset.images import read_whole
from engine.app.forms import fault_on_page, warning
from engine.app.process import Stopped, Work
from engine.app.scene import data_url

UPLOAD_MB, UPLOAD_PX = 50, 64_000_000  # of a file, and of the image in it
QUEUE, SESSIONS = 512, 64  # events that wait, and sessions that are remembered, at most
PROGRESS = gr.Progress(track_tqdm=True)
WORK = Work(limit_s=600)
NORTH = "degrees clockwise from north, of its centre; empty if unknown"
LAST = {"trigger_mode": "always_last"}  # of an event: what comes meanwhile waits, only the last counts
OPEN = {"placeholder": "not known"}
LENS = {"label": "A photograph's camera", "info": "degrees: field of view, pitch, roll; or as in its file"}
VERTICAL = {"label": "Vertical", "info": "of a cropped panorama: degrees above, below the horizon"}
CIRCLE = "latitude, longitude in degrees; a click into the map sets it"
_HERE = Path(__file__).parent
SCRIPTS, STYLE = ("scene.js", "scene_draw.js"), "scene.css"


def text_of(name):
    """The text of a file of this package."""
    return (_HERE / name).read_text("utf-8")


def scene_view(name, value=None):
    """A map and a street view that show scenes (`engine.app.scene`). Events: aim, measure, pick."""
    opens = "/* 'aim' 'measure' 'pick' */ openScene(element, props, trigger, watch);"
    how = {"html_template": " ", "js_on_load": opens, "apply_default_css": False}
    return gr.HTML(value, elem_id=name, elem_classes="scene", **how)


def tiles(name, pictures):
    """Buttons with pictures: [(image file or None, caption), ...]; the event pick gives a button's id."""
    html = ""
    for number, (file, caption) in enumerate(pictures):
        image = "" if file is None else f'<img alt="" src="{data_url(read_whole(file, 240), 70)}">'
        html += f'<button type="button" data-id="{number}">{image}<span>{escape(caption)}</span></button>'
    picks = "/* 'pick' */ element.onclick = (event) => { const one = event.target.closest('button'); "
    picks += "if (one) trigger('pick', { id: one.dataset.id }); };"
    html = f'<div class="tiles">{html}</div>'
    return gr.HTML(html, elem_id=name, js_on_load=picks, apply_default_css=False)


def temporary():
    """The folder of this server's temporary files."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def keep(tab, given):
    """The query of an address that restores the answer of a tab, by its name, to what it was `given`."""
    text = json.dumps([tab, *given])
    token = hashlib.sha256(text.encode()).hexdigest()[:12]
    (temporary() / f"kept_{token}.json").write_text(text, "utf-8")
    return f"?kept={token}"


def kept(token):
    """[tab, *given] of `keep` by its query's token; None if they, or an uploaded file, are gone."""
    file = temporary() / f"kept_{token}.json"
    if not re.fullmatch("[0-9a-f]{12}", token) or not file.is_file():
        return None
    held = json.loads(file.read_text("utf-8"))
    files = [one["path"] for one in _flat(held) if isinstance(one, dict) and "path" in one]
    return held if all(map(os.path.exists, files)) else None


def _flat(values):
    """The values of a list and of the lists in it."""
    for value in values:
        yield from value if isinstance(value, list) else [value]


def filled(fields, given):
    """{field: its value} of fields that gave `given` to an event; of an upload its path."""
    return dict(zip(fields, map(_value, given), strict=True))


def _value(given):
    if isinstance(given, list):
        return [_value(one) for one in given]
    return given["path"] if isinstance(given, dict) else given


def street_file(name):
    """An upload field for a street image; `name` is its id on the page."""
    return gr.File(label="Street image: a panorama or a photograph", elem_id=name, **_FILE)


def satellite_file(name):
    """An upload field for a satellite image; `name` is its id on the page."""
    return gr.File(label="Satellite image, north up", elem_id=name, **_FILE)


_FILE = {"file_types": [f".{kind}" for kind in "jpg jpeg png tif tiff webp bmp heic heif avif".split()]}
_FILE |= {"height": 132, "type": "filepath"}


def column(scale, name):
    """A column of a tab with a relative width; on a phone, the one named 'answer' comes first."""
    return gr.Column(scale=scale, min_width=300, elem_classes=name)


def answered(event):
    """Decorates a tab's event, a generator of {component: value}: errors become a line in its `answer`."""

    @functools.wraps(event)
    def wrapped(tab, *given):
        steps, done = event(tab, *given), False
        try:
            while not done:
                with WORK.of(session()):
                    step = next(steps, None)
                done = step is None
                if not done:
                    yield step
        except Stopped as stopped:
            yield {tab.answer: warning(str(stopped))}
        except Exception as error:
            if (line := fault_on_page(error)) is None:
                raise
            yield {tab.answer: line}

    return wrapped


def session():
    """The browser session whose event runs in this thread."""
    return getattr(LocalContext.request.get(None), "session_hash", None)


def downloads(texts):
    """Download buttons for an answer's files, {name: text}; `offered` gives their updates."""
    return [gr.DownloadButton(kind, size="sm", min_width=80, **about) for kind, about in _offers(texts)]


def offered(buttons, texts):
    """{button: update} of `downloads` for new files."""
    return {one: gr.DownloadButton(**about) for one, (_, about) in zip(buttons, _offers(texts), strict=True)}


def _offers(texts):
    """(kind, arguments of its button) for each kind of file; buttons of missing files are disabled."""
    by_kind = {name.rpartition(".")[2]: (name, text) for name, text in texts.items()}
    for kind in ("JSON", "GeoJSON", "GPX"):
        there = by_kind.get(kind.lower())
        yield kind, {"value": there and saved(*there), "interactive": there is not None}


def numbers(text=""):
    """A folded text: an answer's numbers and assumptions."""
    with gr.Accordion("Numbers and assumptions", open=False):
        return gr.Markdown(text)


def picture_button(name, draw, inputs, answer, how):
    """(event, file) of a button that draws a picture, by a function of inputs, and downloads it."""
    file = gr.DownloadButton(visible="hidden", elem_id=name)
    button = gr.Button("Picture", size="sm", min_width=80)
    event = button.click(draw, inputs, [answer, file], **how)
    event.success(None, js=f"() => setTimeout(() => document.querySelector('#{name}').click(), 200)")
    return event, file


def stop_button(answer, events):
    """A button that cancels a tab's running and waiting events and says so in its answer."""

    def stop():
        WORK.stop(session())
        return "Stopped."

    gr.Button("Stop", size="sm").click(stop, None, answer, cancels=events, queue=False)


def uploaded(file, image=True):
    """The path of an uploaded file, not yet decoded, or None. Raises UserError if it is too large."""
    if file and image:
        check_pixels(file["path"], UPLOAD_PX)
    return file["path"] if file else None


def saved(name, content):
    """The path of a new file to show or to download. content: a text or a figure."""
    path = Path(tempfile.mkdtemp(dir=temporary()), name)
    if isinstance(content, str):
        path.write_text(content, "utf-8")
    else:
        content.savefig(path, dpi=110)
        gc.collect()  # figures have reference cycles, which would pile up to some 100 MB
    return path
