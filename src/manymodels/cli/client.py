"""Commands that ask a running server."""

from __future__ import annotations

import importlib
import itertools
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click
import httpx
import orjson

from ..sagemaker import ERROR_TYPE, TARGET_MODEL
from .output import as_json_option, print_json, print_table, size
from .samples import guess_content_type

#: Seconds to wait for an answer: a model may have to be loaded first.
TIMEOUT = 600.0
#: Characters of an answer that is no error of ours, shown as the message.
SHOWN = 500

url_option = click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Address of the server.")


@click.command()
@click.argument("target_model")
@click.argument("data", required=False)
@url_option
@click.option("--content-type", metavar="TYPE", help="Type of DATA; guessed from the file's ending or its text.")
@click.option("--accept", metavar="TYPE", help="Type of the answer.")
def invoke(target_model: str, data: str | None, url: str, content_type: str | None, accept: str | None) -> None:
    """Ask a model of a running server.

    TARGET_MODEL is its path in the model store. DATA is the request itself, @FILE, or - for
    standard input, which is read as well where DATA is left out.
    """
    body, name = _body(data)
    headers = {
        TARGET_MODEL.encode(): target_model.encode("utf-8", "surrogateescape"),
        b"content-type": (content_type or guess_content_type(body, name)).encode(),
    }
    if accept is not None:
        headers[b"accept"] = accept.encode()
    answer = _ask(url, "POST", "/invocations", headers=headers, content=body)
    if sys.stdout.isatty() and answer.headers.get("content-type", "").startswith("application/json"):
        print_json(answer.json())
    else:
        click.echo(answer.content, nl=sys.stdout.isatty())


def _body(data: str | None) -> tuple[bytes, str]:
    """Return the request's body, and the name of the file it was read from."""
    if data in (None, "-"):
        if sys.stdin.isatty():
            click.echo("reading the request from the terminal; end it with Ctrl-D", err=True)
        return sys.stdin.buffer.read(), ""
    assert data is not None
    if not data.startswith("@"):
        return data.encode("utf-8", "surrogateescape"), ""
    try:
        return Path(data[1:]).read_bytes(), data[1:]
    except OSError as error:
        raise click.ClickException(f"{data[1:]!r} cannot be read: {error.strerror}") from error


@click.command()
@click.argument("target_model", required=False)
@url_option
@as_json_option
def models(target_model: str | None, url: str, *, as_json: bool) -> None:
    """Show which artifacts a running server has loaded.

    With TARGET_MODEL, show what is known of that one, which has to be loaded.
    """
    if target_model is not None:
        path = f"/models/{quote(target_model, errors='surrogateescape')}"
        _show(_content(_ask(url, "GET", path), url + path, "modelName"), as_json=as_json)
        return
    loaded: dict[str, dict[str, Any]] = {}
    cache = None
    for page in pages(url, "/models", "models"):
        loaded |= {model["modelName"]: model for model in page["models"]}
        cache = page.get("diskCache")
    names = list(_items(url, "/artifacts", "artifacts"))
    names += sorted(loaded.keys() - set(names))  # loaded, and gone from the store since
    if as_json:
        print_json([{"artifact": name, "loaded": loaded.get(name)} for name in names])
        return
    rows = [(name, *_described(loaded.get(name))) for name in names]
    print_table(("Artifact", "Plugin", "Memory", "Load", "Notes"), rows)
    click.echo(f"{len(names)} artifact{'' if len(names) == 1 else 's'}, {len(loaded)} loaded")
    if cache is not None:
        click.echo(f"disk cache: {size(cache['bytes'])} of {size(cache['budget'])}")


