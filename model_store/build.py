"""Train the sample models that are missing from this folder, or from the one that is named."""

from __future__ import annotations

import runpy
import sys
import tempfile
import time
from pathlib import Path

from manymodels.store import pack

HERE = Path(__file__).resolve().parent


def build(recipe: Path, store: Path) -> None:
    """Train one model, unless its artifact is there; it appears in the store at once and whole."""
    code = runpy.run_path(str(recipe))
    name: str = code["ARTIFACT"]
    output = store / name
    if output.exists():
        print(f"{recipe.stem} ... there already")
        return
    print(f"{recipe.stem} ... ", end="", flush=True)
    start = time.perf_counter()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix=".building-") as temp:
        folder = Path(temp, "model")
        folder.mkdir()
        code["train"](folder)
        if name.endswith(".tar.gz"):
            pack(folder, output)
        elif output.suffix:
            (folder / output.name).rename(output)
        else:
            folder.rename(output)
    print(f"trained in {time.perf_counter() - start:.1f} s -> {name}")


def main() -> None:
    """Follow every recipe."""
    store = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for recipe in sorted((HERE / "recipes").glob("*.py")):
        build(recipe, store)


if __name__ == "__main__":
    main()
