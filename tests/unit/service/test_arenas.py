"""However many threads a server has, the C library keeps two heaps for them."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys

import pytest

from carbon_sched.service.arenas import ARENAS

THREADS = 6
PROGRAM = f"""
import ctypes, sys, threading
from carbon_sched.service.arenas import few_arenas

few_arenas()
libc = ctypes.CDLL(None)
for name in ("malloc", "fopen"):
    getattr(libc, name).restype = ctypes.c_void_p
ready = threading.Barrier({THREADS + 1})

def hold():
    libc.malloc(ctypes.c_size_t(100))
    ready.wait()
    ready.wait()

for _ in range({THREADS}):
    threading.Thread(target=hold, daemon=True).start()
ready.wait()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
ready.wait()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="not glibc")
@pytest.mark.parametrize(("environment", "heaps"), [({}, ARENAS), ({"MALLOC_ARENA_MAX": "3"}, 3)])
def test_heaps_are_few_and_as_many_as_the_environment_says(tmp_path, environment, heaps):
    inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    said = tmp_path / "malloc.xml"
    subprocess.run([sys.executable, "-c", PROGRAM, str(said)], check=True, env=inherited | environment)
    assert len(re.findall("<heap nr=", said.read_text())) == heaps