@click.command()
@url_option
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@as_json_option
def evictions(url: str, limit: int, *, as_json: bool) -> None:
    """Show which models left a running server, the newest first.

    Why each left, what it took and what loading it again costs; how often it was asked for, and
    for how long it was not before it left.
    """
    left = list(itertools.islice(_items(url, "/evictions", "evictions"), limit))
    if as_json:
        print_json(left)
        return
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(eviction["time"])),
            eviction["modelName"],
            eviction["reason"],
            size(eviction["bytes"]),
            f"{eviction['loadSeconds'] * 1e3:.0f} ms",
            str(eviction["uses"]),
            f"{eviction['idleSeconds']:.1f} s",
        )
        for eviction in left
    ]
    print_table(("Left", "Artifact", "Reason", "Memory", "Load", "Uses", "Idle"), rows)


def _show(model: dict[str, Any], *, as_json: bool) -> None:
    """Print one model; of what it takes and gives a column a line."""
    if as_json:
        print_json(model)
        return
    name, schema = model.pop("modelName"), model.pop("schema", {})
    rows = [(what, value if isinstance(value, str) else orjson.dumps(value).decode()) for what, value in model.items()]
    rows += [(what, _field(field)) for what in ("inputs", "outputs") for field in schema.get(what, ())]
    print_table((name, ""), rows)


def _field(field: dict[str, Any]) -> str:
    parts = [field.get("name", ""), field.get("type", ""), "optional" if field.get("optional") else ""]
    parts += [f"{name} {orjson.dumps(field[name]).decode()}" for name in ("shape", "values") if name in field]
    return " ".join(filter(None, parts))


def _described(model: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if model is None:
        return "", "", "", ""
    plugin = " on ".join(filter(None, (model["plugin"], model.get("framework"))))
    return plugin, size(model["bytes"]), f"{model['loadSeconds'] * 1e3:.0f} ms", "\n".join(model.get("notes", ()))


def _items(url: str, path: str, member: str) -> Iterator[Any]:
    for page in pages(url, path, member):
        yield from page[member]


def pages(url: str, path: str, member: str) -> Iterator[dict[str, Any]]:
    """Yield the pages of a list that a server gives.

    :param member: the list's name in them.
    """
    token = None
    while True:
        parameters: dict[str, str] = {} if token is None else {"next_page_token": token}
        page = _content(_ask(url, "GET", path, params=parameters), url + path, member)
        yield page
        token = page.get("nextPageToken")
        if token is None:
            return


def _content(answer: httpx.Response, address: str, member: str) -> dict[str, Any]:
    """Return what a server says, if it is one of ours, and says it of what it was asked."""
    try:
        content: dict[str, Any] = answer.json()
        iter(content[member])
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(f"{address} does not answer as manymodels does; check --url") from None
    return content


class _Signing(httpx.Auth):
    """Sends a request again, signed, if the server says that it has to be."""

    requires_request_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request once, or twice."""
        answer = yield request
        if answer.status_code != 403 or answer.headers.get(ERROR_TYPE) != "MissingAuthenticationTokenException":
            return
        try:
            signing = importlib.import_module("manymodels.cli.signing")
        except ModuleNotFoundError as error:
            if error.name != "botocore":
                raise
            raise click.ClickException(
                "the server wants requests to be signed, which takes botocore: pip install botocore"
            ) from error
        signing.sign(request)
        yield request


def _ask(url: str, method: str, path: str, **request: Any) -> httpx.Response:
    """Return the answer to a request; anything but success ends the command."""
    base = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        # A proxy of the environment is for the internet, and would be asked even for 127.0.0.1.
        answer = httpx.request(method, base + path, timeout=TIMEOUT, trust_env=False, auth=_Signing(), **request)
    except httpx.ConnectError as error:
        raise click.ClickException(
            f"no server answers at {url} ({error}); start one with 'manymodels serve STORE', or name another with --url"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"asking {url} failed: {str(error) or type(error).__name__}") from error
    if not answer.is_success:
        _fail(answer)
    return answer


def _fail(answer: httpx.Response) -> NoReturn:
    try:
        content = answer.json()
        aws = "__type" in content  # as a server answers that wants requests to be signed
        message = f"{content['__type' if aws else 'type']}: {content['Message' if aws else 'message']}"
    except (ValueError, KeyError, TypeError):
        message = answer.text[:SHOWN]
    raise click.ClickException(f"{answer.status_code} {message}")
