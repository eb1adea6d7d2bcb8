"""Write the reference pages from the code: ``python docs/generate.py``. A test fails where they differ."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from manymodels import errors, hookspecs
from manymodels.cli import COMMANDS, cli
from manymodels.cli import command as command_of
from manymodels.cli.options import display
from manymodels.errors import BY_NAME
from manymodels.metrics.exposition import DEFINITIONS
from manymodels.server.memory import RESERVE, SHARE
from manymodels.settings import Settings, variables
from manymodels.testing.suite import CHECKS

HERE = Path(__file__).parent
#: Columns of the help texts in cli.md.
WIDTH = 100

_TYPES = {int: "number", float: "number", bool: "on or off", ByteSize: "size", Path: "folder"}
#: Defaults that the machine decides.
_DEFAULTS = {
    "host": "`127.0.0.1`; `0.0.0.0` without a store",
    "workers": "one per processor",
    "memory": f"{SHARE:.0%} of the container's limit less {RESERVE >> 20} MiB, at least a quarter of it",
    "cache_dir": "a temporary one",
    "cache_size": "half of what the disk has for them",
    "start_method": "`fork` on Linux, elsewhere `spawn`",
}

_REMEDIES = {
    "ManyModelsError": "Never raised itself.",
    "SettingsError": "Correct the setting that the message names; `manymodels settings` shows where each comes from.",
    "PluginError": "Mend or uninstall the plugin, or leave it out with `--block-plugins NAME`.",
    "TrainingFailed": "Correct what the message names; `output/failure` has the details.",
    "RequestError": "Correct the request; sending it again changes nothing.",
    "BadTargetModel": "Send the artifact's path below the store, such as `team/model.tar.gz`.",
    "BadMember": "Correct the member that the message names, or leave it out.",
    "BadInput": "Correct the body; the message says what is wrong with it.",
    "UnsupportedContentType": "Send one of the types that the message lists.",
    "UnsupportedAccept": "Accept one of the types that the message lists.",
    "BodyTooLarge": "Send fewer rows at a time, or raise `max_body`.",
    "ModelNotFound": "Look for the name in `manymodels models`. In a container: load the model first.",
    "EndpointNotFound": "Look for it in the file of `endpoints`, or by `list_endpoints` where SageMaker is emulated.",
    "ModelAlreadyLoaded": "Nothing; the model can be invoked.",
    "LoadFailed": "Try `manymodels check ARTIFACT`, mend the artifact and put it into the store again.",
    "BadArtifact": "Pack it again with `manymodels package`, without links; or raise `max_members`, `max_unpacked`.",
    "NoPlugin": "Install the plugin of its framework, or name one in the artifact's `manymodels.json`.",
    "StoreDenied": "Allow what the message names to the server's credentials in the model store.",
    "StoreUnavailable": "Send it again; what is loaded is served meanwhile. If it stays so, look at the model store: "
    "the message names its address and its answer.",
    "NotTrusted": "Sign the artifact, or allow what the message names: see [trust](trust.md).",
    "NotListed": "Ask for models by their names; a store that is to be listed is a folder or a bucket.",
    "GoldenFailed": "See `manymodels check ARTIFACT`. If the new answers are right, record them: `manymodels package "
    "MODEL --golden golden.jsonl`.",
    "ModelRefused": "Mend the artifact: it ends its worker process. The message says for how long it is refused.",
    "OutOfMemory": "Send it again. If it stays so, raise `memory`, or make the model smaller.",
    "ModelNotReady": "Send it again; the model goes on loading meanwhile.",
    "Overloaded": "Send it again after a while; clients send faster than the model answers.",
    "InvocationTimeout": "Send fewer rows at a time, or raise `invocation_timeout`.",
    "WorkerDied": "Send it again. If it happens again, the model's native code crashes; the log has the signal.",
    "InternalFailure": "Look into the server's log, which has the traceback, and report it.",
    "PredictionFailed": "Look into the server's log, which has the traceback; mend the plugin or the script.",
}


def documents() -> dict[str, str]:
    """Return the content of every generated page by its file name."""
    pages: dict[str, Callable[[], Iterator[str]]] = {
        "hooks.md": _hooks,
        "settings.md": _settings,
        "errors.md": _errors,
        "cli.md": _cli,
        "metrics.md": _metrics,
        "conformance.md": _conformance,
    }
    note = "<!-- Written by docs/generate.py; change the code it is made from, then run that. -->\n\n"
    return {name: note + "\n".join(page()).rstrip() + "\n" for name, page in pages.items()}


# -- Hooks --


def _hooks() -> Iterator[str]:
    yield "# Hooks\n"
    yield _prose(inspect.getdoc(hookspecs) or "")
    yield "\nHow to write one: [writing-a-plugin.md](writing-a-plugin.md).\n"
    hooks = [value for value in vars(hookspecs).values() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    yield "| hook | |\n|---|---|"
    for hook in hooks:
        yield f"| [`{hook.__name__}`](#{hook.__name__}) | {_prose(inspect.getdoc(hook) or '').splitlines()[0]} |"
    for hook in hooks:
        signature = str(inspect.signature(hook)).replace("'", "")
        yield f"\n## {hook.__name__}\n\n```python\ndef {hook.__name__}{signature}: ...\n```\n"
        yield _fields(inspect.getdoc(hook) or "")


def _prose(text: str) -> str:
    """Return a docstring's text as Markdown."""
    return text.replace("``", "`")


