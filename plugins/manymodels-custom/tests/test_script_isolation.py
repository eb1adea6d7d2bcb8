"""Scripts of many models in one process: their modules never meet, and their errors end nothing."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import manymodels_custom
import pytest
from manymodels_custom.scope import Scope

from manymodels import Artifact, ModelSettings, Plugins, hookimpl
from manymodels.errors import BadInput, LoadFailed, OutOfMemory, PredictionFailed
from manymodels.invocation import Answer
from manymodels.model import Model

Ask = Callable[..., Answer]
Serve = Callable[..., Model]

MODEL_FN = "def model_fn(model_dir): return None\n"


def _predicts(expression: str) -> str:
    return f"{MODEL_FN}def predict_fn(data, model):\n    {expression}\n"


# Modules.


def test_equal_module_names_never_meet(serve: Serve, ask: Ask) -> None:
    script = "import utils, package.inner as inner\n" + _predicts(
        "import late; return [utils.NAME, inner.NAME, late.NAME]"
    )
    models = [
        serve(
            {
                "code/inference.py": script,
                "code/utils.py": f"NAME = {name!r}",
                "code/package/__init__.py": "",
                "code/package/inner.py": f"from utils import NAME\nNAME += {name!r}",
                "late.py": f"import package.inner\nNAME = package.inner.NAME + {name!r}",
            },
            name,
        )
        for name in ("a", "b")
    ]
    for _ in range(2):
        assert [json.loads(ask(model, b"[1]").body) for model in models] == [["a", "aa", "aaa"], ["b", "bb", "bbb"]]


def test_folders_without_init_never_meet(serve: Serve, ask: Ask) -> None:
    script = _predicts("import parts.one; return parts.one.NAME")
    models = [serve({"inference.py": script, "parts/one.py": f"NAME = {name!r}"}, name) for name in ("a", "b")]
    for _ in range(2):
        assert [ask(model, b"[1]").body for model in models] == [b'"a"', b'"b"']
    assert "parts" not in sys.modules
    assert "parts.one" not in sys.modules


def test_what_a_script_adds_to_sys_path_is_its_own(serve: Serve, ask: Ask) -> None:
    script = (
        "import os, pathlib, sys\n"
        "sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), 'lib'))\n"
        "sys.path = [*sys.path, 'more', pathlib.Path('unusable')]\n"
        "import first\n" + _predicts("import second; return [first.NAME, second.NAME]")
    )
    models = [
        serve(
            {"inference.py": script, "lib/first.py": f"NAME = {name!r}", "more/second.py": f"NAME = {name.upper()!r}"},
            name,
        )
        for name in ("a", "b")
    ]
    assert [json.loads(ask(model, b"[1]").body) for model in models] == [["a", "A"], ["b", "B"]]
    assert not {"first", "second"} & sys.modules.keys()


def test_a_model_behind_a_link_finds_itself_by_its_real_path(
    make: Any, plugins: Plugins, ask: Ask, tmp_path: Path
) -> None:
    script = "import os, sys\nsys.path.append(os.path.realpath('lib'))\n" + _predicts("import one; return one.NAME")
    make({"inference.py": script, "lib/one.py": "NAME = 1"})
    (tmp_path / "link").symlink_to(tmp_path / "model")
    artifact = Artifact(tmp_path / "link")
    model = Model(artifact, plugins.bind(artifact, ModelSettings()), plugins, ModelSettings())
    assert ask(model, b"[1]").body == b"1"
    assert "one" not in sys.modules


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a library with the top-level modules utils and utils.deep, and load it."""
    folder = tmp_path / "site-packages"
    (folder / "utils").mkdir(parents=True)
    (folder / "utils" / "__init__.py").write_text("NAME = 'library'")
    (folder / "utils" / "deep.py").write_text("NAME = 'library'")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.import_module("utils.deep")
    yield
    assert sys.modules.pop("utils").NAME == "library"
    assert sys.modules.pop("utils.deep").NAME == "library"


