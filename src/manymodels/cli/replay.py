"""The command that says what a policy would have done."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from pydantic import ByteSize, TypeAdapter, ValidationError

from ..endpoint import replay as replaying
from ..endpoint.eviction import POLICIES
from ..endpoint.replay import Replayed
from ..endpoint.trace import Trace
from .output import as_json_option, print_json, print_table


class _Memory(click.ParamType[tuple[str, int, float]]):
    """A size, or a share of what all models of the trace take together."""

    name = "size"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int, float]:
        """Return the text, and bytes, or else a share."""
        try:
            if value.endswith("%"):
                size, share = 0, float(value[:-1]) / 100
            else:
                size, share = int(TypeAdapter(ByteSize).validate_python(value)), 0.0
        except (ValueError, ValidationError):
            size, share = 0, 0.0
        if size <= 0 and not 0 < share <= 1:
            self.fail(f"{value!r} is neither a size, such as 2GiB, nor a share, such as 25%", param, ctx)
        return value, size, share


@click.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--policy", "policies", type=click.Choice(list(POLICIES)), multiple=True, help="Policies to compare.")
@click.option(
    "--memory",
    "memories",
    type=_Memory(),
    multiple=True,
    default=("10%", "25%", "50%"),
    show_default="10%, 25%, 50%",
    help="Memory for models, or a share of what all models of the trace take.",
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Models loaded at a time.")
@as_json_option
def replay(
    trace: Path, policies: tuple[str, ...], memories: tuple[tuple[str, int, float], ...], workers: int, *, as_json: bool
) -> None:
    """Compare what to evict, on the requests in the file TRACE.

    A server records one with --trace. It has a line for each invocation: the time in seconds, a tab
    and the TargetModel; where the model was loaded also the bytes it takes and the seconds its load took.
    """
    recorded = Trace.read(trace)
    total = sum(recorded.sizes)
    results = [
        (text, policy, replaying.replay(recorded, POLICIES[policy](), size or int(share * total), workers))
        for text, size, share in memories
        for policy in policies or POLICIES
    ]
    if as_json:
        print_json(
            [{"memory": text, "policy": policy, **msgspec.to_builtins(result)} for text, policy, result in results]
        )
        return
    columns = ("Memory", "Policy", "Hits", "Hits by bytes", "Loads", "Reloads, s", "Evictions", "Wait p99, ms")
    print_table(columns, [(text, policy, *_row(result)) for text, policy, result in results])
    click.echo(f"{len(recorded.times)} requests for {len(recorded.names)} models")
    if refused := max(result.refused for _, _, result in results):
        click.echo(f"up to {refused} requests were for models larger than the memory")


def _row(result: Replayed) -> tuple[str, ...]:
    return (
        f"{result.hits / max(result.requests, 1):.2%}",
        f"{result.hit_bytes / max(result.bytes, 1):.2%}",
        str(result.loads),
        f"{result.reload_seconds:.1f}",
        str(result.evictions),
        f"{result.wait_p99 * 1e3:.1f}",
    )
