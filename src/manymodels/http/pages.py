"""The pages of ``/docs``: HTML without scripts, in which all text of models is escaped."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from ..golden import Golden
from ..sagemaker import TARGET_MODEL
from ..schema import Field, Schema
from ..server import ModelDescription
from .openapi import SHORT
from .replies import Reply

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1.5rem .2rem 0; vertical-align: top; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } pre { background: #282828; }
a { color: #8bf; } }
"""
#: Nothing of a page may run or be fetched, whatever a name in it looks like.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def html(title: str, parts: Iterable[str]) -> Reply:
    """Return a page.

    :param parts: of its body, in HTML.
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    text = f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"
    reply = Reply.of(200, text.encode(errors="backslashreplace"), "text/html; charset=utf-8")
    return reply.add("content-security-policy", _POLICY).add("x-content-type-options", "nosniff")


def index(names: Sequence[str], token: str | None) -> Reply:
    """Return the page that lists models.

    :param token: of the next page, if there is one.
    """
    links = [f'<li><a href="{link("docs", name)}">{escape(name)}</a></li>' for name in names]
    parts = ["<h1>Models</h1>", "<ul>", *links, "</ul>"]
    if token is not None:
        parts.append(f'<p><a href="/docs?next_page_token={quote(token)}">more</a></p>')
    return html("Models", parts if names else ["<h1>Models</h1>", "<p>There are none.</p>"])


def model(
    description: ModelDescription, schema: Schema | None, goldens: Sequence[Golden], *, multi_model: bool
) -> Reply:
    """Return the page of one model."""
    name = description.name
    schema = schema or Schema()
    plugin = description.plugin if description.framework is None else f"{description.plugin} on {description.framework}"
    facts = [("Plugin", plugin), *(("Note", note) for note in description.notes)]
    parts = [
        '<p><a href="/docs">Models</a></p>',
        f"<h1>{escape(name)}</h1>",
        *_table((), facts),
        f'<p><a href="{link("openapi", name)}">OpenAPI document</a></p>',
        "<h2>Input</h2>",
        *_fields(schema.inputs),
        "<h2>Output</h2>",
        *_fields(schema.outputs),
        "<h2>How to ask it</h2>",
        f"<pre>{escape(_curl(name, goldens[0] if goldens else None, multi_model=multi_model))}</pre>",
    ]
    for golden in goldens:
        parts += [
            "<h2>Example</h2>",
            _body("Request", golden.body, golden.content_type),
            _body("Answer", golden.answer, golden.answer_content_type),
        ]
    return html(name, parts)


def link(page: str, name: str) -> str:
    """Return the path of a page about a model, which can stand in an attribute."""
    return f"/{page}/{quote(name, errors='surrogateescape')}"


def _fields(fields: Sequence[Field]) -> list[str]:
    if not fields:
        return ["<p>Nothing is known of it.</p>"]
    rows = [
        (
            field.name,
            field.type or "",
            "" if field.shape is None else " x ".join("any" if length < 0 else str(length) for length in field.shape),
            "optional" if field.optional else "",
            ", ".join(map(str, field.values)),
        )
        for field in fields
    ]
    titles = ("Name", "Type", "Shape", "", "Values")
    kept = [at for at in range(len(titles)) if any(row[at] for row in rows)]
    return _table([titles[at] for at in kept], [[row[at] for at in kept] for row in rows])


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return ["<table>", *([f"<tr>{head}</tr>"] if head else []), *body, "</table>"]


def _curl(name: str, golden: Golden | None, *, multi_model: bool) -> str:
    headers = [f"{TARGET_MODEL}: {name}"] if multi_model else []
    body, content_type = "[[...]]", "application/json"
    if golden is not None:
        text = _text(golden.body)
        body, content_type = text if text is not None else "@FILE", golden.content_type
        headers.append(f"Accept: {golden.accept}")
    headers.append(f"Content-Type: {content_type}")
    options = [f"-H {shlex.quote(header)}" for header in headers] + [f"--data-binary {shlex.quote(body)}"]
    return " \\\n    ".join(["curl http://SERVER/invocations", *options])


def _body(title: str, body: bytes, content_type: str) -> str:
    text = _text(body)
    shown = f"{len(body)} bytes" if text is None else text
    return f"<p>{title}, {escape(content_type)}</p><pre>{escape(shown)}</pre>"


def _text(body: bytes) -> str | None:
    """Return a body that can be shown."""
    try:
        return body.decode() if len(body) <= SHORT else None
    except UnicodeDecodeError:
        return None