@pytest.mark.usefixtures("library")
def test_a_loaded_library_gives_way_within_the_model_alone(serve: Serve, ask: Ask) -> None:
    script = "import utils\n" + _predicts("import utils.deep; return [utils.NAME, utils.deep.NAME]")
    own = serve({"inference.py": script, "utils/__init__.py": "NAME = 1", "utils/deep.py": "NAME = 2"}, "own")
    other = serve({"inference.py": script}, "other")
    for _ in range(2):
        assert json.loads(ask(own, b"[1]").body) == [1, 2]
        assert json.loads(ask(other, b"[1]").body) == ["library", "library"]


@pytest.mark.usefixtures("library")
def test_a_library_that_is_not_loaded_gives_way_too(serve: Serve, ask: Ask) -> None:
    del sys.modules["utils"], sys.modules["utils.deep"]
    model = serve({"inference.py": _predicts("import utils; return utils.NAME"), "utils.py": "NAME = 1"})
    assert ask(model, b"[1]").body == b"1"
    importlib.import_module("utils.deep")


def test_the_standard_library_goes_before_the_artifact(serve: Serve, ask: Ask) -> None:
    # One that is loaded, and one that is not.
    sys.modules.pop("colorsys", None)
    files = dict.fromkeys(
        ("json.py", "colorsys.py", "code/json.py", "__main__.py"), "raise SystemExit('the wrong one')"
    )
    script = "import __main__, json\n"
    script += _predicts("import colorsys; return [id(json), colorsys.rgb_to_hsv(0, 0, 0)[0], id(__main__)]")
    answer = ask(serve({"inference.py": script, **files}), b"[1]")
    assert json.loads(answer.body) == [id(json), 0.0, id(sys.modules["__main__"])]


def test_an_artifacts_numpy_is_seen_by_nobody_else(serve: Serve, ask: Ask) -> None:
    wrong = serve({"inference.py": _predicts("import numpy; return numpy.NAME"), "numpy.py": "NAME = 'mine'"}, "wrong")
    right = serve({"inference.py": _predicts("import numpy; return numpy.ones(1)")}, "right")
    assert [ask(model, b"[1]").body for model in (wrong, right, wrong)] == [b'"mine"', b"[1.0]", b'"mine"']


def test_a_folder_named_like_a_framework_does_not_hide_it(serve: Serve, ask: Ask) -> None:
    script = _predicts("import numpy; return numpy.ones(1)")
    assert ask(serve({"inference.py": script, "numpy/notes.py": "", "numpy/model.bin": ""}), b"[1]").body == b"[1.0]"


def test_a_script_named_like_the_standard_library(serve: Serve) -> None:
    with pytest.raises(LoadFailed, match=r"^queue\.py cannot be imported, because 'queue' is the name of another"):
        serve({"queue.py": MODEL_FN}, program="queue")


@pytest.mark.parametrize("module", ["inference", "utils"])
def test_a_pickle_finds_the_artifacts_classes(module: str, serve: Serve, ask: Ask) -> None:
    stand_in = types.ModuleType(module)
    exec("class Scale:\n    pass", stand_in.__dict__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module, stand_in)
        scale = stand_in.Scale()
        scale.factor = 3
        pickled = pickle.dumps(scale)
    loads = """
import joblib, pickle
def model_fn(model_dir):
    with open("scale.pkl", "rb") as file:
        assert joblib.load("scale.pkl").factor == 3
        return pickle.load(file)
def predict_fn(data, model): return pickle.loads(pickle.dumps(model)).times(data)
"""
    times = "class Scale:\n    def times(self, data): return data * self.factor\n"
    files = {"code/inference.py": loads, "scale.pkl": pickled}
    files[f"code/{module}.py"] = str(files.get(f"code/{module}.py", "")) + times
    assert ask(serve(files), b"[1, 2]").body == b"[3,6]"