def _fields(text: str) -> str:
    """Return a docstring as Markdown, its ``:param:`` fields as a list."""
    text = re.sub(r"^:param (\w+):", r"- `\1`:", _prose(text), flags=re.MULTILINE)
    text = re.sub(r"^:returns:", "- returns", text, flags=re.MULTILINE)
    text = re.sub(r"^:raises ([\w.]+):", r"- raises `\1`", text, flags=re.MULTILINE)
    return re.sub(r"^ {4}(?=\S)", "  ", text, flags=re.MULTILINE)


# -- Settings --


def _settings() -> Iterator[str]:
    yield """# Settings

A setting is a flag of `manymodels serve`, or an environment variable. A flag wins over the environment, and that
over the default. Where a setting has several variables, the first that is set wins. The names without `MANYMODELS_`
are those that SageMaker and its containers use. `manymodels settings` shows every value and where it came from.

A size is a number of bytes, or has a unit, such as `512MiB` or `2GiB`.
"""
    yield "| setting | flag | environment | type | default | meaning |\n|---|---|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            flag += f"`, `--no-{flag[2:]}"
        environment = ", ".join(f"`{variable}`" for variable in variables(name))
        cells = (f"`{name}`", f"`{flag}`", environment, _type(field), _default(name, field), field.description or "")
        yield f"| {' | '.join(cells)} |"


def _type(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "names"
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["metavar"]).lower()
    return next((text for known, text in _TYPES.items() if known in (kind, *get_args(kind))), "text")


def _default(name: str, field: FieldInfo) -> str:
    if name in _DEFAULTS:
        return _DEFAULTS[name]
    shown = display(field.default)
    return f"`{shown}`" if shown else ""


# -- Errors --


def _errors() -> Iterator[str]:
    yield """# Errors

Every error says in a sentence what is wrong and what to do. Tracebacks are in the server's log only.

The same error has a status in each of three dialects:

- `/models/...`, the container API that SageMaker itself calls: statuses and JSON of multi-model-server,
  `{"code": 404, "type": "ModelNotFoundException", "message": "..."}`.
- `/invocations`, for plain HTTP clients: the same JSON; `type` is the name of the error's class below.
- `/endpoints/...`, which boto3 calls: statuses and exceptions of the SageMaker runtime API. What a model does wrong is
  a 424 `ModelError` there, with the status from the model as `OriginalStatusCode`.

Every reply, of success too, has an `x-amzn-RequestId`; the log line of an error names it as `request_id`. A path that
does not exist is answered with 404, a method that it does not take with 405.

## The tree
"""
    tree = (errors.__doc__ or "").partition("::\n")[2]
    yield f"```text\n{inspect.cleandoc(tree)}\n```\n"
    yield "The classes are in `manymodels.errors`; plugins and scripts raise them to choose the answer.\n"
    yield "## Statuses\n"
    yield "| error | `/models/...` | `/invocations` | `/endpoints/...` | `Retry-After` |\n|---|---|---|---|---|"
    for name, error in BY_NAME.items():
        status, kind = error.aws
        aws = f"{status} {kind}"
        if kind == "ModelError":
            aws += f", original {error.status if error.original_status is None else error.original_status}"
        retry = "" if error.retry_after is None else f"{error.retry_after} s"
        yield f"| `{name}` | {error.status} | {error.invocations_status or error.status} | {aws} | {retry} |"
    yield """
`SettingsError` and `PluginError` end `manymodels serve` before it answers anything, `TrainingFailed` ends
`manymodels train`.
"""
    yield "## What to do\n"
    yield "| error | meaning | what to do |\n|---|---|---|"
    for name, error in BY_NAME.items():
        yield f"| `{name}` | {_prose(' '.join((error.__doc__ or '').split()))} | {_REMEDIES[name]} |"


# -- Metrics --


