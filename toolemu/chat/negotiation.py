"""Finding a form of one request that its server takes: fewer fields, or fewer tokens, in a bounded number of requests.

A field that a refusal names is left out of the next request. If the same refusal returns, the field was not the cause
and is put back. So the words of a refusal need not be understood, and a wrong guess costs one request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from toolemu.chat.fields import Named, fields_named
from toolemu.chat.refusals import (
    Told,
    is_about_content,
    is_context_full,
    is_limit_too_high,
    is_prompt_alone_too_long,
    is_too_long,
    least_named,
    room_named,
)

MOST_REQUESTS = 40
"""Bound on the forms of one request. The largest number that a real server needs is about 15."""
_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
_VARYING = re.compile(r"\d+|\b(?=\w*\d)\w{6,}\b")
_NUMBER = re.compile(r"\d+")


class Negotiation:
    """The forms of one request that were tried, and the next one.

    Args:
        left_out: Fields that the model's server is known to refuse.
        limit: Most tokens to generate, as the request has it.

    Attributes:
        left_out: Fields to leave out of the next request.
        limit: Most tokens to ask for.
        full: Whether the context turned out to have no room for a token.
        too_high: Whether the limit alone, not the context, was what had to be lowered.
    """

    def __init__(self, left_out: frozenset[str], limit: int) -> None:
        self.left_out = left_out
        self.limit = limit
        self.full = False
        self.too_high = False
        self._asked = limit
        self._numbers: list[str] = []
        self._hinted = self._lowered_in_vain = False
        self._confirmed = left_out
        self._complaint = ""
        self._trials: list[frozenset[str]] = []
        self._left = MOST_REQUESTS

    def mend(self, status: int, told: Told, body: Mapping[str, Any]) -> bool:
        """Change what is asked for, by what a refusal says; return whether there is another form to try.

        Args:
            status: HTTP status of the refusal.
            told: What it says.
            body: The request that was refused.
        """
        self._left -= 1
        if self._left < 0:
            return False
        named = fields_named(told, body)
        others = [name for name in named if name.strength < 2 and name.field not in _LIMITS]
        by_parameter = bool(others) and others[0].strength == 0
        full = is_context_full(status, told) and not by_parameter
        too_high = is_limit_too_high(told)
        if not full and not too_high and self._raise(least_named(told)):
            return True
        if not full and (others or not (too_high or is_too_long(told))) and self._leave_out(told, named):
            return True
        if not (full or too_high or is_too_long(told)):
            return False
        if not self._lowered_in_vain and self._lower(told):
            self.too_high = too_high and not full
            return True
        self.full = full or (is_too_long(told) and not too_high)
        if self.full:
            return False
        # No number would do: the field itself is what the server does not take.
        self.limit, self._lowered_in_vain = self._asked, True
        return self._leave_out(told, named)

    def _raise(self, least: int) -> bool:
        """Raise the limit of tokens to the least that a server takes; return False if it is no lower."""
        if least <= self.limit:
            return False
        self.limit = least
        return True

    def _lower(self, told: Told) -> bool:
        """Lower the limit of tokens; return False if there is nothing left of it.

        The room that a refusal names is tried once. It may be a bound only, so from then on the limit is halved.
        """
        numbers = _NUMBER.findall(told.text)
        unchanged, self._numbers = bool(numbers) and numbers == self._numbers, numbers
        named = room_named(told)
        if is_prompt_alone_too_long(told) or (unchanged and named is not None and named < 1):
            return False
        if named is not None and not self._hinted and 1 <= named < self.limit - 1:
            self._hinted, self.limit = True, named
        else:
            self.limit //= 2
        return self.limit >= 1

    def _leave_out(self, told: Told, named: list[Named]) -> bool:
        """Leave out the next of the named fields, each alone and at last all; return False if none is left to try."""
        complaint = _VARYING.sub("#", told.text)
        if complaint != self._complaint:
            self._complaint, self._confirmed = complaint, self.left_out
            fields = [name.field for name in named]
            if is_about_content(told) and not (named and named[0].strength == 0):
                fields = []
            self._trials = [frozenset({field}) for field in fields]
            if len(fields) > 1 or _LIMITS & {*fields}:
                self._trials.append(frozenset(fields) | (_LIMITS if _LIMITS & {*fields} else frozenset()))
        if not self._trials:
            self.left_out = self._confirmed
            return False
        self.left_out = self._confirmed | self._trials.pop(0)
        return True
