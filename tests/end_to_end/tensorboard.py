"""TensorBoard, opened as a guide prints it."""

import json
import socket
import subprocess
import time
import urllib.request


def observe(terminal, command, expected):
    """Open TensorBoard as printed, but on a port of its own, and find a run in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = f"{command} --host 127.0.0.1 --port {port}"
    with subprocess.Popen(
        ["bash", "-c", f"exec {line}"], env=terminal.shell.environment(), stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert expected in wait_for_runs(f"http://127.0.0.1:{port}/data/runs", expected)
        finally:
            process.terminate()


def wait_for_runs(url, expected):
    found: list[str] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and expected not in found:
        time.sleep(0.5)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)
        except OSError:
            continue
    return found
