"""Which file of an artifact is its model, and whether it is scikit-learn's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manymodels import Artifact

#: Packages whose own plugin loads what they pickle. Everything else is claimed: the outermost class
#: of a pickle that follows scikit-learn's conventions is as often imblearn's or a team's own as
#: scikit-learn's, and no list could name them.
_OTHER_FRAMEWORKS = {"catboost", "keras", "lightgbm", "mxnet", "tensorflow", "torch", "xgboost"}

#: The pickle of a Python function in MLflow's folders, whose ``predict`` is not scikit-learn's.
_MLFLOWS = "python_model.pkl"


def model_file(artifact: Artifact) -> str | None:
    """Return ``model.joblib``, else the only pickle at the top of the artifact, else None."""
    found = artifact.match("model.joblib") or artifact.match("*.joblib", "*.pkl", "*.pickle")
    if found == [_MLFLOWS]:
        return None
    return found[0] if len(found) == 1 else None


def is_ours(artifact: Artifact) -> bool:
    """Tell whether the artifact's model file is to be loaded by this plugin."""
    name = model_file(artifact)
    if name is None:
        return False
    root = artifact.pickle_root(name)
    if root is None:
        # Damaged, or compressed in a way the core does not read. The ending .joblib is used for nothing
        # else, so the file is claimed and loading it says what is wrong; .pkl may be anyone's.
        return name.endswith(".joblib")
    return root.partition(".")[0] not in _OTHER_FRAMEWORKS
