"""The page as users see it: in headless Chromium, over images of noise, with a proxy that nobody may ask."""

import functools
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from children import PROJECT, bearing_and_distance, call
from PIL import Image

from common import geometry
from common.camera import pinhole
from common.geometry import wrap_degrees
from dataset.index import load_index
from dataset.protocol import Source
from engine.app.cities import Cities
from engine.app.examples import load_examples
from engine.app.located import LocatedFiles
from engine.localizer import Localizer

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if not CHROMIUM and not os.environ.get("CI"):  # there it has to be: .ci/run installs it
    pytest.skip("no chromium here: Debian's package chromium has it", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --no-pings"
QUIET += " --disable-sync --disable-default-apps --disable-domain-reliability --disable-component-update"
# What Debian's Chromium asks for by itself, on a blank page as well: updates, its account, forms.
CHROMIUM_S_OWN = "googleapis.com", "google.com", "gvt1.com"


@pytest.fixture(scope="module")
def run(tmp_path_factory, vigor_root):
    """An evaluated run of the repository's network, and a copy of it, in one folder."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    folder.mkdir()
    shutil.copy(PROJECT / "runs/pretrained/light.pt", folder / "best.pt")
    flags = f"--dataset_root {vigor_root} --num_workers 0 --calibrate 4 --pos_only False --device cpu"
    call("eval_VIGOR", f"--model_path {folder} {flags}")
    shutil.copytree(folder, folder.with_name("two"))
    return folder


@pytest.fixture(scope="module")
def proxy():
    """(address of a proxy, what it was asked for): nothing, as every test here sees to it."""
    asked, server = [], socket.create_server(("127.0.0.1", 0))

    def listen():
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            with caller:
                line = caller.recv(200).split(b"\r\n")[0].decode(errors="replace")
                if not any(host in line for host in CHROMIUM_S_OWN):
                    asked.append(line)

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
    server.close()


@pytest.fixture(scope="module")
def server(run, vigor_root, proxy, tmp_path_factory):
    """(address, process, file of what it prints) of the page."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        said, port = tmp_path_factory.mktemp("page") / "said.txt", free.getsockname()[1]
    line = f"app_VIGOR.py --model_path {run} --dataset_root {vigor_root} --runs_root {run.parent}"
    line += f" --device cpu --port {port}"
    names = ("http_proxy", "https_proxy", "all_proxy")
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= dict.fromkeys((*names, *map(str.upper, names)), proxy[0])
    environment["TMPDIR"] = str(said.parent)
    with open(said, "wb") as file:
        words = [sys.executable, *line.split()]
        process = subprocess.Popen(words, cwd=PROJECT, stdout=file, stderr=subprocess.STDOUT, env=environment)
    end = time.monotonic() + 400  # where many others have the cores
    while "The page is at" not in said.read_text():
        assert process.poll() is None and time.monotonic() < end, said.read_text()
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}", process, said
    process.terminate()  # as systemd and containers do
    process.wait(60)
    assert not list(said.parent.glob("page_of_*")), "temporary files are left"


@pytest.fixture(scope="module")
def browser(proxy):
    with sync_api.sync_playwright() as playwright:
        # Chromium asks the proxy for all but this machine's own addresses.
        options = [*QUIET.split(), f"--proxy-server={proxy[0]}"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, server, proxy):
    """Opens the page under options of a browser; checks that it asks nobody else and shows no traceback."""
    contexts, asked = [], []

    def open_page(query="", **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 1000}} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)  # drawing waits for whoever else has the cores
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto(server[0] + query)
        page.wait_for_function("document.querySelector('#scene canvas')?.parentElement.scene?.scale > 0")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert "Traceback" not in page.content()
        context.close()
    assert asked and all(url.startswith((server[0], "data:", "blob:")) for url in asked)
    assert proxy[1] == [], "somebody asked another machine"
    said = server[2].read_text()
    assert "Traceback" not in said and "asks no other machine" not in said


def until(page, element, words):
    """The text of an element, as soon as it has these words and no clock runs over it."""
    has = """([e, w]) => {
        const text = document.querySelector(e)?.innerText;
        return text?.includes(w) && !/^(processing|queue)/.test(text.trim()) ? text : null;
    }"""
    return page.wait_for_function(has, arg=[element, words]).json_value()


