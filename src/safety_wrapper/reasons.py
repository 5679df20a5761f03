"""The sentences that a model and an approver read. From templates only, one line, bounded, escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from safety_wrapper.model import Classification, Effect, SafetyClass, ToolCall

MAX_REASON: Final = 300
MAX_VALUE: Final = 80
IN_WORDS: Final = {
    SafetyClass.GREEN: "this only reads",
    SafetyClass.YELLOW: "this changes something",
    SafetyClass.YELLOW_EXTERNAL: "something would leave the company",
    SafetyClass.RED: "this is hard to undo",
    SafetyClass.CRITICAL_RED: "this can't be undone, or touches what keeps the agent safe",
}
_LABELS: Final = {
    "path": "Path", "host": "Host", "url": "Address", "recipient": "To", "table": "Table", "database": "Database",
    "container": "Container", "image": "Image", "volume": "Volume", "unit": "Service", "package": "Package",
    "account": "Account", "channel": "Channel", "record": "Record", "process": "Process", "control": "Safety control",
}  # fmt: skip


def held(classification: Classification, request: str) -> str:
    """What the model reads when the owner must be asked."""
    return _sentence("Held", classification, f"Ask the owner to approve {request}; then call sw_resume with that id.")


def refused(reason: str, instead: str = "") -> str:
    """What the model reads when the call is refused for good."""
    return one_line(f"Refused: {_stop(reason)} {instead}".strip(), MAX_REASON)


def allowed(classification: Classification) -> str:
    """What the log says of a call that ran."""
    return one_line(_stop(f"Allowed: {classification.reason or IN_WORDS[classification.safety_class]}"), MAX_REASON)


def stopped() -> str:
    """What the model reads while the stop button is pressed."""
    return "Refused: the owner has stopped all agents. Nothing runs until the owner starts them again."


def title(call: ToolCall, classification: Classification) -> str:
    """The head of an approval: who, which tool, how bad. At most 80 characters."""
    return one_line(f"{call.context.agent}: {call.tool} · {IN_WORDS[classification.safety_class]}", 80)


def lines(effects: Sequence[Effect]) -> tuple[tuple[str, str], ...]:
    """The facts of an approval, from typed effects: never masked, never cut; escapes instead of controls."""
    return tuple((f"{_LABELS.get(e.resource, e.resource)} ({e.kind})", visible(e.value)) for e in effects[:64])


def visible(text: str) -> str:
    """``text`` with everything that could hide or reorder it shown as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() and not _hides(c) else f"\\u{{{ord(c):x}}}" for c in text)


def one_line(text: str, limit: int) -> str:
    """``text`` visible, on one line, cut at ``limit`` characters."""
    text = visible(text.replace("\n", " ").replace("\t", " "))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _sentence(head: str, classification: Classification, todo: str) -> str:
    why = classification.reason or IN_WORDS[classification.safety_class]
    tail = f"{todo} Do not repeat the call."
    room = MAX_REASON - len(tail) - len(head) - 4
    body = one_line(_stop(why), room)
    instead = one_line(classification.instead, room)
    if instead and len(body) + len(instead) + 1 <= room:
        body = f"{body} {instead}"
    return f"{head}: {body} {tail}"


def _stop(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _hides(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
