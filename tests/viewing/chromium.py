"""A headless Chromium, driven over its own debugging protocol: no driver program, no network."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "no Chromium in the PATH"
_START_S = 60


class Chromium:
    """One window."""

    def __init__(self, profile: Path, size=(1600, 1000)):
        self.profile, self.size, self.console = Path(profile), size, []

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._process = subprocess.Popen(
            [
                PROGRAM, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run",
                "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
                "--remote-debugging-address=127.0.0.1", "--remote-debugging-port=0",
                f"--window-size={self.size[0]},{self.size[1]}",
                f"--user-data-dir={self.profile}", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port_file = self.profile / "DevToolsActivePort"
        end = time.monotonic() + _START_S
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert time.monotonic() < end, "Chromium did not start"
            assert self._process.poll() is None, f"Chromium ended with {self._process.returncode}"
            time.sleep(0.1)
        self.port = int(port_file.read_text().split()[0])
        self._loop.run_until_complete(self._connect())
        self.call("Page.enable")
        self.call("Runtime.enable")
        width, height = self.size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._loop.close()
        self._process.terminate()
        self._process.wait(20)

    async def _connect(self):
        from tornado.websocket import websocket_connect

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/json/list", timeout=20) as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self._socket = await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=2**28)
        self._number = 0

    def call(self, method, timeout_s=60, **parameters):
        """The answer to one command."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), timeout_s))

    async def _call(self, method, parameters):
        self._number += 1
        await self._socket.write_message(
            json.dumps({"id": self._number, "method": method, "params": parameters})
        )
        while True:
            message = json.loads(await self._socket.read_message())
            if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                self.console.append(message["params"])
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self):
        """The whole window as PNG bytes."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
