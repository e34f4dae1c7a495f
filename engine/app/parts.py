"""What the tabs of the page share: its parts, its events' errors and their end, uploads and saved files."""

import functools
import gc
import os
import tempfile
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext

from dataset.decoding import check_pixels
from engine.app.forms import fault_on_page, warning
from engine.app.process import Stopped, Work

UPLOAD_MB, UPLOAD_PX = 50, 64_000_000  # of a file, and of the image in it
QUEUE, SESSIONS = 512, 64  # events that wait, and sessions that are remembered, at most
WORK = Work(limit_s=600)
_VIEW = {"interactive": False, "buttons": ["fullscreen"], "show_label": False}
GALLERY = {"buttons": ["fullscreen"], "show_label": False, "object_fit": "contain", "height": "auto"}


def panel(name, words):
    """A drawn panel by its name in the page; words stand in its place for who cannot see it."""
    return gr.Image(elem_id=name, alt_text=words, format="jpeg", **_VIEW)


def large(name, words):
    """A whole picture, like a `panel`."""
    return gr.Image(elem_id=name, alt_text=words, elem_classes="large", format="png", **_VIEW)


def column(scale):
    """A column of a tab, as wide as its scale says."""
    return gr.Column(scale=scale, min_width=300)


def answered(event):
    """Wraps an event of a tab, a generator of {component: value}: errors become a line in its `answer`."""

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
    """The browser's session whose event runs in this thread."""
    return getattr(LocalContext.request.get(None), "session_hash", None)


def stop_button(answer, events):
    """A button that stops what a tab is working on, and what waits, and says so in its answer."""

    def stop():
        WORK.stop(session())
        return "Stopped."

    gr.Button("Stop", size="sm").click(stop, None, answer, cancels=events, queue=False)


def uploaded(photo):
    """The path of an image that the browser sends, not yet decoded, or None. UserError if too large."""
    return check_pixels(photo["path"], UPLOAD_PX) if photo else None


def saved(name, content):
    """The path of a new file to show or to download. content: a text or a figure."""
    path = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]), name)
    path.write_text(content, "utf-8") if isinstance(content, str) else content.savefig(path, dpi=110)
    gc.collect()  # figures have reference cycles, which would pile up to some 100 MB
    return path
