"""Whether the plugin's distribution says what those who install it need to know."""

from __future__ import annotations

import re

from .outcome import Failed
from .subject import Subject


def is_packaged(subject: Subject) -> str:
    """The distribution is named `manymodels-NAME`, and has a version, a summary, a README, and what it requires.

    Errors for artifacts that name a missing plugin say `pip install manymodels-NAME`.
    """
    distribution = subject.distribution
    name = re.sub(r"[-_.]+", "-", distribution.name).lower()
    if name != f"manymodels-{subject.name}":
        raise Failed(f"the distribution is named {distribution.name!r}, not 'manymodels-{subject.name}'")
    fields = distribution.metadata.json
    missing = [field for field in ("version", "summary", "requires_python") if not fields.get(field)]
    if not fields.get("description"):
        missing.append("description (long_description = file: README.md)")
    if missing:
        raise Failed(f"the metadata of {distribution.name} has no {', no '.join(missing)}")
    requires = [re.match(r"[\w.-]+", line) for line in distribution.requires or []]
    if not any(match and match[0].lower() == "manymodels" for match in requires):
        raise Failed(f"{distribution.name} does not require manymodels")
    return f"{distribution.name} {distribution.version}"
