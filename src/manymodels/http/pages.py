"""The pages for people: HTML with one script, in which all text of models is escaped."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

import orjson

from .. import __version__
from ..errors import ManyModelsError, ModelNotFound
from ..golden import Golden
from ..media import JSON
from ..sagemaker import TARGET_MODEL
from ..schema import Field, Schema
from ..server import ModelDescription
from .openapi import SHORT, sample
from .paging import token_of
from .replies import Reply
from .request import Request

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { overflow-wrap: anywhere; }
h1 { line-height: 1.2; }
ul { columns: 20rem; column-gap: 3rem; padding-left: 1.2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; overflow-wrap: normal; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
pre, textarea { font: 14px/1.5 ui-monospace, monospace; }
pre { background: color-mix(in srgb, CanvasText 7%, Canvas); padding: .6rem; white-space: pre-wrap; }
pre:has(output:empty) { display: none; }
input, button { font: inherit; }
textarea, input { box-sizing: border-box; max-width: 100%; }
textarea { width: 100%; padding: .6rem; }
"""
#: Asks the model what the form says, and shows what comes back as the text that it is.
_SCRIPT = """
for (const pre of document.querySelectorAll("pre.curl"))
  pre.textContent = pre.textContent.replace("http://SERVER", () => location.origin);
const form = document.querySelector("form.try");
const MOST = 100000;
if (form !== null) {
  const [state, answer] = form.querySelectorAll("output");
  let latest = 0;
  form.hidden = false;
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const number = ++latest, start = performance.now();
    const show = (line, text) => { if (number === latest) [state.textContent, answer.textContent] = [line, text]; };
    show("Waiting for the answer.", "");
    try {
      const headers = {"Content-Type": form.elements.type.value, "Accept": form.elements.accept.value};
      // The bytes of a name in UTF-8, which is how a TargetModel is sent; fetch takes them as characters up to 255.
      const bytes = text => text.replace(/%(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
      if ("model" in form.dataset) headers[form.dataset.header] = bytes(form.dataset.model);
      const reply = await fetch("/invocations", {method: "POST", headers, body: form.elements.body.value});
      const content = await reply.arrayBuffer(), took = Math.round(performance.now() - start);
      const kind = reply.headers.get("content-type"), size = `${content.byteLength} bytes`;
      let text = "It is not shown, as it is no text.";
      try { text = new TextDecoder("utf-8", {fatal: true}).decode(content); } catch { /* bytes of another kind */ }
      if (text.length > MOST) text = text.slice(0, MOST) + " ...";
      show(`${reply.status} ${reply.statusText}, ${kind}, ${size}, ${took} ms`, text);
    } catch (error) {
      show(`There is no answer: ${error.message}`, "");
    }
  });
}
"""
#: Nothing of a page but that script may run, and nothing be fetched from elsewhere, whatever a name in it looks like.
_POLICY = (
    f"default-src 'none'; script-src 'sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}'; "
    "connect-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PATHS = (
    ("/docs", "all models, and what each takes and gives"),
    ("/artifacts", "their names, for programs"),
    ("/models", "those that are loaded"),
    ("/names", "names above artifacts"),
    ("/evictions", "which models left, and why"),
    ("/metrics", "for Prometheus"),
    ("/ping", "whether requests can be answered"),
)


def html(title: str, parts: Iterable[str], status: int = 200) -> Reply:
    """Return a page.

    :param parts: of its body, in HTML.
    """
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>"
    )
    body = "\n".join([*parts, f"<script>{_SCRIPT}</script>"])
    text = f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
    reply = Reply.of(status, text.encode(errors="backslashreplace"), "text/html; charset=utf-8")
    return reply.add("content-security-policy", _POLICY).add("x-content-type-options", "nosniff")


def home(*, multi_model: bool) -> Reply:
    """Return the page that says what the server is, and where it says more."""
    paths = "".join(f'<tr><td><a href="{path}">{path}</a></td><td>{what}</td></tr>' for path, what in _PATHS)
    parts = [
        f"<h1>manymodels {__version__}</h1>",
        "<p>This server answers for models. It is asked by boto3's <code>invoke_endpoint</code>, or with</p>",
        _curl("NAME" if multi_model else None, "@FILE", JSON, None),
        f"<table>{paths}</table>",
    ]
    return html("manymodels", parts)


def index(names: Sequence[str], token: str | None) -> Reply:
    """Return the page that lists models.

    :param token: of the next page, if there is one.
    """
    links = [f'<li><a href="{link("docs", name)}">{escape(name)}</a></li>' for name in names]
    parts = [_HOME, "<h1>Models</h1>"]
    if names:
        parts += [_OPEN, "<ul>", *links, "</ul>"]
    else:
        parts.append("<p>There are none.</p>")
    if token is not None:
        parts.append(f"<p>{_listing(token, 'More')}</p>")
    return html("Models", parts)