def seen(page, label):
    """The one field of a label in the tab that is open."""
    return page.get_by_label(label, exact=True).locator("visible=true")


def choose(page, label, value):
    seen(page, label).click()
    page.get_by_role("option", name=value, exact=True).click()


def text_of(page, label):
    return page.get_by_role("textbox", name=label).locator("visible=true").input_value()


def write(page, label, text):
    page.get_by_role("textbox", name=label).locator("visible=true").fill(text)
    page.keyboard.press("Tab")


def press(page, name):
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


@pytest.fixture(scope="module")
def pair(vigor_root):
    index = load_index(vigor_root, "samearea", "test")
    paths = index.panorama_image(3).path, index.satellite_image(index.satellite[3, 0]).path
    return tuple(str(vigor_root / path) for path in paths)


@pytest.fixture(scope="module")
def localizer(run):
    return Localizer(run, device="cpu")


def put(page, *paths):
    """Files into the two places for images."""
    for name, path in zip(("street", "above"), paths, strict=False):
        page.locator(f"#{name} input[type=file]").set_input_files(path)
        if os.path.getsize(path) < 50e6:
            page.get_by_text(os.path.basename(path)[:12]).first.wait_for()


def find(page, pair, heading="30"):
    """Both images and what is known of them, the button; waits for the answer."""
    write(page, "Heading of the street image", heading)
    write(page, "Metres per pixel", "0.11")
    put(page, *pair)
    press(page, "Find the place")
    page.wait_for_url("**kept=*")
    return page.locator("#answer").inner_text()


def script_of(name, of="scene"):
    """A name of a scene's script, as JavaScript."""
    return f"document.querySelector('#{of} canvas').parentElement.scene.{name}"


def state(page, name, of="scene"):
    """Its value, such as the bearing that is looked at."""
    return page.evaluate(script_of(name, of))


def wait_for_field(page, pattern):
    """Waits until some field has a value of a pattern."""
    fields = "[...document.querySelectorAll('input, textarea')]"
    page.wait_for_function(f"{fields}.some(e => /{pattern}/.test(e.value))")


def opened_again(opened, page):
    """The page by its address, which leads back to its answer."""
    page.wait_for_url("**kept=*")
    return opened("/" + page.url.split("/")[-1])


def on_map(page, row, col, of="scene"):
    """Where a place of the map, pixels of the satellite image, is on the screen: (x, y)."""
    page.locator(f"#{of} .map").scroll_into_view_if_needed()
    box = page.locator(f"#{of} .map").bounding_box()
    x, y, scale = (state(page, name, of) for name in ("x", "y", "scale"))
    return box["x"] + x + col * scale, box["y"] + y + row * scale


def drag(page, start, end):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=5)
    page.mouse.up()


def test_it_opens_with_an_answer(opened, localizer, server):
    page, first = opened(), load_examples()[0]
    assert page.get_by_role("heading", name="Where was this street image taken?").is_visible()
    known = {"heading": first["heading"], "centre": first["centre"]}
    known["metres_per_pixel"] = float(geometry.metres_per_pixel(first["centre"][0]))
    found = LocatedFiles.by(localizer, first["street"], first["satellite"], **known)
    assert found.sentence() in page.locator("#answer").inner_text()
    assert state(page, "place") == pytest.approx([found.located.col, found.located.row])
    drawn = "e => e.getContext('2d').getImageData(0, 0, e.width, e.height).data.filter((v, i) => i % 4 == 1)"
    for canvas in (".street", ".map"):
        values = page.locator(f"#scene {canvas}").evaluate(f"e => Array.from(({drawn})(e)).slice(0, 60000)")
        assert np.std(values) > 5  # an image, not a plain colour
    assert page.locator("#examples button").count() == 7
    page.get_by_role("button", name="Downtown").click()
    page.wait_for_url("**example=downtown")
    page.get_by_role("button", name="A photograph").click()  # which this network does not take
    assert "photograph" in until(page, "#answer", "⚠")
    again = opened("/?example=downtown")
    until(again, "#answer", str(load_examples()[1]["truth"][0])[:5])
    for link in page.locator("a[href^='docs/']").all():
        assert ask(f"{server[0]}/{link.get_attribute('href')}").read().startswith(b"# ")


