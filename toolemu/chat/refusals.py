"""What a server's refusal says, and whether it is about the account, the model, the room in the context or the text.

Servers word their refusals freely, and each differently. `toolemu.chat.fields` finds the fields of the request that a
refusal names, and `toolemu.chat.negotiation` tries out whether it is about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from toolemu.chat.codec import load


class Told(NamedTuple):
    """What the body of an error says.

    Attributes:
        message: Its words, for people; empty if there are none in any place that is known.
        parameter: The field that it is about, as far as it says so.
        code: Its code.
        text: All that it says, codes and types included, but nothing that it repeats of the request.
    """

    message: str
    parameter: str
    code: str
    text: str


# Where servers put their words, as keys of an error's JSON. `raw` is what OpenRouter passes on from a provider.
_WORDS = ("message", "msg", "detail", "error_msg", "error_message", "error_description", "description", "reason")
_KINDS = ("code", "type", "status")
_NESTED = ("error", "errors", "detail", "details", "innererror", "metadata", "raw", "message", "body")
_DEEPEST = 6
_LONGEST = 4000  # characters of an error that are looked at


def read_told(content: bytes) -> Told:
    """Return what an error's body says, whether it is of OpenAI's form, another one, or plain text."""
    try:
        value = load(content).value
    except ValueError:
        value = None
    facts = list(_facts(value))
    words = [text for kind, text in facts if kind == "word"]
    parameter = next((text for kind, text in facts if kind == "param"), "")
    code = next((text for kind, text in facts if kind == "code"), "")
    # Periods keep the end of one fact and the beginning of the next from being read as one sentence.
    text = "\n.\n".join(text for _, text in facts) or content.decode(errors="replace")
    return Told("; ".join(dict.fromkeys(words)), parameter, code, text[:_LONGEST])


def _facts(value: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of all that an error's JSON says; kinds are word, param, and those of `_KINDS`."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for member in value:
            if isinstance(member, Mapping):
                yield from _facts(member, depth + 1)
        return
    if not isinstance(value, Mapping):
        return
    for name in _WORDS:
        if isinstance(value.get(name), str) and value[name].strip():
            yield "word", value[name].strip()
    if isinstance(value.get("error"), str) and value["error"].strip():
        yield "word", value["error"].strip()
    if isinstance(value.get("param"), str) and value["param"]:
        yield "param", value["param"]
    place = value.get("loc")  # of FastAPI
    if isinstance(place, list | tuple) and place:
        inner = [str(part) for part in place if part != "body"]
        yield "param", ".".join(inner)
    for name in _KINDS:
        if isinstance(value.get(name), str | int) and value[name]:
            yield name, str(value[name])
    for name in _NESTED:
        nested = value.get(name)
        if name == "raw" and isinstance(nested, str):
            told = read_told(nested.encode(errors="replace"))
            yield "word", told.message or told.text.strip()
            yield from ((kind, text) for kind, text in (("param", told.parameter), ("code", told.code)) if text)
        elif not isinstance(nested, str):
            yield from _facts(nested, depth + 1)


def error_status(answer: Mapping[str, Any]) -> int | None:
    """Return the HTTP status of an error that a server sent with HTTP 200, as OpenRouter does; None if it is none."""
    error = answer.get("error")
    if answer.get("choices") or not isinstance(error, Mapping):
        return None
    code = error.get("code")
    text = str(code) if isinstance(code, int | str) else ""
    return int(text) if re.fullmatch(r"[45]\d\d", text) else None


_ACCOUNT = re.compile(
    r"insufficient[\s_-]*(?:\w+[\s_-]+)?(?:balance|credits?|funds)"
    r"|(?:balance|credits?|funds)\b[^.]{0,40}\b(?:too low|insufficient|exhausted|depleted|not enough|negative|used up"
    r"|(?:run|ran|running) out|not sufficient|overdrawn)"
    r"|(?:not enough|no|out of|lacks?|low|more|zero|negative)\s+(?:\w+\s+)?(?:credits?|funds|balance)\b"
    r"|top[\s-]*up|recharge|replenish|(?:add|buy|purchase) (?:\w+ )?(?:funds|credits?)"
    r"|payment[\s_-]*(?:required|method)|regain access|spend(?:ing)?[\s_-]*limit|key limit exceeded"
    r"|arrears?(?:age)?\b|overdue|余额不足|欠费|充值",
    re.I,
)
_QUOTA = re.compile(r"insufficient[\s_-]*quota|exceeded your current quota|quota\b.{0,30}\b(?:exhausted|used up)", re.I)
_CODES = re.compile(r"insufficient_quota|billing_(?:not_active|hard_limit_reached)")
_RATE = re.compile(r"rate[\s_-]*limit|per (?:minute|second|hour|day)\b|retry|try again", re.I)
_URL = re.compile(r"https?://\S+")


def lacks_credit(status: int, told: Told, body: Mapping[str, Any]) -> bool:
    """Return whether a refusal is for want of credit, which no waiting mends.

    HTTP 429 is mostly about a rate. Such a refusal counts only if it speaks of the account and of no rate. Words that
    the request `body` has as well may be a quotation, for instance of a case about a bank, and do not count.
    """
    if status == 402 or _CODES.search(told.code):
        return True
    if status not in (400, 403, 429) or is_about_content(told):
        return False
    text = _URL.sub("", told.text)
    if status == 429:
        return bool(_CODES.search(text) or (_ACCOUNT.search(text) and not _RATE.search(text)))
    found = _ACCOUNT.search(text) or _QUOTA.search(text)
    return bool(_CODES.search(text) or (found and not _quotes(found[0], body)))


def _quotes(words: str, body: Mapping[str, Any]) -> bool:
    return any(words.lower() in str(message.get("content")).lower() for message in body.get("messages", ()))


_MODEL = re.compile(
    r"\bmodels?(?:[\s_-]*(?:id|name))?[\s:=/_-]*(?:[`'\"“‘]?[\w./:@+-]+[`'\"”’]?,?\s+)?"
    r"(?:(?:is|was|are|has been|does|do|could|can)\s*)?(?:currently\s+)?"
    r"(?:(?:not|n't|cannot|can't)[\s_-]*(?:be\s+)?(?:a\s+)?(?:exist|found|available|supported|known|recogni[sz]ed|served"
    r"|valid|loaded|deployed|accessible)|unknown|unavailable|invalid|decommissioned|deprecated|retired"
    r"|no longer (?:available|supported|served))"
    r"|(?:unknown|invalid|no such|unrecogni[sz]ed|unsupported|nonexistent|non-existent|incorrect|find|locate)"
    r"[\s_-]+(?:the\s+|a\s+)?model\b|not a valid model|deployment\w*\b.{0,60}\bnot[\s_-]*(?:found|exist)"
    r"|DeploymentNotFound|provider not provided|ModelNotFound|模型不存在",
    re.I,
)


def is_model_unknown(told: Told) -> bool:
    """Return whether a refusal says that the server has no such model, in whatever words."""
    return told.parameter == "model" or bool(_MODEL.search(told.text))


_CONTENT = re.compile(
    r"moderation|flagged|content[\s_-]*(?:filter|policy|management)|usage polic|ResponsibleAI|prohibited content", re.I
)


def is_about_content(told: Told) -> bool:
    """Return whether a request is refused for what its messages say."""
    return bool(_CONTENT.search(told.text))


_USED_UP = re.compile(
    r"could not finish the (?:message|response|reply)"
    r"|(?:max\w*[\s_-]*tokens|output[\s_-]*(?:token[\s_-]*)?limit|token limit)\b.{0,40}"
    r"\b(?:was|were|has been|is) reached"
    r"|(?:try|again)\b.{0,20}\bhigher\s+max\w*tokens",
    re.I,
)


def is_limit_used_up(told: Told) -> bool:
    """Return whether a server calls it an error that the model wrote, or only thought, until the limit."""
    return bool(_USED_UP.search(told.text))


_CONTEXT = re.compile(
    r"context[\s_-]*(?:length|window|size|limit)|max_model_len|exceed_context_size"
    r"|maximum[\s_-]*(?:model|input|prompt|context|total)[\s_-]*length|maximum length"
    r"|maximum number of (?:input )?tokens"
    r"|(?:prompt|inputs?|messages?|conversation) (?:is|are) too (?:long|large)"
    r"|input token count|too many (?:input )?tokens"
    r"|model token limit|range of input length|sequence length|n_ctx|n_positions|上下文"
    r"|max_new_tokens.? must be <=|prompt contains \d+ tokens"
    r"|reduce (?:the length of )?(?:the|your) (?:input|prompt|messages?|conversation)",
    re.I,
)
_TOO_LONG = re.compile(
    r"(?:prompt|inputs?|messages?|conversation|request|tokens?)\b[^.]{0,60}?"
    r"\b(?:too (?:long|large|many)|exceeds?|longer than)\b|token limit|(?:request(?:_| entity )|payload )too[_ ]large",
    re.I,
)
_PROMPT_ALONE = re.compile(
    r"(?:prompt|inputs?|messages?) (?:is|are) too long|input token count|exceed_context_size|available context size"
    r"|maximum prompt length|prompt token count|input tokens exceed|input length (?:of )?\d+ exceeds"
    r"|prompt contains \d+|in the prompt (?:cannot|must not) exceed|is longer than the model's context"
    r"|keep the first \d+ tokens|range of input length|prompt exceeds",
    re.I,
)


def is_context_full(status: int, told: Told) -> bool:
    """Return whether a refusal says that messages and limit together, or the messages alone, do not fit the context."""
    return status == 413 or bool(_CONTEXT.search(told.text))


def is_too_long(told: Told) -> bool:
    """Return whether a refusal says that something of the request is too long, which may be another thing."""
    return bool(_TOO_LONG.search(told.text))


def is_prompt_alone_too_long(told: Told) -> bool:
    """Return whether a refusal is about the messages alone, whatever the limit is."""
    return bool(_PROMPT_ALONE.search(told.text))


TOKENS = r"(?:max(?:imum)?(?: number of)?[\s_-]*(?:completion|output|new|generated)?[\s_-]*tokens)"
"""Pattern of the names that servers give the limit of tokens to generate."""
_TOO_HIGH = re.compile(
    r"too (?:large|high|many|big)|exceed|greater|larger|at most|less than|lower than|\bmaximum (?:value|of|is|allowed)"
    r"|<=|\brange\b|\bbetween\b|up to|fewer|no more",
    re.I,
)


def is_limit_too_high(told: Told) -> bool:
    """Return whether the limit of tokens alone is more than the server takes."""
    return bool(re.search(TOKENS, told.text, re.I)) and bool(_TOO_HIGH.search(told.text))


_LEAST = re.compile(
    r"(?:at least|minimum(?: value)?(?: of| is)?:?|>=|greater than(?: or equal to)?|no less than) (\d+)", re.I
)


def least_named(told: Told) -> int:
    """Return the least limit of tokens that a refusal names; 0 if it names none."""
    found = _LEAST.search(told.text) if re.search(TOKENS, told.text, re.I) else None
    return int(found[1]) if found else 0


_CONTEXT_OF = re.compile(r"(?:context length (?:is|of)(?: only)?|must be <=) (\d+)", re.I)
_PROMPT_OF = re.compile(
    r"(\d+) (?:input tokens|tokens? (?:from|in|of) the (?:input|messages|prompt)|in the (?:messages|prompt)"
    r"|of text input|.inputs. tokens)",
    re.I,
)
_MOST = re.compile(r"at most (\d+) (?:completion|output) tokens|range\b[^.]{0,40}\[\s*\d+\s*,\s*(\d+)\s*\]", re.I)
_SUM = re.compile(r"(\d+) \+ (\d+) > (\d+)")


def room_named(told: Told) -> int | None:
    """Return the tokens that a refusal says are left for the reply, 0 or fewer if none; None if it does not say.

    vLLM stops counting a prompt one token beyond what it allows, so this may be far too many.
    """
    if most := _MOST.search(told.text):
        return int(most[1] or most[2])
    if total := _SUM.search(told.text):
        return int(total[3]) - int(total[1])
    context, prompt = _CONTEXT_OF.search(told.text), _PROMPT_OF.search(told.text)
    return int(context[1]) - int(prompt[1]) if context and prompt else None
