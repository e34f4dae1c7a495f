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

import numpy as np
import pandas as pd
import pytest
from children import PROJECT, bearing_and_distance, call
from PIL import Image

from common import geometry
from common.geometry import wrap_degrees
from dataset.index import load_index
from dataset.protocol import Source
from engine.app.cities import Cities
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
    end = time.monotonic() + 120
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

    def open_page(**options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 1000}} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)  # drawing waits for whoever else has the cores
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server[0])
        page.wait_for_selector("#answer")
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


def choose(page, label, value):
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=value, exact=True).click()


def write(page, label, text):
    page.get_by_role("textbox", name=label).fill(text)
    page.keyboard.press("Tab")


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
    for place, path in zip(page.locator("input[type=file]").all(), paths, strict=False):
        place.set_input_files(path)


def drop(page, pair):
    """Both images and what is known of them; waits for the answer, the panels and the picture."""
    write(page, "Heading", "30")
    write(page, "Metres per pixel", "0.11")
    put(page, *pair)
    words = until(page, "#answer", "column")
    page.locator("#picture").scroll_into_view_if_needed()  # browsers load images when they come near
    page.wait_for_selector("#picture img")
    return words


def bearing_of(page):
    return float(page.get_by_label("number input for Bearing").input_value())


def marked(page, panel):
    """(row, col) of the centre of a panel's yellow pixels, and the column with most, shares of its width."""
    source = ask(page.locator(f"{panel} img").evaluate("image => image.src")).read()
    image = np.asarray(Image.open(io.BytesIO(source)).convert("RGB")).astype(int)
    least = image[..., :2].min(2)
    yellow = (least > 170) & (image[..., 2] < least - 60)
    middle = np.flatnonzero(yellow.sum(0) > 0.8 * yellow.sum(0).max()).mean()
    return (np.array([*np.argwhere(yellow).mean(0), middle]) + 0.5) / image.shape[1]


def touch(page, panel, x, y):
    """Click into a panel's image at shares of its width, once it is loaded."""
    image = page.locator(f"{panel} img")
    image_of = "const image = document.querySelector(`${panel} img`)"
    whole = "panel => { " + image_of + "; return image?.complete && image.naturalWidth; }"
    page.wait_for_function(whole, arg=panel)
    width = image.bounding_box()["width"]
    image.click(position={"x": x * width, "y": y * width})


def click(page, panel, x, y):
    """Click into a panel's image at shares of its width; the panels are then drawn anew."""
    before = page.locator("#street img").get_attribute("src")
    touch(page, panel, x, y)
    page.wait_for_function("before => document.querySelector('#street img').src != before", arg=before)
    page.wait_for_function("['#street', '#above'].every(e => document.querySelector(`${e} img`).complete)")


def test_two_images_are_found_where_the_localizer_finds_them(opened, pair, localizer, tmp_path):
    page = opened()
    put(page, pair[0])
    until(page, "#answer", "Now the satellite image.")
    write(page, "Satellite center", "41.85, -87.65")
    words = drop(page, pair)
    found = localizer.locate(*pair, metres_per_pixel=0.11, heading=30.0, centre=(41.85, -87.65))
    assert f"row {found.row:.2f}, column {found.col:.2f}" in words
    assert f"{100 * found.probability:.1f} %" in words
    link = page.locator("#answer a")
    assert link.inner_text() == f"{found.latitude:.6f}, {found.longitude:.6f}"
    assert f"mlat={found.latitude:.7f}&mlon={found.longitude:.7f}" in link.get_attribute("href")
    files = []
    for button in ("Save the answer (JSON)", "Save the picture"):
        with page.expect_download() as file:
            page.get_by_text(button).click()
        files.append(file.value.path())
    record = json.loads(files[0].read_text())
    assert all(record[name] == getattr(found, name) for name in ("row", "col", "probability"))
    assert Image.open(files[1]).width > 1000


def test_clicks_both_ways_agree_with_the_geometry(opened, pair, localizer):
    page = opened()
    drop(page, pair)
    found = localizer.locate(*pair, metres_per_pixel=0.11, heading=30.0)
    place, heading = np.array([found.row, found.col]) / 640, 30.0
    for x in (0.1, 0.62):
        click(page, "#street", x, 0.2)
        expected = float(geometry.column_to_bearing(x * 1000, 1000, heading))
        assert abs(wrap_degrees(bearing_of(page) - expected)) < 1
        seen = bearing_and_distance(*place, *marked(page, "#above")[:2])[0]
        assert abs(wrap_degrees(seen - expected)) < 1  # the line on the satellite image runs along it
    for x, y in ((0.15, 0.3), (0.8, 0.7)):
        click(page, "#above", x, y)
        expected = bearing_and_distance(*place, y, x)[0]
        assert abs(wrap_degrees(bearing_of(page) - expected)) < 1
        seen = float(geometry.column_to_bearing(marked(page, "#street")[2], 1.0, heading))
        assert abs(wrap_degrees(seen - expected)) < 1


