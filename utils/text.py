"""Text in messages and pages, and text that cannot be a name."""

import unicodedata
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template

MAX_SHOWN = 100  # characters of a value in a message


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


def has_control_characters(text: str) -> bool:
    """Whether text holds a line break, a tab, NUL, or another character that does not print."""
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def render(template: Path, **values: Any) -> str:
    """Markdown or plain text of a template of jinja2, in which the lines of statements leave none."""
    text = template.read_text(encoding="utf-8")
    return Template(text, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True).render(values)