def test_two_images_are_found_where_the_localizer_finds_them(opened, pair, localizer):
    page = opened()
    write(page, "Satellite center", "41.85, -87.65")
    words = find(page, pair)
    found = localizer.locate(*pair, metres_per_pixel=0.11, heading=30.0, centre=(41.85, -87.65))
    assert state(page, "place") == pytest.approx([found.col, found.row], abs=1e-6)
    page.get_by_role("button", name="Numbers and assumptions").locator("visible=true").click()
    until(page, "body", f"row {found.row:.2f}, column {found.col:.2f}")
    until(page, "body", f"{100 * found.probability:.1f} % within 5 m")
    link = page.locator("#answer a")
    assert link.inner_text() == f"{found.latitude:.6f}, {found.longitude:.6f}"
    assert f"mlat={found.latitude:.7f}&mlon={found.longitude:.7f}" in link.get_attribute("href")
    files = {}
    for button in ("JSON", "GeoJSON", "GPX", "Picture"):
        with page.expect_download() as file:
            page.get_by_text(button, exact=True).locator("visible=true").click()
        files[button] = file.value.path()
    record = json.loads(files["JSON"].read_text())
    assert all(record[name] == getattr(found, name) for name in ("row", "col", "probability"))
    (point,) = json.loads(files["GeoJSON"].read_text())["features"]
    assert point["geometry"]["coordinates"] == pytest.approx([found.longitude, found.latitude], abs=1e-7)
    waypoint = ElementTree.parse(files["GPX"]).find("{*}wpt")
    assert float(waypoint.get("lat")) == pytest.approx(found.latitude, abs=1e-7)
    assert Image.open(files["Picture"]).width > 1000
    again = opened_again(opened, page)
    until(again, "#answer", words.splitlines()[0])
    assert text_of(again, "Metres per pixel") == "0.11"
    until(opened("/?kept=000000000000"), "#answer", "no longer here")


def test_looking_around_agrees_with_the_geometry(opened, pair):
    page = opened()
    find(page, pair)
    place = np.array(state(page, "place"))[::-1]
    assert state(page, "look") == pytest.approx(30)
    page.locator("#scene .street").scroll_into_view_if_needed()
    box = page.locator("#scene .street").bounding_box()
    fov = state(page, "fov")
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 60)
    assert abs(wrap_degrees(state(page, "look") - (30 + 0.3 * fov))) < 1
    target = place + (-130, -140)
    page.mouse.click(*on_map(page, *target))
    assert abs(wrap_degrees(state(page, "look") - bearing_and_distance(*place, *target)[0])) < 1
    x, y = on_map(page, *place)
    bearing = np.radians(state(page, "look"))
    grip = x + 80 * np.sin(bearing), y - 80 * np.cos(bearing)
    drag(page, grip, (x + 80, y + 1))  # the wedge to the east turns the street image
    assert abs(wrap_degrees(state(page, "look") - 90)) < 1.5
    page.locator("#scene .street").scroll_into_view_if_needed()
    box = page.locator("#scene .street").bounding_box()
    start = box["x"] + 300, box["y"] + 80
    drag(page, start, (start[0] - 100, start[1]))  # and the street image turns the wedge
    assert abs(wrap_degrees(state(page, "look") - 90 - 100 / box["width"] * fov)) < 2
    before = state(page, "scale")
    press(page, "Zoom in")
    assert state(page, "scale") == pytest.approx(1.5 * before)


