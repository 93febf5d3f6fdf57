import subprocess
import sys

CODE = """
import gc
from incasem.cli import main
try:
    main(["components", "-h"])
finally:
    print(*gc.get_threshold())
"""


def test_a_command_looks_for_garbage_less_often_than_python_would():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert int(done.stdout.splitlines()[-1].split()[0]) >= 10_000, done.stderr
