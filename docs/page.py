"""Take page.jpg of docs/: the page as it opens, in Debian's Chromium. It needs requirements/develop.txt.

    python -m docs.page
    python -m docs.page --width 390 --scheme dark --output_dir /tmp
"""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

from common import flags
from common.errors import UserError
from common.settings import COUNT

PROJECT = Path(__file__).resolve().parents[1]
_HEIGHT_PX = 1180
_READY = "document.querySelector('#scene .map')?.parentElement.scene?.scale > 0"


def take(width, scheme):
    """The page as it opens, `width` CSS pixels wide, in a colour scheme, as bytes of a JPEG."""
    from playwright.sync_api import sync_playwright  # a package of development alone

    if (chromium := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        raise UserError("no Chromium here; apt-get install chromium")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app_VIGOR.py", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as server:
        try:
            if not any("The page is at" in line for line in server.stdout):
                raise UserError("app_VIGOR.py ended before the page was there")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                size = {"width": width, "height": _HEIGHT_PX}
                page = browser.new_page(viewport=size, color_scheme=scheme)
                page.set_default_timeout(300_000)
                page.goto(f"http://127.0.0.1:{port}")
                page.wait_for_function(_READY)
                page.wait_for_timeout(1000)  # what is drawn once images are decoded
                picture = page.screenshot(type="jpeg", quality=82)
                browser.close()
                return picture
        finally:
            server.terminate()


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    parser.add_argument("--width", type=COUNT, default=1400, metavar="PX", help="of the window")
    schemes = {"choices": ("light", "dark"), "default": "light"}
    parser.add_argument("--scheme", **schemes, help="colours that the browser asks for")
    parser.add_argument("--output_dir", default="docs", metavar="DIR", help="folder of the picture")
    return parser


def main(args):
    """Run the command."""
    path = Path(args.output_dir, "page.jpg")
    path.write_bytes(take(args.width, args.scheme))
    print(f"the page is in {path}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
