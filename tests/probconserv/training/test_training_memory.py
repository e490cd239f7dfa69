"""Tests that a training process reuses the memory it frees."""

import platform
import subprocess
import sys

import pytest

_PAGES = """
import resource, sys
import torch
from probconserv.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(4):
    torch.zeros(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _pages(what: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PAGES, what], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves")
def test_arrays_of_a_step_do_not_ask_for_new_pages_again():
    assert _pages("keep") < 1000 < _pages("return")
