"""A distribution with a plugin that does all that the conformance kit asks, and ways to break it."""

from __future__ import annotations

from pathlib import Path

METADATA = """\
Metadata-Version: 2.1
Name: manymodels-abacus
Version: 0.1
Summary: Linear models of whole numbers
Requires-Python: >=3.10
Requires-Dist: manymodels

# manymodels-abacus
"""

GOOD = """
import json
import numpy as np
from manymodels import Accelerated, Golden, RowBatch, hookimpl
from manymodels.codecs import decode, encode, features
from manymodels.errors import BadArtifact, BadInput

EVENTS = "text/event-stream"
STREAM = b"data: 5.0\\n\\ndata: 11.0\\n\\n"


@hookimpl
def claim(artifact):
    return "abacus" if len(artifact.match("*.abacus")) == 1 else None


@hookimpl
def load(artifact, context):
    import abacus_engine

    (name,) = artifact.match("*.abacus")
    return read(artifact.path / name)


def read(path):
    try:
        return np.array(json.loads(path.read_bytes())["weights"], float)
    except (KeyError, TypeError, ValueError) as error:
        raise BadArtifact(f"{path.name} holds no weights") from error


@hookimpl
def input_fn(body, content_type, model):
    try:
        rows = np.atleast_2d(np.asarray(features(decode(body, content_type)), float))
    except (TypeError, ValueError) as error:
        raise BadInput(f"send rows of numbers: {error}") from error
    return fit(rows, len(model))


def fit(rows, width):
    if rows.ndim != 2 or rows.shape[1] != width:
        raise BadInput(f"send rows of {width} numbers")
    return rows


@hookimpl
def predict_fn(data, model):
    return data @ model


@hookimpl
def output_fn(prediction, accept):
    return (events(prediction), accept) if accept == EVENTS else encode(prediction, accept)


def events(prediction):
    for value in prediction:
        yield f"data: {value}\\n\\n"


@hookimpl
def batch():
    return RowBatch()


@hookimpl
def accelerate(model):
    return Accelerated("dot", lambda data: np.dot(data, model), [np.ones((1, 2)), -np.ones((3, 2))])


@hookimpl
def warm_up_imports():
    return ["abacus_engine"]


@hookimpl
def sample_artifact(path):
    (path / "sum.abacus").write_text('{"weights": [1, 2]}')
    return [
        Golden(body=b"[[1, 2]]", answer=b"[5.0]"),
        Golden(body=b"1,2\\n3,4\\n", content_type="text/csv", answer=b"[5.0, 11.0]"),
        Golden(body=b"[[1, 2], [3, 4]]", accept=EVENTS, answer=STREAM, answer_content_type=EVENTS),
    ]

"""

