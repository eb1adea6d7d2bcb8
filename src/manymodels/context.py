"""What a plugin is told beside the data: the model, its settings, the request's headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from . import unpickling
from .policy import Policy

if TYPE_CHECKING:
    from pathlib import Path

    from .invocation import Invocation
    from .plugins import Bound


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's settings that plugins may read; the same for every model of a server."""

    #: Used when a request has no Accept, or ``*/*``.
    default_accept: str = "application/json"
    #: Threads one prediction may use.
    threads: int = 1
    #: File name of a model's own script.
    program: str = "inference.py"
    #: Folder or ``.tar.gz`` with one script shared by all models; None: each artifact's own.
    submit_directory: str | None = None
    #: True where requests name their model, False where the server holds a single one.
    multi_model: bool = True
    #: Whether answers go into the files of SageMaker's batch transform, where a row of ``text/csv`` is a line.
    batch_transform: bool = False
    #: Whether invocations of one model may be joined into one ``predict_fn`` call.
    batching: bool = True
    #: Whether a plugin's faster predictor may serve: ``on``, ``off``, or ``strict``, bit for bit as the original.
    accelerate: Literal["on", "off", "strict"] = "on"
    #: How far its values may be from the original's, relative to ``max(1, |value|)``.
    accelerate_tolerance: float = 1e-9
    #: What becomes of a model that fails the golden requests of its artifact: ``refuse`` it, or ``flag`` it; ``off``
    #: does not ask them.
    golden: Literal["refuse", "flag", "off"] = "refuse"
    #: What may be loaded; None: anything.
    policy: Policy | None = None


class Context:
    """The model and, during an invocation, the request it answers.

    The methods that take an index, and `system_properties`, are those of multi-model-server's
    context, so that scripts written for it work unchanged. One context belongs to one
    invocation; the index is accepted and not used.
    """

    def __init__(
        self,
        target_model: str,
        model_dir: str,
        *,
        settings: ModelSettings | None = None,
        options: Mapping[str, Any] | None = None,
        framework: Bound | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: str = "",
        accept: str = "",
    ) -> None:
        #: The client's name of the model.
        self.target_model = target_model
        #: Absolute path of the unpacked artifact.
        self.model_dir = model_dir
        self.settings = settings or ModelSettings()
        #: The ``settings`` of the artifact's manifest.
        self.options: Mapping[str, Any] = options or {}
        #: The framework plugin below a plugin that claimed the artifact's code, or None.
        self.framework = framework
        #: Request headers, names in lower case.
        self.headers: Mapping[str, str] = headers or {}
        self.request_id = request_id
        #: The Accept header, or the operator's default where it is absent or ``*/*``.
        self.accept = accept
        #: Reply headers set so far.
        self.response_headers: dict[str, str] = {}
        self.response_content_type: str | None = None
        self.response_status = 200
        #: What `note` was told; shown in the model's description and logged once.
        self.notes: list[str] = []
        #: The request as the client sent it; None while the model is loaded or unloaded.
        self.invocation: Invocation | None = None
        #: What plugins, wrappers above all, keep of this model while it is loaded, by the plugin's name: the same dict
        #: in ``load`` and in every request.
        self.state: dict[str, Any] = {}

    def note(self, text: str) -> None:
        """Say something of the model that its description should show, such as a version mismatch."""
        self.notes.append(text)

    def unpickle(self, path: Path, remedy: str = "install it") -> Any:
        """Return what a pickle or joblib file of the artifact holds, as far as the operator allows it to be opened.

        Several times as fast as ``joblib.load``.

        :param remedy: what to do if a module or class that it needs does not exist, for the message.
        :raises LoadFailed: with the file and what is wrong with it.
        :raises Exception: as unpickling may.
        """
        return unpickling.load(path, self.target_model, self.settings.policy, remedy)

    def for_request(self, invocation: Invocation, accept: str) -> Context:
        """Return a context of the same model for one invocation."""
        # Without __init__, whose checks of what is given take a microsecond of each invocation.
        context = Context.__new__(Context)
        context.target_model = self.target_model
        context.model_dir = self.model_dir
        context.settings = self.settings
        context.options = self.options
        context.framework = self.framework
        context.headers = invocation.headers
        context.request_id = invocation.request_id
        context.accept = accept
        context.response_headers = {}
        context.response_content_type = None
        context.response_status = 200
        context.notes = []
        context.invocation = invocation
        context.state = self.state
        return context

    @property
    def model_name(self) -> str:
        """The TargetModel, under multi-model-server's name for it."""
        return self.target_model

    @property
    def system_properties(self) -> dict[str, Any]:
        """`model_dir`, `gpu_id` (None) and `batch_size` (1)."""
        return {"model_dir": self.model_dir, "gpu_id": None, "batch_size": 1}

    def get_request_id(self, idx: int = 0) -> str:
        """Return the id that the reply carries as ``x-request-id``."""
        return self.request_id

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a request header, whatever the case of `key`."""
        return self.headers.get(key.lower())

    def get_all_request_header(self, idx: int = 0) -> dict[str, str]:
        """Return all request headers, names in lower case."""
        return dict(self.headers)

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a reply header; names that belong to HTTP itself, such as Content-Length, are dropped."""
        self.response_headers[key] = value

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the reply's Content-Type, over what ``output_fn`` returned."""
        self.response_content_type = value

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the reply's status.

        :raises ValueError: if it is not between 200 and 599.
        """
        if not 200 <= code <= 599:
            raise ValueError(f"a reply's status is between 200 and 599, not {code}")
        self.response_status = code
