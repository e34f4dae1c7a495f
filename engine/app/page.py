"""The page of docs/PAGE.md: tabs, texts and server."""

import gc
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

import gradio as gr
from fastapi.responses import PlainTextResponse

from common.errors import UserError
from engine.app.examples import load_examples
from engine.app.forms import warning
from engine.app.parts import PROGRESS, QUEUE, SCRIPTS, SESSIONS, STYLE, UPLOAD_MB, kept, text_of
from engine.app.process import check_address, share_freed_memory, stay_on_this_machine
from engine.app.two_images import TwoImagesTab
from engine.localizer import Localizer

_GONE = "what this link shows is no longer here; it is kept six hours, while the page's server runs"
_NO_DATA = "⚠ VIGOR's folder is missing: give --dataset_root, or draw one, python -m dataset.mini_vigor."
# The browser's own fonts.
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
_DOCS = Path(__file__).resolve().parents[2] / "docs"
_TITLE = """# Where was this street image taken?

Give a street panorama or a photograph and a satellite image of the area: CVM-VIGOR marks the spot where the
camera stood, which way it looked, and how sure that is. It has learned from drawn streets alone. It
often finds real suburbs; it mostly misses country roads, unknown headings and photographs, and may be sure
of a wrong place.

[The page](docs/PAGE.md) · [Your own images](docs/IMAGES.md) · [Photographs](docs/PHOTOGRAPHS.md) ·
[How good on real places](docs/REAL.md) · [How it works](docs/MODEL.md) · Nothing leaves this machine."""


class _Page(gr.Blocks):
    """`gr.Blocks` whose queue has a bound from the start: Gradio builds the server anew at each change."""

    def queue(self, *args, max_size=QUEUE, **how):
        return super().queue(*args, max_size=max_size, **how)


def build_page(localizer, examples, data):
    """The page as `gr.Blocks`. data: a function that adds the tabs of a data set, or None."""
    old = {"delete_cache": (600, 21_600)}  # files are deleted after six hours
    with _Page(title="CVM-VIGOR", analytics_enabled=False, **old) as page:
        gr.Markdown(_TITLE)
        with gr.Tabs() as tabs:
            with gr.Tab("Images", id="Images"):
                images = TwoImagesTab(localizer, examples)
            by_name = {"Images": images}
            if data:
                by_name |= data()
            else:
                with gr.Tab("City, drive, evaluation"):
                    gr.Markdown(_NO_DATA)
        address = gr.Textbox(visible="hidden", label="Address")

        def restore(query, progress=PROGRESS):
            asked = dict(parse_qsl(str(query or "").lstrip("?")))
            yield {tabs: gr.skip()}
            if "example" in asked:
                yield from images.restore_example(asked["example"])
            elif "kept" in asked:
                if (there := kept(asked["kept"])) is None:
                    yield {images.answer: warning(_GONE)}
                    return
                name, *given = there
                yield {tabs: gr.Tabs(selected=name)}
                yield from by_name[name].restore(*given)

        outputs = [tabs, *(part for tab in by_name.values() for part in tab.restored)]
        how = {"js": "() => [window.location.search]", "show_progress": "hidden"}
        page.load(restore, address, outputs, **how)
    return page


def serve(model_path, source, runs_root, index_root, device, host, port):
    """Serve the page until Ctrl-C or SIGTERM; arguments as flags of `app_VIGOR.py`. Raises UserError."""
    check_address(host, port)
    share_freed_memory()
    localizer = Localizer.of_flags(model_path, device)
    with tempfile.TemporaryDirectory(prefix="page_of_cvm_vigor_") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_EXAMPLES_CACHE": folder}
        stay_on_this_machine(host)
        packed = Path(folder, "examples")  # the page shows no files but those in this folder
        shutil.copytree(Path(__file__).with_name("examples"), packed)
        data = None
        if source.at_hand:
            from engine.app.tabs import add_tabs  # its imports take a second that the page without data saves

            data = partial(add_tabs, localizer, source, runs_root, index_root, model_path, device)
        page = build_page(localizer, load_examples(packed), data)
        scripts = "".join(f"<script>{text_of(name)}</script>" for name in SCRIPTS)
        look = {"theme": gr.themes.Default(**_FONTS), "css": text_of(STYLE), "head": scripts}
        shut = dict.fromkeys(("share", "enable_monitoring", "run_history", "mcp_server", "ssr_mode"), False)
        bounds = {"max_file_size": UPLOAD_MB * 10**6, "state_session_capacity": SESSIONS, "allowed_paths": []}
        look["footer_links"] = []
        where = {"server_name": host, "server_port": port, "quiet": True, "prevent_thread_lock": True}
        try:
            app, *_ = page.launch(**where, **look, **shut, **bounds)
        except OSError as error:
            raise UserError(f"--port {port}: {error}; --port chooses another") from None
        _serve_docs(app)
        gc.freeze()  # what exists stays; the collector need not scan it again
        print(f"The page is at {page.local_url}; Ctrl-C ends it.", flush=True)
        page.block_thread()


def _serve_docs(app):
    """Let the page's links open the project's documentation, as plain text."""
    pages = {path.name: path for path in _DOCS.glob("*.md")}

    def show(name: str):
        text = pages[name].read_text("utf-8") if name in pages else "There is no such page.\n"
        return PlainTextResponse(text, 200 if name in pages else 404)

    app.add_api_route("/docs/{name}", show)
    app.router.routes.insert(0, app.router.routes.pop())  # before Gradio's own, which take every address