def test_scale_by_two_points_and_heading_by_the_wedge(opened, pair):
    page = opened()
    put(page, *pair)
    until(page, "#answer", "How large is a pixel?")
    press(page, "Measure")
    for col in (200, 300):
        page.mouse.click(*on_map(page, 500, col))
    write(page, "Measured distance", "11")
    wait_for_field(page, "^0.1[01]")
    metres = float(text_of(page, "Metres per pixel"))
    assert 100 * metres == pytest.approx(11, abs=0.1)
    press(page, "Set the heading")
    x, y = on_map(page, 320, 320)
    drag(page, (x, y - 80), (x + 80, y))  # all that is seen to the north is said to be in the east
    wait_for_field(page, r"^(89|90|91)\.")
    press(page, "Find the place")
    assert "as given" in until(page, "#answer", "Facing")


def test_a_click_into_a_photograph(opened):
    """Of a tilted camera: the script's bearings are those of `common.camera`."""
    page, camera = opened(), pinhole(400, 300, hfov=80, pitch=-12, roll=5)
    numbers = {name: float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy", "pitch", "roll")}
    for x, y in ((0.1, 0.2), (0.7, 0.9)):
        line = f"SceneParts.photoRay({json.dumps(numbers)}, {x}, {y})"
        bearing, depression = (float(part) for part in camera[None].rays(*np_tensors(x, y)))
        assert page.evaluate(line) == pytest.approx(bearing, abs=1e-3)
        line = f"SceneParts.photoPlace({json.dumps(numbers)}, {bearing}, {depression})"
        assert page.evaluate(line) == pytest.approx([x, y], abs=1e-3)


def np_tensors(*values):
    return [torch.tensor([[value]]) for value in values]


def tab_to(page, name):
    """Moves the focus on by the keyboard until a canvas of a name has it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == name:
            return
    pytest.fail(f"the keyboard does not reach {name}")


def test_the_keyboard_is_enough(opened):
    page = opened()
    tab_to(page, "street")  # through links, tabs and fields
    before = state(page, "look")
    page.keyboard.press("ArrowRight")
    assert state(page, "look") == pytest.approx(before + 5)
    text = page.locator("#scene .street").get_attribute("aria-valuetext")
    assert text.startswith("Looking")
    tab_to(page, "map")
    scale = state(page, "scale")
    page.keyboard.press("+")
    assert state(page, "scale") == pytest.approx(1.5 * scale)
    unnamed = """[...document.querySelectorAll('button, canvas, input:not([type=file])')].filter(
        e => e.offsetParent
            && !(e.innerText || e.ariaLabel || e.title || e.labels?.length || e.closest('label'))
    ).map(e => e.outerHTML.slice(0, 200))"""
    assert page.evaluate(unnamed) == []


def test_a_city_is_searched(opened, localizer, vigor_root, tmp_path):
    page = opened()
    page.get_by_role("tab", name="City").click()
    press(page, "Search")
    assert "choose one of NewYork, Seattle" in until(page, "#places", "⚠")
    choose(page, "City", "Seattle")
    assert until(page, "#places", "satellite images") == "Seattle: 4 satellite images, 6 test panoramas."
    cities = Cities(localizer, Source(dataset_root=str(vigor_root)), tmp_path)
    whole = cities.open("Seattle")[2]
    page.wait_for_function(script_of("scale > 0", "city"))
    page.mouse.click(*on_map(page, 300, 400, "city"))
    page.get_by_role("button", name="More: search near a place").click()
    wait_for_field(page, "^47")
    near = [float(word) for word in page.get_by_role("textbox", name="Near").first.input_value().split(",")]
    assert np.hypot(*(geometry.mercator_px(*near) - whole.map_px((300, 400)))) < 2 * whole.pixel
    write(page, "Near", "")
    write(page, "Test panorama", "2")
    press(page, "Search")
    said = until(page, "#places", "of place 1")
    best = cities.search("Seattle", number=2).searched.places
    assert f"{100 * best[0].probability:.0f} % within 5 m" in said
    for result in best:
        assert f"{result.latitude:.6f}, {result.longitude:.6f}" in said
    again = opened_again(opened, page)
    assert until(again, "#places", "of place 1") == said and text_of(again, "Test panorama") == "2"
    page.wait_for_function(script_of("scale > 0", "place"))
    page.mouse.click(*on_map(page, *whole.place(best[-1].map_px), "city"))
    offset = np.subtract(best[-1].map_px, best[-1].corner)[::-1].tolist()
    x, y = script_of("place[0]", "place"), script_of("place[1]", "place")
    there = f"place => Math.hypot({x} - place[0], {y} - place[1]) < 2"
    page.wait_for_function(there, arg=offset)
    write(page, "Test panorama", "6")
    press(page, "Search")
    assert "⚠ Test panorama 6: Seattle has 6, 0 to 5" in until(page, "#places", "⚠")


def test_two_events_at_once_make_one_index(localizer, vigor_root, tmp_path):
    cities = Cities(localizer, Source(dataset_root=str(vigor_root)), tmp_path)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(cities.open, ("Seattle", "Seattle"))
    assert one is other and cities.search("Seattle", number=2).searched.places


def test_a_drive_of_ones_own(opened, vigor_root, tmp_path):
    index, lines = load_index(vigor_root, "samearea", "test"), ["file,forward,left,turn,heading"]
    for k in range(3):
        name = f"{k}.jpg"
        shutil.copy(vigor_root / index.panorama_image(0).path, tmp_path / name)
        lines.append(f"{name},1,0,0,0" if k else f"{name},,,,0")
    (tmp_path / "drive.csv").write_text("\n".join(lines) + "\n")
    page = opened()
    page.get_by_role("tab", name="Drive").click()
    until(page, "#drive", "No drives here yet")
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    page.locator("input[type=file][multiple]").set_input_files(files)
    page.get_by_text("drive").locator("visible=true").first.wait_for()
    choose(page, "In the city", "NewYork")
    press(page, "Follow the drive")
    until(page, "#drive", "3 frames")
    page.wait_for_function(script_of("value.frames?.length == 3", "track"))
    seen(page, "Frame").fill("2")
    until(page, "#track", "3 of 3")
    assert state(page, "here.belief.box[2]", "track") > 0
    until(opened_again(opened, page), "#drive", "3 frames")


def test_the_worst_pair_of_an_evaluation(opened, run, vigor_root):
    table = pd.read_csv(run / "results/per_image_results_samearea.csv")
    chicago = table[table["city"] == "Chicago"].sort_values("error_m", ascending=False, kind="stable")
    page = opened()
    page.get_by_role("tab", name="Evaluation").click()
    choose(page, "Evaluation", "one")
    until(page, "#pair", f"{len(chicago)} pairs")
    page.wait_for_selector("#curve img")
    page.get_by_role("button", name="Numbers and assumptions").locator("visible=true").click()
    for k in (0, 1):
        press(page, "Next worst ▶")
        until(page, "body", f"index: {chicago['index'].iloc[k]}\n")
        assert f"{chicago['error_m'].iloc[k]:.2f} m off" in page.locator("#pair").inner_text()
    press(page, "◀ Previous")
    until(page, "body", f"index: {chicago['index'].iloc[0]}\n")
    worst = chicago.iloc[0]
    place = worst[["col_px", "row_px"]].to_numpy(float) / 512 * 640
    assert state(page, "place", "seen") == pytest.approx(place.tolist(), abs=0.2)
    choose(page, "City", "Seattle")
    seattle = table[table["city"] == "Seattle"]
    until(page, "#pair", f"{len(seattle)} pairs")
    mark = state(page, "value.layers[0].marks[2]", "dots")
    page.wait_for_function(script_of("fresh === false", "dots"))
    page.mouse.click(*on_map(page, mark["y"], mark["x"], "dots"))
    until(page, "#pair", "from the worst")
    index = state(page, "value.layers[0].marks.find(mark => mark.chosen).id", "dots")
    assert index in seattle["index"].tolist()
    choose(page, "Compared with", "two")
    until(page, "#pair", f"{len(seattle)} pairs")
    press(page, "Next worst ▶")
    has = script_of("value.layers.some(layer => layer.name == 'Prediction of two')", "seen")
    page.wait_for_function(has)
    assert state(page, "value.layers[0].marks.length", "beside") == len(seattle)
    again = opened_again(opened, page)
    assert until(again, "#pair", "from the worst") == page.locator("#pair").inner_text()
    chosen = "value.layers[0].marks.filter(mark => mark.chosen).length == 1"
    again.wait_for_function(script_of(chosen, "beside"))
    write(page, "Errors from", "1000")
    page.get_by_role("textbox", name="Errors from").press("Enter")
    until(page, "#pair", "0 pairs")
    press(page, "Next worst ▶")
    assert "⚠ There is no such pair" in until(page, "#pair", "⚠")


def png(image):
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def noise(*size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))


def test_a_broken_upload_gives_a_sentence(opened, pair, tmp_path):
    broken = {
        "text.png": (os.urandom(2000), "text.png"),
        "half.png": (png(noise(128, 256))[:40_000], "half.png"),
        "shape.png": (png(noise(100, 130)), "130 x 100 px"),
        "vast.png": (png(Image.new("1", (18_000, 9_000))), "18000 x 9000 px"),  # of nothing in a few kB
    }
    for name, (content, says) in broken.items():
        (tmp_path / name).write_bytes(content)
        page = opened()
        write(page, "Metres per pixel", "0.11")
        put(page, tmp_path / name, pair[1])
        press(page, "Find the place")
        words = until(page, "#answer", "⚠")
        assert says in words.lower() and "/" not in words


def test_too_large_a_file_and_fields_that_say_nothing(opened, pair, tmp_path):
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(51_000_000))
    page = opened()
    put(page, tmp_path / "large.png")
    page.get_by_text(re.compile("exceed", re.I)).first.wait_for()
    page = opened()
    press(page, "Find the place")
    until(page, "#answer", "⚠ The satellite image is missing")
    put(page, *pair)
    until(page, "#answer", "How large is a pixel?")
    press(page, "Find the place")
    until(page, "#answer", "⚠")
    until(page, "#answer", "Metres per pixel")
    write(page, "Metres per pixel", "much")
    press(page, "Find the place")
    until(page, "#answer", "⚠ Metres per pixel 'much'")


def test_a_cropped_panorama(opened, pair, localizer, tmp_path):
    """Of CVUSA's size."""
    noise(224, 1232).save(file := str(tmp_path / "cropped.png"))
    page = opened()
    page.get_by_role("button", name="More: photographs").click()
    write(page, "Vertical", "38.6 26.9")
    find(page, (file, pair[1]))
    found = localizer.locate(file, pair[1], metres_per_pixel=0.11, heading=30.0, vertical=(38.6, 26.9))
    assert state(page, "place") == pytest.approx([found.col, found.row], abs=1e-6)


PHONE = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "color_scheme": "dark"}


