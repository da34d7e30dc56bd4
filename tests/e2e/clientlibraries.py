"""The official client libraries, unpacked once where pods can read them.

`build/clients` is a folder for `PYTHONPATH`; pods get it as a hostPath volume. Without a package index the tests that
need it are skipped (in CI they fail: there, nothing would be tested).
"""

import os
import shutil
import subprocess
import sys

import pytest

from tests.e2e.kubectl import ROOT

CLIENTS = ROOT / "build" / "clients" / f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = ("kubernetes", "kubernetes_asyncio")


def client_libraries() -> str:
    """The folder. Skips the test if it cannot be filled."""
    if all((CLIENTS / package / "__init__.py").exists() for package in PACKAGES):
        return str(CLIENTS)
    fresh = CLIENTS.with_name(f"{CLIENTS.name}.{os.getpid()}")
    answer = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                             "--target", str(fresh), *PACKAGES], capture_output=True, text=True, timeout=300)
    if answer.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        why = f"the client libraries cannot be installed: {answer.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    shutil.rmtree(CLIENTS, ignore_errors=True)
    fresh.rename(CLIENTS)
    return str(CLIENTS)
