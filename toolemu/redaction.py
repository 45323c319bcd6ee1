"""Removing secrets from text that comes from elsewhere, before it is cut, printed, stored or logged.

A server is sent a key and may send it back: in an error, a redirect, a model's name, the reply itself. `redact` removes
every secret that this process has read, however it is written: plain, in base64 or hexadecimal, percent-encoded, in
JSON, HTML or C escapes, in any mixture of these, and split by spaces, punctuation, invisible characters or terminal
sequences.

Texts and secrets are compared by their skeletons: ASCII letters and digits alone, in lower case. Characters between
them then make no difference. The usual text, which has no secret, costs 2 ns a character; text with escapes, up to
0.2 µs.
"""

from __future__ import annotations

import base64
import html
import re
import string
import traceback
from collections.abc import Iterator

LEAST = 8
"""Letters and digits of the shortest secret that is removed: a shorter one is a word that replies may well contain."""
HIDDEN = "***"
_ROUNDS = 4
"""As many times escapes are decoded: the escape of an escape is one, too."""
_LETTERS = (string.ascii_lowercase + string.digits).encode()
_LOWER = bytes(range(256)).lower()
_DROPPED = bytes(set(range(256)) - set(_LETTERS) - set(string.ascii_uppercase.encode()))
_TERMINAL = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]"
_HEX = "[0-9A-Fa-f]"
_ESCAPE = re.compile(
    rf"(?P<terminal>{_TERMINAL})"
    rf"|%(?P<percent>{_HEX}{{2}})"
    rf"|\\[xX](?P<x>{_HEX}{{2}})|\\u(?P<u>{_HEX}{{4}})|\\U(?P<long>{_HEX}{{8}})|\\[ux]\{{(?P<braces>{_HEX}{{1,6}})\}}"
    r"|\\(?P<octal>[0-7]{3})|\\(?P<control>[abeEfnrtv0]|\r?\n)|\\(?P<other>[^a-zA-Z0-9])"
    rf"|(?P<entity>&(?:\#\d{{1,7}}|\#[xX]{_HEX}{{1,6}}|[a-zA-Z][a-zA-Z0-9]{{1,30}});?)"
)
_CODED = tuple(map(re.compile, (rf"%{_HEX}{{2}}", r"\\[xXuU0-7eE\r\n]", r"&[#a-zA-Z]", "\x1b", "\x9b", "\x9d")))
"""What the escapes begin with that are not one letter; each pattern has one first character, which is found fast."""
_LETTERED = tuple(f"\\{letter}" for letter in "ntrbfva")
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/-_=")


class Redactor:
    """Knows secrets, and removes them from texts."""

    def __init__(self) -> None:
        self._forms: dict[bytes, bool] = {}  # skeletons of what a secret may look like; whether that is base64

    def remember(self, secret: str) -> bool:
        """Remove a secret from every text from now on; return False, and leave it, if it is too short for that."""
        plain = secret.strip()
        if len(_skeleton(plain)) < LEAST:
            return False
        raw = plain.encode()
        self._forms |= {_skeleton(plain): False, raw.hex().encode(): False}
        for before in range(3):  # bytes in front of the secret in its group of three
            encoded = base64.b64encode(bytes(before) + raw)
            whole = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]  # without what neighbours decide
            if len(_skeleton(whole.decode())) >= LEAST:
                self._forms[_skeleton(whole.decode())] = True
        return True

    def clean(self, text: str) -> str:
        """Return the text with `***` in place of every secret."""
        while self._shows(text):
            spans = list(self._found(text))
            if not spans:
                return HIDDEN
            for start, end in sorted(spans, reverse=True):
                text = text[:start] + HIDDEN + text[end:]
        return text

    def _shows(self, text: str) -> bool:
        if not self._forms:
            return False
        for _ in range(_ROUNDS + 1):
            letters = _skeleton(text)
            if any(form in letters for form in self._forms):
                return True
            decoded = _ESCAPE.sub(_decoded, text) if any(code.search(text) for code in _CODED) else _spaced(text)
            if decoded == text:
                return False
            text = decoded
        return False

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where in the text secrets begin and end, none overlapping another."""
        characters, places = text, [(place, place + 1) for place in range(len(text))]
        hit = bytearray(len(text))
        for _ in range(_ROUNDS + 1):
            kept = [place for place, c in enumerate(characters) if c.isascii() and c.isalnum()]
            letters = "".join(characters[place] for place in kept).lower().encode()
            for form, is_base64 in self._forms.items():
                at = letters.find(form)
                while at >= 0:
                    start, end = places[kept[at]][0], places[kept[at + len(form) - 1]][1]
                    if is_base64:
                        start, end = _widened(text, start, end)
                    hit[start:end] = b"\1" * (end - start)
                    at = letters.find(form, at + 1)
            decoded, from_places, last = [], [], 0
            for escape in _ESCAPE.finditer(characters):
                decoded.append(characters[last : escape.start()])
                from_places += places[last : escape.start()]
                value = _decoded(escape)
                decoded.append(value)
                from_places += [(places[escape.start()][0], places[escape.end() - 1][1])] * len(value)
                last = escape.end()
            if not last:
                break
            characters, places = "".join(decoded) + characters[last:], from_places + places[last:]
        for run in re.finditer(rb"\x01+", hit):
            yield run.span()


def _skeleton(text: str) -> bytes:
    return text.encode("utf-8", "replace").translate(_LOWER, _DROPPED)


def _spaced(text: str) -> str:
    """Return a text that has no other escapes without those of one letter. Replies have many, and this is fast."""
    if "\\" not in text:
        return text
    text = text.replace("\\\\", "\0")
    for escape in _LETTERED:
        text = text.replace(escape, " ")
    return text.replace("\0", "\\")


def _decoded(escape: re.Match[str]) -> str:
    """Return what an escape stands for; nothing for a terminal's sequence, a space for a control character."""
    kind, value = escape.lastgroup, escape[escape.lastgroup or 0]
    if kind == "terminal":
        return ""
    if kind == "control":
        return "\x1b" if value in "eE" else " "
    if kind == "other":
        return value
    if kind == "entity":
        found = html.unescape(value if value.endswith(";") else f"{value};")
        return found if len(found) == 1 else value
    number = int(value, 8 if kind == "octal" else 16)
    return chr(number) if number < 0x110000 else " "


def _widened(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span of base64 with the characters beside it that hold some of the same bits, and the padding."""
    for _ in range(2):
        start -= start > 0 and text[start - 1] in _BASE64
        end += end < len(text) and text[end] in _BASE64
    return start, end


_known = Redactor()


def remember(secret: str) -> bool:
    """Have `redact` remove a secret from now on; return False if it is too short for that, see `LEAST`."""
    return _known.remember(secret)


def redact(text: str) -> str:
    """Return the text with `***` in place of every secret that this process has read."""
    return _known.clean(text)


def redact_error(error: BaseException) -> BaseException:
    """Return an error that holds no secret in its text, its notes, or the errors that led to it.

    It is `error` itself where all of that can be rewritten, otherwise a `RuntimeError` with the redacted traceback.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.args = tuple(redact(value) if isinstance(value, str) else value for value in link.args)
        pending += [link.__cause__, link.__context__]
    written = "".join(traceback.format_exception(error))
    cleaned = redact(written)
    return error if cleaned == written else RuntimeError(cleaned)
