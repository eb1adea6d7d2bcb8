"""The heap that workers share has no holes that they would copy its pages for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from manymodels.server.memory import mallinfo2

HOLES = """
from manymodels.server import heap
from manymodels.server.memory import mallinfo2

def holes():
    info = mallinfo2()
    return info.fordblks - info.keepcost

kept = [bytearray(600 + number % 3000) for number in range(6000)]
del kept[::2]
before = holes()
heap.fill()
print(before, holes())
del kept
print(len(bytearray(10_000_000)), holes() > 1 << 20)
"""


@pytest.mark.skipif(mallinfo2 is None, reason="glibc is not what allocates here")
def test_holes_are_filled_and_the_heap_can_be_used_on() -> None:
    ran = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=120)
    before, after, *rest = ran.stdout.split()
    assert int(before) > 1 << 20
    assert int(after) < 1 << 16
    assert rest == ["10000000", "True"]