def test_on_a_phone_in_the_dark(opened):
    page = opened(**PHONE)
    elements = {"City": "#places", "Drive": "#drive", "Evaluation": "#pair", "Images": "#answer"}
    for tab, element in elements.items():
        page.get_by_role("tab", name=tab).click()
        page.locator(element).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), tab
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", colour)[:3])) < 150


def ask(address, body=None, kind="application/json"):
    request = urllib.request.Request(address, body, {"Content-Type": kind})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120)


def upload(address, path):
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{os.path.basename(path)}"\r\n'
    body = f"{head}Content-Type: image/png\r\n\r\n".encode() + open(path, "rb").read() + b"\r\n--x--\r\n"
    return json.load(ask(f"{address}/gradio_api/upload", body, "multipart/form-data; boundary=x"))[0]


def locate(address, session, panorama, satellite):
    """Ask for the place of two files, as `press_button`."""
    photos = [path and {"path": path, "meta": {"_type": "gradio.FileData"}} for path in (panorama, satellite)]
    return press_button(address, session, "_locate", [*photos, "0", "", "", "0.11", "", ""])


def press_button(address, session, name, data):
    """Ask as the page does; a function that waits for the words of the answer, and when it was there."""
    config = json.load(ask(f"{address}/config"))
    (event,) = [event["id"] for event in config["dependencies"] if event["api_name"] == name]
    body = {"fn_index": event, "session_hash": session, "data": data}
    ask(f"{address}/gradio_api/queue/join", json.dumps(body).encode()).read()
    return functools.partial(_listen, address, session)


