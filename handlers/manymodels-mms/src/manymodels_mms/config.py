"""Settings to what multi-model-server reads: its properties, its logging, its command line.

Facts of multi-model-server 1.1.11: ``ConfigManager.java`` for the properties and their defaults,
``mms/model_server.py`` for the command line.
"""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

from manymodels.settings import Settings

from .settings import MmsSettings

#: Called in a model process; a function, since failures of a class's ``initialize`` are swallowed.
HANDLER = "manymodels_mms.service:handle"
#: Bytes by which a body of joined invocations may exceed the largest body of one.
ENVELOPE = 1 << 20
#: Largest answer, in bytes. There is a limit only because there has to be.
_RESPONSE = 1 << 30
#: Seconds by which multi-model-server's timeout is longer than ours, which is to be the one that counts.
_LATER = 60
#: Seconds between the collections of host metrics; the longest there is, since nobody reads them.
_NEVER = (1 << 31) - 1

#: Between the fields of a line of the log: the level (Python's number), the thread, the message.
FIELD = "\x1f"


def properties(settings: Settings, socket: Path, store: Path) -> str:
    """Return the properties file.

    :param socket: the Unix socket to listen on. A port could be taken, and be reached by others on the host.
    :param store: the folder with the models' descriptions.
    """
    longest = max(settings.invocation_timeout, settings.load_timeout)
    entries = {
        "inference_address": f"unix:{socket}",
        "management_address": f"unix:{socket}",
        "model_store": str(store),
        "load_models": "",
        "default_service_handler": HANDLER,
        "default_workers_per_model": "1",
        # default_response_timeout counts minutes.
        "default_response_timeout_seconds": str(math.ceil(longest) + _LATER),
        "job_queue_size": str(settings.queue_size),
        "max_request_size": str(int(settings.max_body) + ENVELOPE),
        "max_response_size": str(_RESPONSE),
        "decode_input_request": "false",
        "preload_model": "false",
        # Each is held up while it loads or unloads a model.
        "number_of_netty_threads": "8",
        "netty_client_threads": "2",
        "metric_time_interval": str(_NEVER),
    }
    return _properties(entries)


def logging() -> str:
    """Return the Log4j configuration: what is worth reading goes to standard output, a record a line.

    WorkerLifeCycle passes on what model processes print. The rest of multi-model-server is quiet but for
    errors: it takes every process that is ended for a failure, and why one ended is logged by us.
    """
    fields = ["%level{TRACE=5, DEBUG=10, INFO=20, WARN=30, ERROR=40, FATAL=50}", "%t", "%enc{%m %ex{1}}{CRLF}%n"]
    levels = {
        "com.amazonaws.ml.mms.wlm.WorkerLifeCycle": "info",
        "com.amazonaws.ml.mms.wlm": "fatal",
        "com.amazonaws.ml.mms.metrics": "off",
        "ACCESS_LOG": "off",
        "MMS_METRICS": "off",
        "MODEL_METRICS": "off",
    }
    entries = {
        "appender.out.type": "Console",
        "appender.out.name": "out",
        "appender.out.layout.type": "PatternLayout",
        "appender.out.layout.charset": "UTF-8",
        "appender.out.layout.alwaysWriteExceptions": "false",
        "appender.out.layout.pattern": "".join(FIELD + field for field in fields),
        "rootLogger.level": "error",
        "rootLogger.appenderRef.out.ref": "out",
    }
    for name, level in levels.items():
        entries[f"logger.{name.replace('.', '_')}.name"] = name
        entries[f"logger.{name.replace('.', '_')}.level"] = level
    return _properties(entries)


def _properties(entries: dict[str, str]) -> str:
    return "".join(f"{name}={_escape(value)}\n" for name, value in entries.items())


def _escape(value: str) -> str:
    """Return a value as a properties file has it: ASCII, with the backslash as escape."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)


def command(java: Path, mms: MmsSettings, folder: Path, frontend: Path) -> list[str]:
    """Return the command that starts the Java process.

    :param folder: holds ``mms.properties`` and ``log4j2.properties``, and takes its sockets and FIFOs.
    :param frontend: the folder of multi-model-server's jar.
    """
    return [
        str(java),
        *shlex.split(mms.vmargs),
        f"-Djava.io.tmpdir={folder}",
        f"-Dlog4j2.configurationFile=file://{folder}/log4j2.properties",
        "-Dlog4j2.disableJmx=true",
        "-cp",
        f"{frontend}/*",
        "com.amazonaws.ml.mms.ModelServer",
        "--python",
        sys.executable,
        "--mms-config",
        str(folder / "mms.properties"),
    ]