def test_the_framework_loads_and_predicts_within_the_scope(make: Any, ask: Ask) -> None:
    class Importing:
        @hookimpl
        def claim(self) -> str:
            return "importing"

        @hookimpl
        def load(self) -> Any:
            return importlib.import_module("utils")

        @hookimpl
        def predict_fn(self, data: Any, model: Any) -> Any:
            return [model.NAME, importlib.import_module("late").NAME]

    plugins = Plugins([("custom", manymodels_custom), ("importing", Importing())])
    artifact = make({"inference.py": "", "utils.py": "NAME = 1", "code/late.py": "NAME = 2"})
    model = Model(artifact, plugins.bind(artifact, ModelSettings()), plugins, ModelSettings())
    assert ask(model, b"[1]").body == b"[1,2]"


def test_dataclasses_and_inspect_find_their_module(serve: Serve, ask: Ask) -> None:
    script = """
from __future__ import annotations
import dataclasses, inspect, typing
@dataclasses.dataclass
class Row:
    kind: typing.ClassVar[str] = "row"
    values: list[int]
"""
    script += _predicts("return [list(typing.get_type_hints(Row)), Row([1]).values, inspect.getmodule(Row).__name__]")
    assert json.loads(ask(serve({"inference.py": script}), b"[1]").body) == [["kind", "values"], [1], "inference"]


def test_a_script_may_replace_and_delete_its_modules(serve: Serve, ask: Ask) -> None:
    script = "import importlib, sys, utils\n" + _predicts(
        "del sys.modules['utils']; import utils as again; importlib.reload(again); return again is not utils"
    )
    lazy = "import sys\nclass Lazy:\n    NAME = 1\nsys.modules[__name__] = Lazy()\n"
    model = serve({"inference.py": script + "import lazy\nassert lazy.NAME == 1", "utils.py": "", "lazy.py": lazy})
    assert ask(model, b"[1]").body == b"true"
    assert not {"lazy", "utils"} & sys.modules.keys()