def _listen(address, session):
    words = ""
    for line in ask(f"{address}/gradio_api/queue/data?session_hash={session}"):
        message = json.loads(line[5:]) if line.startswith(b"data:") else {}
        said = json.dumps(message.get("output") or "", ensure_ascii=False)
        if found := re.search(r"row [\d.]+, column [\d.]+|⚠ [^\"]*", said):
            words = words or found[0]
        if message.get("msg") in ("process_completed", "close_stream", "unexpected_error", "queue_full"):
            return words, time.monotonic(), message
    return words, time.monotonic(), {}


def test_twenty_uploads_at_once(server, localizer, vigor_root, tmp_path):
    """All are answered, in their order and rightly, and twenty more need no more memory."""
    address, process, said = server
    index, used = load_index(vigor_root, "samearea", "test"), []
    numbers = [k % 7 for k in range(20)]
    images = [(index.panorama_image(k), index.satellite_image(index.satellite[k, 0])) for k in numbers]
    pairs = [tuple(str(vigor_root / image.path) for image in pair) for pair in images]
    found = {pair: localizer.locate(*pair, metres_per_pixel=0.11, heading=0.0) for pair in set(pairs)}
    places = [f"row {found[pair].row:.2f}, column {found[pair].col:.2f}" for pair in pairs]
    for attempt in range(2):
        with ThreadPoolExecutor(20) as pool:
            files = list(pool.map(lambda pair: [upload(address, path) for path in pair], pairs))
            waiting = [locate(address, f"s{attempt}_{k}", *pair) for k, pair in enumerate(files)]
            answers = [answer.result() for answer in [pool.submit(listen) for listen in waiting]]
        assert [words for words, *_ in answers] == places
        times = [when for _, when, _ in answers]
        assert min(np.diff(times)) > -0.1  # in their order, but for when the threads look
        used.append(int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{process.pid}/status").read())[1]))
    assert used[1] - used[0] < 40 * 1024, used  # kB
    assert "Traceback" not in said.read_text()


def test_none_of_ninety_at_once_is_lost_without_a_sentence(server, pair, tmp_path):
    """Most files are broken, since an answer takes long. Each gets an error, and the valid ones an answer."""
    address, _, said = server
    (tmp_path / "broken.png").write_bytes(png(noise(64, 128))[:4000])
    street, above, broken = (upload(address, path) for path in (*pair, tmp_path / "broken.png"))
    streets = [broken if k % 30 else street for k in range(90)]
    with ThreadPoolExecutor(90) as pool:
        waiting = pool.map(lambda k: locate(address, f"ninety{k}", streets[k], above), range(90))
        answers = list(pool.map(lambda listen: listen()[0], waiting))
    for words, path in zip(answers, streets, strict=True):
        assert ("⚠" if path == broken else "row") in words
    assert "Traceback" not in said.read_text()


def test_a_long_request_stops_no_other(server, pair):
    """A city's index is made and searched, while two images are located and another city is opened."""
    address, files = server[0], [upload(server[0], path) for path in pair]
    with ThreadPoolExecutor(3) as pool:
        asked = ["Chicago", "", 200, None, "0", "", "", ""]
        searched = pool.submit(press_button(address, "long", "_search", asked))
        looked = pool.submit(press_button(address, "look", "_show", ["NewYork", "", 200]))
        located = pool.submit(locate(address, "short", *files))
        (words, when, _), (_, end, message) = located.result(), searched.result()
        _, seen, there = looked.result()
    assert "row" in words and message["success"] and when < end
    assert there["success"] and seen < end


def test_no_file_beside_its_own_can_be_read(server, run, pair):
    address, _, _ = server
    elsewhere = "/etc/passwd", "../../../etc/passwd", "http://192.0.2.1/x"
    for path in (*elsewhere, PROJECT / "README.md", run / "best.pt", pair[0]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{address}/gradio_api/file={path}")
        assert refused.value.code in (403, 404, 500)
    words, _, message = locate(address, "thief", "/etc/passwd", "/etc/passwd")()
    assert not words and message["msg"] == "process_completed" and not message["success"]
    config = json.load(ask(f"{address}/config"))
    assert not config.get("analytics_enabled") and not config.get("share")