def test_the_keyboard_is_enough(opened, pair):
    page = opened()
    with page.expect_file_chooser():
        page.get_by_role("tab", name="Two images").focus()
        page.keyboard.press("Tab")
        for _ in range(12):  # as far as a place that takes a file
            label = page.evaluate("document.activeElement.getAttribute('aria-label') || ''")
            if label.lower().startswith("drop an image"):
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    drop(page, pair)
    before = page.locator("#above img").get_attribute("src")
    page.get_by_label("range slider for Bearing").focus()
    page.keyboard.press("End")
    page.wait_for_function("before => document.querySelector('#above img').src != before", arg=before)
    page.keyboard.press("ArrowLeft")
    assert bearing_of(page) == pytest.approx(179.5)
    page.get_by_role("tab", name="Two images").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#places")


def test_a_city_is_searched(opened, localizer, vigor_root, tmp_path):
    page = opened()
    page.get_by_role("tab", name="A city").click()
    page.get_by_role("button", name="Search", exact=True).click()
    assert "choose one of NewYork, Seattle" in until(page, "#places", "⚠")
    choose(page, "City", "Seattle")
    assert until(page, "#places", "satellite images") == "Seattle: 4 satellite images, 6 test panoramas."
    page.wait_for_selector("#city img")
    cities = Cities(localizer, Source(dataset_root=str(vigor_root)), tmp_path)
    whole = cities.open("Seattle")[2]
    touch(page, "#city", 0.4, 0.3)
    page.wait_for_function("[...document.querySelectorAll('input,textarea')].some(e => /^47/.test(e.value))")
    near = [float(word) for word in page.get_by_role("textbox", name="Near").input_value().split(",")]
    clicked = whole.map_px(np.array([0.3, 0.4]) * whole.image.shape[1])
    assert np.hypot(*(geometry.mercator_px(*near) - clicked)) < 2 * whole.pixel
    for field, text in (("Test panorama", "2"), ("Near", "")):
        write(page, field, text)
    page.get_by_role("button", name="Search", exact=True).click()
    said = until(page, "#places", "probability")
    searched = cities.search("Seattle", number=2).searched
    expected = searched.report
    shown = said.splitlines()[: expected.count("\n")]
    assert [line.split() for line in expected.splitlines()] == [line.split() for line in shown]
    page.wait_for_selector("#searched img")
    assert page.locator("#best button.thumbnail-lg").count() == len(searched.places)
    write(page, "Test panorama", "6")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "⚠ Test panorama 6: Seattle has 6, 0 to 5" in until(page, "#places", "⚠")


def test_a_title_and_a_button_that_starts(opened, pair):
    page = opened()
    assert page.get_by_role("heading", name="Where was this street image taken?").is_visible()
    words = drop(page, pair)
    page.get_by_role("button", name="Find the place").click()
    until(page, "#answer", "row ")
    assert "sha256" in words