_HOME = '<p><a href="/">Server</a></p>'
_MODELS = '<p><a href="/">Server</a> / <a href="/docs">Models</a></p>'
_OPEN = (
    '<form action="/docs"><label>Name <input name="model" size="40" required autocomplete="off"></label> '
    "<button>Open</button></form>"
)


def failed(error: ManyModelsError, request: Request) -> Reply:
    """Return the page that says why another cannot be shown."""
    name = request.parameters.get("model", "Models")
    parts = [_MODELS, f"<h1>{escape(name)}</h1>", f"<p>{escape(str(error))}</p>"]
    if isinstance(error, ModelNotFound):
        parts.append(f"<p>{_listing(token_of(name), 'Models that come after it')}</p>")
    reply = html(name, parts, error.status)
    return reply if error.retry_after is None else reply.add("retry-after", str(error.retry_after))


def opened(name: str) -> Reply:
    """Return the reply that leads to the page of a model."""
    return Reply.of(303, b"", "text/plain").add("location", link("docs", name))


def _listing(token: str, text: str) -> str:
    return f'<a href="/docs?next_page_token={quote(token)}">{text}</a>'


def model(
    name: str,
    description: ModelDescription,
    schema: Schema | None,
    goldens: Sequence[Golden],
    *,
    multi_model: bool,
) -> Reply:
    """Return the page of one model.

    :param name: its own, or one above artifacts, as which it is asked.
    """
    schema = schema or Schema()
    plugin = description.plugin if description.framework is None else f"{description.plugin} on {description.framework}"
    facts = [] if name == description.name else [("Artifact", description.name)]
    facts += [("Plugin", plugin), *(("Note", note) for note in description.notes)]
    asked = name if multi_model else None
    golden = next((golden for golden in goldens if _text(golden.body) is not None), goldens[0] if goldens else None)
    if golden is not None:
        body, content_type, accept = _text(golden.body), golden.content_type, golden.accept
    else:
        body, content_type, accept = _sample(schema), JSON, None
    parts = [
        _MODELS,
        f"<h1>{escape(name)}</h1>",
        *_table((), facts),
        f'<p><a href="{link("openapi", name)}">OpenAPI document</a></p>',
        "<h2>Input</h2>",
        *_fields(schema.inputs),
        "<h2>Output</h2>",
        *_fields(schema.outputs),
        "<h2>How to ask it</h2>",
        _curl(asked, "@FILE" if body is None else body, content_type, accept),
        _form(asked, body or "", content_type, accept or "*/*"),
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


def _curl(name: str | None, body: str, content_type: str, accept: str | None) -> str:
    headers = [] if name is None else [f"{TARGET_MODEL}: {name}"]
    headers += [] if accept is None else [f"Accept: {accept}"]
    headers.append(f"Content-Type: {content_type}")
    options = [f"-H {shlex.quote(header)}" for header in headers] + [f"--data-binary {shlex.quote(body)}"]
    command = " \\\n    ".join(["curl http://SERVER/invocations", *options])
    return f'<pre class="curl">{escape(command)}</pre>'


def _form(name: str | None, body: str, content_type: str, accept: str) -> str:
    """Return the form that asks the model; the script, without which it is of no use, shows it."""
    named = (
        "" if name is None else f' data-header="{TARGET_MODEL}" data-model="{quote(name, errors="surrogateescape")}"'
    )
    lines = max(3, min(12, 1 + body.count("\n") + len(body) // 80))
    # The first line break in a textarea, or in a pre, is not of its text.
    return f"""<form class="try" hidden{named}>
<h2>Try it</h2>
<p><label>Request<textarea name="body" rows="{lines}" spellcheck="false">\n{escape(body)}</textarea></label></p>
<p><label>Content-Type <input name="type" value="{escape(content_type)}"></label>
<label>Accept <input name="accept" value="{escape(accept)}"></label>
<button>Ask</button></p>
<p><output></output></p>
<pre><output></output></pre>
</form>"""


def _sample(schema: Schema) -> str | None:
    content = sample(schema.inputs)
    text = None if content is None else orjson.dumps(content).decode()
    return text if text is not None and len(text) <= SHORT else None


def _body(title: str, body: bytes, content_type: str) -> str:
    text = _text(body)
    shown = f"{len(body)} bytes" if text is None else text
    return f"<p>{title}, {escape(content_type)}</p><pre>\n{escape(shown)}</pre>"


def _text(body: bytes) -> str | None:
    """Return a body that can be shown."""
    try:
        return body.decode() if len(body) <= SHORT else None
    except UnicodeDecodeError:
        return None
