"""Give each script modules of its own, in a process that runs the scripts of many models."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import all_suffixes
from pathlib import Path
from types import ModuleType

_LIBRARY = str(Path(os.__file__).parent)


class Scope:
    """What a model's code sees while it runs; a context manager, entered for each call.

    Inside, the modules in the artifact's folders have their plain names (``import utils``, and a
    pickle's ``utils.Scaler``, find the artifact's own), the working directory is the model's, and
    no bytecode is written. Afterwards the process is as it was: those modules are taken out of
    ``sys.modules`` and kept for the next call, so two models' ``utils`` never meet.

    A module or package of the artifact goes before an installed one of the same name, loaded or
    not, but never before the standard library, which too many others share. One thread at a time.
    """

    def __init__(self, model_dir: str, folders: Sequence[str]) -> None:
        """Prepare the scope.

        :param model_dir: the working directory; modules below it are the model's own.
        :param folders: where plain names are looked up, first one first; modules below them are
            the model's own, too.
        """
        self._directory = model_dir
        self._roots = _roots([model_dir, *folders])
        self._names = {name for folder in folders for name in _top_level(folder)}
        self._names -= {"__main__", *sys.stdlib_module_names}
        self._modules: dict[str, ModuleType] = {}
        self._hidden: dict[str, ModuleType] = {}
        # "" would be the model's folder while the scope is entered, ahead of the standard library.
        library = [entry for entry in sys.path if entry in (_LIBRARY, os.path.join(_LIBRARY, "lib-dynload"))]
        rest = [entry for entry in sys.path if entry and entry not in library]
        self._path = [*library, *folders, *rest]

    def __enter__(self) -> None:
        directory = os.getcwd()  # noqa: PTH109 - several times faster
        os.chdir(self._directory)
        self._outside = (directory, sys.path, sys.dont_write_bytecode)
        sys.path = self._path
        sys.dont_write_bytecode = True
        modules = sys.modules
        if not modules.keys().isdisjoint(self._names):
            self._hidden = {name: modules.pop(name) for name in list(modules) if self._is_own_name(name)}
        modules.update(self._modules)
        self._before = (len(modules), next(reversed(modules)))

    def __exit__(self, *_: object) -> None:
        modules = sys.modules
        own = list(self._modules)
        if self._before != (len(modules), next(reversed(modules))):
            own = [
                name for name, module in list(modules.items()) if name in self._modules or self._is_own(name, module)
            ]
        # Read anew each time: a script may replace or delete its own entries.
        self._modules = {name: modules.pop(name) for name in own if name in modules}
        if self._hidden:
            modules.update(self._hidden)
            self._hidden = {}
        # What the script did to sys.path is its own, and stays for its next call.
        self._path = sys.path
        directory, sys.path, sys.dont_write_bytecode = self._outside
        os.chdir(directory)
        # Importers of relative entries are cached by their name, which is another folder's elsewhere.
        for entry in self._path:
            if isinstance(entry, str) and not entry.startswith("/"):
                sys.path_importer_cache.pop(entry, None)

    def relative(self, filename: str) -> str | None:
        """Return the file's name relative to the artifact; None for a file that is not the model's."""
        for root in self._roots:
            if filename.startswith(root):
                return filename[len(root) :]
        return None

    def close(self) -> None:
        """Drop the script's modules, and what the import system remembers of the folders."""
        for module in self._modules.values():
            # Its functions and it refer to each other, which otherwise only the garbage collector resolves.
            if isinstance(module, ModuleType):
                vars(module).clear()
        self._modules = {}
        for entry in list(sys.path_importer_cache):
            if self.relative(entry + os.sep) is not None:
                del sys.path_importer_cache[entry]

    def _is_own_name(self, name: str) -> bool:
        return name.partition(".")[0] in self._names

    def _is_own(self, name: str, module: object) -> bool:
        if self._is_own_name(name):
            return True
        # Not getattr: lazy modules of some libraries import when asked for an attribute.
        attributes = getattr(module, "__dict__", {})
        file = attributes.get("__file__")
        places = [file] if file else list(attributes.get("__path__") or ())
        return any(isinstance(place, str) and self.relative(place + os.sep) is not None for place in places)


def _roots(folders: Sequence[str]) -> list[str]:
    # A script may find its own folder by realpath or getcwd, where links are resolved.
    paths = [path for folder in folders for path in (folder, os.path.realpath(folder))]
    return [path.rstrip(os.sep) + os.sep for path in dict.fromkeys(paths)]


def _top_level(folder: str) -> Iterable[str]:
    """Yield the names of the modules and packages in a folder.

    Folders without ``__init__.py`` are left out: as everywhere in Python, they give way to an
    installed package of their name, such as ``sklearn/``.
    """
    suffixes = tuple(all_suffixes())
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffixes) or Path(entry.path, "__init__.py").is_file():
                yield entry.name.partition(".")[0]