def test_files_are_opened_relative_to_the_model(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    script = _predicts("import os; return [open('label.txt').read(), os.getcwd()]")
    script = script.replace("open('label.txt').read()", "pathlib.Path('label.txt').read_text()")
    models = [serve({"code/inference.py": "import pathlib\n" + script, "label.txt": name}, name) for name in "ab"]
    assert [json.loads(ask(model, b"[1]").body) for model in models] == [[n, str(tmp_path / n)] for n in "ab"]


def test_nothing_is_written_into_a_read_only_artifact(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    model = serve({"inference.py": "import utils\n" + _predicts("import late"), "utils.py": "", "code/late.py": ""})
    before = sorted(tmp_path.rglob("*"))
    ask(model, b"[1]")
    assert sorted(tmp_path.rglob("*")) == before


def test_unload_forgets_everything(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    model = serve({"inference.py": "import utils\n" + _predicts("return 1"), "utils.py": "class Big: pass"})
    ask(model, b"[1]")
    hooks: Any = model
    big = weakref.ref(hooks._model._scope._modules["utils"].Big)
    model.unload()
    del model, hooks
    gc.collect()
    assert big() is None
    assert not [path for path in sys.path_importer_cache if path.startswith(str(tmp_path))]


def test_a_model_reloaded_from_the_same_folder_is_new(serve: Serve, ask: Ask) -> None:
    for name in ("first", "second"):
        script = _predicts(f"import {name}; return {name}.NAME")
        model = serve({"inference.py": script, f"{name}.py": f"NAME = {name!r}"})
        assert json.loads(ask(model, b"[1]").body) == name
        model.unload()


def test_a_scope_restores_whatever_is_raised(tmp_path: Path) -> None:
    class Odd(BaseException):
        pass

    scope = Scope(str(tmp_path), [str(tmp_path)])
    before = (Path.cwd(), sys.path, list(sys.path), set(sys.modules))

    def wreck() -> None:
        with scope:
            sys.path.clear()
            os.chdir("/")
            raise Odd

    with pytest.raises(Odd):
        wreck()
    assert (Path.cwd(), sys.path, list(sys.path), set(sys.modules)) == before


def test_a_model_whose_folder_is_gone_fails_alone(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    model = serve({"inference.py": _predicts("return 1")})
    (tmp_path / "model").rename(tmp_path / "gone")
    with pytest.raises(PredictionFailed, match="FileNotFoundError"):
        ask(model, b"[1]")


# Errors.


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("\n\n1 / 0", r"code/inference.py, line 3: ZeroDivisionError: division by zero"),
        ("def model_fn(\n", r"code/inference.py, line 1: SyntaxError: '(' was never closed"),
        ("import utils", r"code/utils.py, line 2: ValueError: bad"),
        ("import broken", r"code/broken.py, line 2: IndentationError: unexpected indent"),
        ("import missing_one", r"code/inference.py, line 1: ModuleNotFoundError: No module named 'missing_one'"),
        ("import sys; sys.exit(3)", r"code/inference.py, line 1: SystemExit: 3"),
        ("def model_fn(model_dir):\n    raise KeyError('k')", r"code/inference.py, line 2: KeyError: 'k'"),
        ("import json\ndef model_fn(model_dir):\n    json.loads('{')", "code/inference.py, line 3: JSONDecodeError: "),
        (MODEL_FN + "predict_fn = 5", "'model': TypeError: 5 is not a callable object"),
    ],
)
def test_an_error_while_loading_names_its_place(script: str, message: str, serve: Serve, caplog: Any) -> None:
    files = {"code/utils.py": "\nraise ValueError('bad')", "code/broken.py": "a = 1\n  b = 2"}
    with pytest.raises(LoadFailed, match="^" + re.escape(message)):
        serve({"code/inference.py": script, **files})
    (record,) = caplog.records
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("raise ValueError('no')", PredictionFailed, "inference.py, line 3: ValueError: no"),
        ("raise ValueError", PredictionFailed, "inference.py, line 3: ValueError"),
        ("import sys; sys.exit()", PredictionFailed, "inference.py, line 3: SystemExit"),
        ("raise GeneratorExit('odd')", PredictionFailed, "inference.py, line 3: GeneratorExit: odd"),
        ("exec('(')", PredictionFailed, "inference.py, line 3: SyntaxError: '(' was never closed"),
        ("import utils; utils.fail()", PredictionFailed, "utils.py, line 2: ZeroDivisionError: division by zero"),
        ("raise BadInput('three columns')", BadInput, "three columns"),
        ("raise MemoryError", OutOfMemory, "memory ran out while 'model' answered"),
    ],
)
@pytest.mark.parametrize("function", ["input_fn(body, kind)", "predict_fn(data, model)", "output_fn(data, accept)"])
def test_an_error_while_answering_names_its_place(
    function: str, statement: str, error: type[Exception], message: str, serve: Serve, ask: Ask, caplog: Any
) -> None:
    script = f"from manymodels.errors import BadInput\ndef {function}:\n    {statement}\n{MODEL_FN}"
    if "predict_fn" not in function:
        script += "def predict_fn(data, model): return 1\n"
    model = serve({"inference.py": script, "utils.py": "def fail():\n    1 / 0"})
    for _ in range(2):
        with pytest.raises(error, match="^" + re.escape(message) + "$"):
            ask(model, b"[1]")
    assert len([record for record in caplog.records if record.exc_info]) == (2 if error is PredictionFailed else 0)


def test_an_interrupt_is_the_operators(serve: Serve, ask: Ask) -> None:
    model = serve({"inference.py": _predicts("raise KeyboardInterrupt")})
    with pytest.raises(KeyboardInterrupt):
        ask(model, b"[1]")


def test_a_failed_load_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed):
        serve({"inference.py": "import utils\n1 / 0", "utils.py": ""})
    assert not [path for path in sys.path_importer_cache if path.startswith(str(tmp_path))]