#: What breaks a check when it stands behind the good plugin: the check, what it then says, the source.
BROKEN = [
    (
        "warms-up",
        "No module named 'abacus_missing'",
        """
@hookimpl
def warm_up_imports():
    return ['abacus_missing']
""",
    ),
    (
        "warms-up",
        "abacus_threads starts threads",
        """
@hookimpl
def warm_up_imports():
    return ['abacus_threads']
""",
    ),
    (
        "claims-its-own",
        "the sample is not claimed",
        """
@hookimpl
def claim(artifact):
    return None
""",
    ),
    (
        "claims-no-others",
        "an empty folder is claimed",
        """
@hookimpl
def claim(artifact):
    return 'abacus'
""",
    ),
    (
        "claims-no-others",
        "the sample of the plugin 'custom' is claimed",
        """
@hookimpl
def claim(artifact):
    return 'abacus' if 'code/inference.py' in artifact.files else None
""",
    ),
    (
        "claims-by-looking",
        "claiming imports abacus_engine",
        """
import abacus_engine
""",
    ),
    (
        "claims-by-looking",
        "executed what is in it",
        """
import pickle


@hookimpl
def claim(artifact):
    for name in artifact.files:
        try:
            pickle.loads((artifact.path / name).read_bytes())
        except Exception:
            pass
    return None
""",
    ),
    (
        "claims-by-looking",
        "claiming hostile files fails: .*Error",
        """
@hookimpl
def claim(artifact):
    for name in artifact.match('*.abacus'):
        json.loads((artifact.path / name).read_bytes())
""",
    ),
    (
        "loads",
        "AssertionError",
        """
held = []


@hookimpl
def load(artifact):
    assert not held
    held.append(1)
    return np.ones(2)
""",
    ),
    (
        "loads",
        "after another model was unloaded",
        """
@hookimpl
def unload(model):
    fit.__code__ = (lambda rows, width: rows * 2).__code__
""",
    ),
    (
        "starts-cold-in-time",
        "more than 0.50 s",
        """
import time


@hookimpl
def predict_fn(data, model):
    end = time.process_time() + 0.8
    while time.process_time() < end:
        pass
    return data @ model
""",
    ),
    (
        "starts-cold-in-time",
        "wait for",
        """
import time


@hookimpl
def predict_fn(data, model):
    time.sleep(6)
    return data @ model
""",
    ),
    (
        "answers-as-expected",
        "request 1",
        """
@hookimpl
def predict_fn(data, model):
    model += 1
    return data @ (model - 1)
""",
    ),
    (
        "answers-as-expected",
        "text/plain instead of",
        """
@hookimpl
def output_fn(prediction):
    return '[5.0]', 'text/plain'
""",
    ),
    (
        "batch-equals-single",
        "joined with",
        """
@hookimpl
def predict_fn(data, model):
    return data @ model + (len(data) > 2)
""",
    ),
    (
        "batch-equals-single",
        "joins no two",
        """
class Bad(RowBatch):
    def join(self, data):
        return None


@hookimpl
def batch():
    return Bad()
""",
    ),
    (
        "batch-equals-single",
        "into 1",
        """
class Bad(RowBatch):
    def split(self, prediction, counts):
        return [prediction]


@hookimpl
def batch():
    return Bad()
""",
    ),
    (
        "accelerate-agrees",
        "does not agree",
        """
@hookimpl
def accelerate(model):
    return Accelerated('dot', lambda data: np.abs(data) @ model, [np.ones((1, 2)), -np.ones((3, 2))])
""",
    ),
    (
        "accelerate-agrees",
        "does not agree",
        """
@hookimpl
def accelerate(model):
    return Accelerated('dot', lambda data: data.sum(axis=1) * 1.5, [np.ones((1, 2))])
""",
    ),
    (
        "accelerate-agrees",
        "without probes",
        """
@hookimpl
def accelerate(model):
    return Accelerated('dot', lambda data: data @ model, [])
""",
    ),
    (
        "streams-in-parts",
        "its whole answer at once",
        """
def events(prediction):
    yield b"".join(f"data: {value}\\n\\n".encode() for value in prediction)
""",
    ),
    (
        "streams-in-parts",
        "ends with RuntimeError: generator ignored GeneratorExit",
        """
def events(prediction):
    for value in prediction:
        try:
            yield f"data: {value}\\n\\n"
        except GeneratorExit:
            pass
""",
    ),
    (
        "streams-in-parts",
        "after streams that their clients left is answered with",
        """
def events(prediction):
    left = True
    try:
        for value in prediction:
            yield f"data: {value + offset[0]}\\n\\n"
        left = False
    finally:
        offset[0] += left


offset = [0.0]
""",
    ),
    (
        "streams-in-parts",
        "a stream for null in place of a number, sent as application/json, ends with PredictionFailed",
        """
def events(prediction):
    for value in prediction:
        yield f"data: {value}\\n\\n"
        int(value)
""",
    ),
    (
        "streams-in-parts",
        "ends with WorkerDied",
        """
import os


def events(prediction):
    for value in prediction:
        yield f"data: {value}\\n\\n"
        os._exit(1) if value != value else None
""",
    ),
    (
        "survives-bad-input",
        "PredictionFailed",
        """
@hookimpl
def input_fn(body, model):
    return np.array(json.loads(body), float)
""",
    ),
    (
        "survives-bad-input",
        "SIGABRT",
        """
import os


@hookimpl
def input_fn(body):
    os.abort() if not body else None
    return 1
""",
    ),
    (
        "survives-bad-input",
        "shows a path",
        """
@hookimpl
def input_fn(body, context):
    raise BadInput(context.model_dir)
""",
    ),
    (
        "refuses-other-widths",
        r"rows with a number too many \(application/json\)",
        """
def fit(rows, width):
    return rows[:, :width]
""",
    ),
    (
        "survives-damaged-artifacts",
        "SIGABRT.*loading with sum.abacus empty",
        """
import os
def read(path):
    try:
        return np.array(json.loads(path.read_bytes())['weights'], float)
    except Exception:
        os.abort()
""",
    ),
    (
        "survives-damaged-artifacts",
        "shows a path",
        """
def read(path):
    try:
        return np.array(json.loads(path.read_bytes())['weights'], float)
    except Exception:
        raise BadArtifact(str(path))
""",
    ),
    (
        "refuses-pickles",
        "was executed",
        """
import pickle
def read(path):
    try:
        return pickle.loads(path.read_bytes())
    except Exception:
        raise BadArtifact('no pickle')
""",
    ),
    (
        "uses-one-thread",
        "were started",
        """
import threading


@hookimpl
def predict_fn(data, model):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return data @ model
""",
    ),
    (
        "leaves-the-process-alone",
        "loading changes the environment",
        """
import os
def read(path):
    os.environ['ABACUS'] = 'on'
    return np.array([1.0, 2.0])
""",
    ),
    (
        "leaves-the-process-alone",
        "predicting changes the state of numpy",
        """
@hookimpl
def predict_fn(data, model):
    np.random.seed(0)
    return data @ model
""",
    ),
    (
        "leaves-the-process-alone",
        "unloading changes sys.path",
        """
import sys


@hookimpl
def unload(model):
    sys.path.append('x')
""",
    ),
    (
        "is-thread-safe",
        "is answered with",
        """
import time


@hookimpl
def predict_fn(data, model):
    global shared
    shared = data
    time.sleep(0.001)
    return shared @ model
""",
    ),
    (
        "is-fork-safe",
        "loaded before the fork",
        """
import os


@hookimpl
def load(artifact):
    return np.array([1, 2, os.getpid()])


@hookimpl
def input_fn(body, content_type, model):
    return np.atleast_2d(decode(body, content_type))


@hookimpl
def predict_fn(data, model):
    return data @ model[:2] + float(model[2] != os.getpid())
""",
    ),
    (
        "leaks-nothing",
        "bytes behind",
        """
kept = []
def read(path):
    kept.append(bytes(1000))
    return np.array([1.0, 2.0])
""",
    ),
    (
        "leaks-nothing",
        "behind",
        """
kept = []
def read(path):
    kept.append(path.open())
    return np.array([1.0, 2.0])
""",
    ),
    (
        "leaks-nothing",
        "of pages behind",
        """
import mmap
kept = []
def read(path):
    kept.append(mmap.mmap(-1, 40960, flags=mmap.MAP_PRIVATE))
    kept[-1].write(bytes(40960))
    return np.array([1.0, 2.0])
""",
    ),
    (
        "unload-frees-memory",
        "stay when they go",
        """
kept = {}


@hookimpl
def load(artifact):
    model = kept[len(kept) % 64] = np.ones(2000)[:2]
    return model
""",
    ),
    (
        "answers-on-every-backend",
        "request 0 to",
        """
import sys


@hookimpl
def predict_fn(data, model):
    return data @ model + ('manymodels.testing' not in sys.modules)
""",
    ),
    (
        "answers-over-http",
        "over HTTP",
        """
@hookimpl
def predict_fn(data, model, context):
    return data @ model + len(context.headers)
""",
    ),
]


def write(folder: Path, more: str = "", metadata: str = METADATA) -> None:
    """Write the distribution as if it was installed in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "abacus.py").write_text(f"{GOOD}\n{more}\n")
    (folder / "abacus_engine.py").touch()
    (folder / "abacus_threads.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    information = folder / "manymodels_abacus-0.1.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text(metadata)
    (information / "entry_points.txt").write_text("[manymodels]\nabacus = abacus\n")
