"""A browser without a network, driven through its debugging pipe: what a page does when opened."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest


class Browser:
    """Chromium with one tab; `noises` is what pages have printed, raised or fetched."""

    def __init__(self, profile: Path) -> None:
        """Start it, with its files in `profile`."""
        program = shutil.which("chromium")
        if program is None:
            pytest.skip("needs chromium")
        there, self.out = os.pipe()
        self.back, here = os.pipe()
        flags = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}"),
        )
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{there} 4>&{here}', "bash", program, *flags],
            pass_fds=(there, here),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile)},
        )
        os.close(there)
        os.close(here)
        self.unread, self.sent, self.session = b"", 0, ""
        self.noises: list[str] = []
        self.loaded = 0
        try:
            self._attach()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.back)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its answer."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            received = os.read(self.back, 1 << 16)
            assert received, "the browser has ended"
            self.unread += received
        first, _, self.unread = self.unread.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        params, method = message.get("params", {}), message.get("method")
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.noises.append(json.dumps(params)[:500])
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.noises.append(f"fetches {url}")
        self.loaded += method == "Page.loadEventFired"
        return message

    def open(self, page: Path, *, width: int, scheme: str) -> None:
        """Open a page on a screen of that width, light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])
        before, end = self.loaded, time.monotonic() + 60
        self.send("Page.navigate", url=page.as_uri())
        while self.loaded == before:
            assert time.monotonic() < end
            self._read()

    def until(self, code: str) -> None:
        """Wait until an expression is true, for what the browser does a moment later."""
        end = time.monotonic() + 30
        while not self.run(code):
            assert time.monotonic() < end, code

    def run(self, code: str) -> Any:
        """Return the value of an expression of the page's language."""
        answer = self.send("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")
