"""Showing a scene: the server on this machine, and waiting until the user has seen enough."""

import logging
import os
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from urllib.parse import urlsplit

import neuroglancer

from incasem.errors import ConfigError, explain
from incasem.viewing.scene import Scene

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
"""The only one that is bound: whoever reaches the server sees the data."""


@contextmanager
def served(scene: Scene, port: int = 0) -> Iterator[neuroglancer.Viewer]:
    """Serve a scene while the context lasts.

    Args:
        scene: what to show.
        port: on 127.0.0.1; 0 takes a free one.

    Raises:
        ConfigError: the port is taken.
    """
    neuroglancer.set_server_bind_address(ADDRESS, bind_port=port)
    try:
        # Nobody who has the address gets this user's cloud credentials.
        viewer = neuroglancer.Viewer(allow_credentials=False)
    except OSError as error:
        raise ConfigError(
            explain("--port", port, "a free port, or 0 for any", f"Choose another one ({error.strerror})")
        ) from error
    try:
        viewer.set_state(scene.state())
        yield viewer
    finally:
        neuroglancer.stop()


def show(
    scene: Scene,
    *,
    tell: Callable[[str], None],
    browser: bool = True,
    keep_serving: bool = False,
    port: int = 0,
) -> None:
    """Serve a scene, say where, open a browser, and return when the user ends it: Enter or Ctrl-C.

    Args:
        scene: what to show.
        tell: takes the lines for the terminal.
        browser: open one, if this machine has a screen.
        keep_serving: for use from elsewhere: no browser, until Ctrl-C, and how to reach the server is said.
        port: on 127.0.0.1; 0 takes a free one.

    Raises:
        ConfigError: the port is taken.
    """
    with served(scene, port) as viewer, suppress(KeyboardInterrupt):
        url = viewer.get_viewer_url()
        for line in (*(layer.describe() for layer in scene.layers), *scene.annotations):
            tell(f"  {line}")
        tell(url)
        if keep_serving:
            tunnel = f"{urlsplit(url).port}:{ADDRESS}:{urlsplit(url).port}"
            tell("Only this machine can reach it. To open it on another one, run there:")
            tell(f"  ssh -C -N -L {tunnel} {os.uname().nodename}")
        elif browser and _has_screen():
            webbrowser.open_new_tab(url)
        interactive = not keep_serving and sys.stdin is not None and sys.stdin.isatty()
        tell("Press Enter to end." if interactive else "Ctrl-C ends it.")
        _wait(interactive)
    tell("closed")


def _wait(interactive: bool) -> None:
    if interactive:
        sys.stdin.readline()
    else:
        Event().wait()


def _has_screen() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