def test_the_worst_pair_of_an_evaluation(opened, run, vigor_root):
    table = pd.read_csv(run / "results/per_image_results_samearea.csv")
    chicago = table[table["city"] == "Chicago"].sort_values("error_m", ascending=False, kind="stable")
    page = opened()
    page.get_by_role("tab", name="An evaluation").click()
    choose(page, "Evaluation", "one")
    until(page, "#pair", f"{len(chicago)} pairs")
    page.wait_for_selector("#curve img")
    for k in (0, 1):
        page.get_by_role("button", name="Next worst").click()
        said = until(page, "#pair", f"index: {chicago['index'].iloc[k]}\n")
        assert f"error: {chicago['error_px'].iloc[k]:.3f} px" in said
    page.get_by_role("button", name="Previous").click()
    until(page, "#pair", f"index: {chicago['index'].iloc[0]}\n")
    page.wait_for_selector("#located img")
    page.wait_for_selector("#sheets img")
    choose(page, "City", "Seattle")
    seattle = table[table["city"] == "Seattle"]
    until(page, "#pair", f"{len(seattle)} pairs")
    index = load_index(vigor_root, "samearea", "test")
    row = seattle[seattle["kind"] == "positive"].iloc[2]
    gps = index.satellite_gps[index.satellite_city == 1]
    corner = np.stack(geometry.mercator_px(*gps.T), -1).min(0) - 320
    named = [name.decode() == row["satellite"] for name in index.satellite_name.tolist()]
    inside = row[["true_row_px", "true_col_px"]].to_numpy(float) * 1.25
    place = np.stack(geometry.mercator_px(*index.satellite_gps[named][0])) - 320 + inside
    y, x = (place - corner) / 960  # four images, half over each other
    touch(page, "#dots", x, y)
    assert row["panorama"] in until(page, "#pair", "panorama: ")
    choose(page, "Compared with", "two")
    until(page, "#pair", f"{len(seattle)} pairs")
    write(page, "Errors from", "1000")
    page.get_by_role("textbox", name="Errors from").press("Enter")
    until(page, "#pair", "0 pairs")
    page.get_by_role("button", name="Next worst").click()
    assert "⚠ There is no such pair" in until(page, "#pair", "⚠")


def png(image):
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def noise(*size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: os.urandom(2000), "broken.png"),
        (lambda: png(noise(128, 256))[:40_000], "broken.png"),
        (lambda: png(noise(100, 130)), "130 x 100 px"),
        (lambda: png(Image.new("1", (18_000, 9_000))), "18000 x 9000 px"),  # of nothing in a few kB
    ],
)
def test_a_broken_upload_gives_a_sentence(opened, pair, tmp_path, content, says):
    (tmp_path / "broken.png").write_bytes(content())
    page = opened()
    write(page, "Metres per pixel", "0.11")
    put(page, tmp_path / "broken.png", pair[1])
    words = until(page, "#answer", "⚠")
    assert says in words.lower() and "/" not in words


def test_too_large_a_file_and_fields_that_say_nothing(opened, pair, tmp_path):
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(51_000_000))
    page = opened()
    put(page, tmp_path / "large.png")
    page.get_by_text(re.compile("exceed", re.I)).first.wait_for()
    page = opened()
    put(page, *pair)
    until(page, "#answer", "Metres per pixel")
    write(page, "Metres per pixel", "much")
    until(page, "#answer", "⚠ Metres per pixel 'much'")


def test_a_cropped_panorama(opened, pair, localizer, tmp_path):
    """Of CVUSA's size."""
    noise(224, 1232).save(file := str(tmp_path / "cropped.png"))
    page = opened()
    write(page, "Vertical", "38.6 26.9")
    words = drop(page, (file, pair[1]))
    found = localizer.locate(file, pair[1], metres_per_pixel=0.11, heading=30.0, vertical=(38.6, 26.9))
    assert f"row {found.row:.2f}, column {found.col:.2f}" in words


PHONE = {"viewport": {"width": 390, "height": 780}, "is_mobile": True}


@pytest.mark.parametrize("options", [PHONE, {"color_scheme": "dark"}])
def test_on_a_phone_and_in_the_dark(opened, pair, options):
    page = opened(**options)
    drop(page, pair)
    for tab, element in (("A city", "#places"), ("An evaluation", "#pair"), ("Two images", "#answer")):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(element)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), tab
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, re.findall(r"\d+", colour)[:3])) < 150
    assert dark == ("color_scheme" in options)


def ask(address, body=None, kind="application/json"):
    request = urllib.request.Request(address, body, {"Content-Type": kind})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120)


def upload(address, path):
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{os.path.basename(path)}"\r\n'
    body = f"{head}Content-Type: image/png\r\n\r\n".encode() + open(path, "rb").read() + b"\r\n--x--\r\n"
    return json.load(ask(f"{address}/gradio_api/upload", body, "multipart/form-data; boundary=x"))[0]


def locate(address, session, panorama, satellite):
    """Ask as the page does; the words of the answer, and when it was there."""
    config = json.load(ask(f"{address}/config"))
    (event,) = [event["id"] for event in config["dependencies"] if event["api_name"] == "_locate"]
    photos = [path and {"path": path, "meta": {"_type": "gradio.FileData"}} for path in (panorama, satellite)]
    body = {"fn_index": event, "session_hash": session, "data": [*photos, "0", "0.11", "", "", "", 0.85, 0]}
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
    numbers = [k % len(index) for k in range(20)]
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
        assert times == sorted(times)
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