def _metrics() -> Iterator[str]:
    yield """# Metrics

`GET /metrics` answers Prometheus, in its text format or, where it asks for that, in OpenMetrics. Counts begin at the
start of the server. Times are in seconds, memory is in bytes.

```yaml
scrape_configs:
  - job_name: manymodels
    static_configs:
      - targets: ["localhost:8080"]
```
"""
    yield "| metric | type | labels | |\n|---|---|---|---|"
    for metric in DEFINITIONS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        kind = metric.kind.__name__.removesuffix("MetricFamily").lower()
        yield f"| `{metric.name}` | {kind} | {labels} | {metric.help} |"
    yield """
A histogram has `_bucket`, `_sum` and `_count`. The server's own process is described by the usual `process_...`
metrics. A request that no model was asked for, such as one whose body is too large, is in none of them.

## Models

Each model costs Prometheus some twenty series, so only the most active have their own: `metrics_models`, 50 unless
set. All others are counted as `model="other"`. A model keeps its series until another has twice its requests, and for
ten minutes at least. What it did before it had them stays in `other`, so no series ever decreases; those of a model
that comes back begin anew at zero. Take the rate of each series before the sum, as always:

```text
# invocations per second, of all models
sum(rate(manymodels_invocations_total[5m]))

# share of them that fail through no fault of the client, by model
sum by (model) (rate(manymodels_invocations_total{status="5xx"}[5m]))
  / sum by (model) (rate(manymodels_invocations_total[5m]))

# the slowest hundredth, of the ten models for which it is the slowest
topk(10, histogram_quantile(0.99, sum by (model, le) (rate(manymodels_invocation_seconds_bucket[5m]))))

# share of invocations that found their model loaded
rate(manymodels_cache_hits_total[5m])
  / (rate(manymodels_cache_hits_total[5m]) + rate(manymodels_cache_misses_total[5m]))

# too little memory: models that are evicted to make room come back again and again
rate(manymodels_evictions_total{reason="room"}[5m]) > 1
```

## CloudWatch

`--cloudwatch NAME` writes a line to standard output every minute, and one at the end, in CloudWatch's embedded metric
format. Where standard output goes to CloudWatch Logs, metrics come of it without anything else: in the namespace
`manymodels`, with the dimensions `EndpointName` (NAME) and `VariantName` (`AllTraffic`), under the names and units of
SageMaker's own, so that its dashboards and alarms need another namespace only. As in SageMaker there are none by model.

- `Invocations`, `Invocation4XXErrors`, `Invocation5XXErrors`, `InvocationModelErrors`: the sum is their number; the
  average of the last three is their share.
- `ModelLatency`: an invocation's time in the queue and in the prediction, in microseconds. `OverheadLatency`: the rest
  of its time, loading included.
- `ModelCacheHit`: the average is the share of invocations that found their model loaded.
- `ModelLoadingWaitTime`, `ModelDownloadingTime`, `ModelLoadingTime`, `ModelUnloadingTime`: in microseconds; the sample
  count is the number of waits, downloads, loads and unloads.
- `LoadedModelCount`: at the time of the line.

Sums and counts are exact. Percentiles are those of the middles of the buckets that `GET /metrics` has."""


# -- Conformance --


def _conformance() -> Iterator[str]:
    yield """# Conformance

What every plugin has to do, as checks that run on any plugin that is installed. They need a sample artifact with
requests and the right answers, which the plugin's hook [`sample_artifact`](hooks.md#sample_artifact) writes: in each
Content-Type that the plugin takes, and with answers that do not come from the plugin itself.

```bash
manymodels verify-plugin sklearn
```

prints a table of the checks. In the tests of a distribution, with `pip install manymodels[testing]`:

```python
from manymodels.testing import Check, conformance


@conformance("sklearn", known_failures={})
def test_conformance(check: Check) -> None:
    check()
```

Each check is a test of its own, such as `test_conformance[batch-equals-single]`. `known_failures` has the reasons of
those that are known to fail, by name; one that does not fail after all is an error.

Checks run as models do when they are served: in a fork of a process that has imported what `warm_up_imports` names. A
crash or a hang fails the check that it happens in.
"""
    for name, check in CHECKS.items():
        yield f"## {name}\n\n{_prose(inspect.getdoc(check) or '')}\n"


# -- Command line --


def _cli() -> Iterator[str]:
    yield """# Command line

`make install` puts `manymodels` into `.venv/bin`; `python -m manymodels` is the same. Plugins may add commands of their
own. Errors are one line on standard error; the exit code is 2 for what was asked wrongly, otherwise 1.
"""
    yield _help(cli, "manymodels")
    for name in COMMANDS:
        command = command_of(name)
        yield f"\n## {name}\n\n{_help(command, f'manymodels {name}')}"
        for part, below in sorted(command.commands.items()) if isinstance(command, click.Group) else ():
            yield f"\n### {name} {part}\n\n{_help(below, f'manymodels {name} {part}')}"


def _help(command: click.Command, path: str) -> str:
    # The help option's own names are set for the group, and inherited from its context.
    context: dict[str, Any] = {"info_name": path, "terminal_width": WIDTH, "help_option_names": ["-h", "--help"]}
    with click.Context(command, **context) as ctx:
        text = re.sub(r"[ \t]+$", "", command.get_help(ctx), flags=re.MULTILINE)
    return f"```text\n{text}\n```"


if __name__ == "__main__":
    for name, content in documents().items():
        (HERE / name).write_text(content)
