"""Headless Chromium through its own driver: Debian's packages chromium and chromium-driver, and no library."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers.commands import free_ports

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """One session of the WebDriver protocol."""

    def __init__(self, session: str) -> None:
        self.session = session

    def call(self, command: str, **parameters: Any) -> Any:
        return _post(f"{self.session}/{command}", parameters)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools protocol."""
        return self.call("goog/cdp/execute", cmd=command, params=parameters)

    def run(self, script: str) -> Any:
        """The value that JavaScript returns in the page."""
        return self.call("execute/sync", script=script, args=[])

    def open(self, path: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Show a local file as on a screen of this width, in the light or dark scheme."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("url", url=path.as_uri())

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """What came into a log since it was last read."""
        return list(self.call("se/log", type=kind))

    def requests(self) -> list[str]:
        """The addresses that pages asked for since this was last asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.logged("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path, **clip: float) -> None:
        """A picture of the whole page, or of a part of it (x, y, width, height)."""
        options = {"clip": {**clip, "scale": 1}} if clip else {}
        shown = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, **options)
        path.write_bytes(base64.b64decode(shown["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that is closed in the end; its profile and log lie in `folder`."""
    (port,) = free_ports(25000, 1)
    options = {
        "binary": CHROMIUM,
        "args": ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"],
    }
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    with (folder / "driver.log").open("w") as log:
        driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address)
        made = _post(f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        opened = Browser(f"{address}/session/{made['sessionId']}")
        opened.call("url", url="about:blank")
        opened.logged("performance")  # what the browser's own first page asked for
        yield opened
        urllib.request.urlopen(urllib.request.Request(opened.session, method="DELETE"), timeout=30).close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def _post(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(error.read().decode()[:2000]) from error


def _wait_for(address: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/status", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {address}")
