"""The sandbox in which prompt templates are rendered: a shared template can write a prompt and do nothing else.

A template reads the values it is given and calls filters, string methods, macros and `range`. It cannot call anything
else, follow links out of its folder, or use unbounded time and memory: every loop iteration, call, operation and
character of output is charged to the render's budget.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn

from jinja2 import BaseLoader, StrictUndefined, Template, TemplateNotFound, UndefinedError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.loaders import split_template_path
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from toolemu.errors import FrontierError, InputError

MOST_TEMPLATE_BYTES = 1_000_000
MOST_TEXT = 10_000_000
"""Longest text that a template may make, and the longest prompt, in characters."""
MOST_ITEMS = 1_000_000
"""Of a list that a template may make, nested ones included."""
MOST_WORK = 40_000_000
"""A render's budget. A step costs `STEP`, a character of text that is made or shown costs 1: a few seconds at most."""
STEP = 100
MOST_NUMBER = 1_000_000
"""Largest number that a filter or method takes, such as a width."""
MOST_BITS = 10_000
"""Of an integer that a template computes."""
MOST_RANGE = 100_000
_FILTERS = (
    "abs capitalize count d default dictsort first float groupby indent int items join last length list lower map max "
    "min reject rejectattr replace reverse round select selectattr sort string sum title tojson trim truncate unique "
    "upper wordcount"
)
"""Filters that templates may use: those whose result is no larger than what they are given, or is checked first."""
_METHODS: dict[type, str] = {
    str: (
        "capitalize casefold count endswith find index isalnum isalpha isdigit islower isspace isupper join lower "
        "lstrip partition removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title upper"
    ),
    dict: "get items keys values",
    list: "count index",
    tuple: "count index",
}


class _Generator(CodeGenerator):
    """Compiles templates so that loops and `~` go through the environment, which counts them."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.recursive:
            self.fail("recursive loops are not supported; use a macro", node.lineno)
        counted = nodes.EnvironmentAttribute("counted", lineno=node.lineno)
        node.iter = nodes.Call(counted, [node.iter], [], None, None, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concatenated((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a budget, on templates of some folders.

    Args:
        folders: Where templates are looked for, the first folder first.
    """

    code_generator_class = _Generator
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__(
            loader=_Folders(folders),
            undefined=StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=self._shown,
            auto_reload=False,  # looking at the files' times at every turn took a tenth of a rollout
        )
        self.filters = {name: self._checked(name, self.filters[name]) for name in _FILTERS.split()}
        self.globals = {"range": self._range, "dict": dict, "namespace": Namespace}
        self._left = MOST_WORK

    def rendered(self, template: Template, values: Mapping[str, object]) -> dict[str, str]:
        """Return the text of each block of a template by name; a template without blocks is all `user`.

        Raises:
            InputError: Rendering fails, does what the sandbox forbids, or exceeds the budget.
        """
        try:
            context = template.new_context(dict(values))
            parts = template.blocks or {"user": template.root_render_func}
            return {name: self._joined(render(context)) for name, render in parts.items()}
        except FrontierError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a template makes Python raise is the template's fault
            raise template_failure(error, template.filename or "", values) from None
        finally:
            self._left = MOST_WORK

    def spend(self, work: int) -> None:
        """Charge `work` to the render's budget.

        Raises:
            SecurityError: The budget is used up.
        """
        self._left -= work
        if self._left < 0:
            raise SecurityError("the template does too much: its loops, calls or texts exceed the budget of one prompt")

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield what a loop goes through, charging each iteration."""
        for item in items:
            self.spend(STEP)
            yield item

    def concatenated(self, parts: tuple[Any, ...]) -> str:
        """Return the parts of a `~` expression as one text."""
        self._afford(sum(_size(part) for part in parts))
        return "".join(map(str, parts))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may read an attribute; a public text, as most are, gives it nothing to abuse."""
        return not attr.startswith("_") if type(value) is str else super().is_safe_attribute(obj, attr, value)

    def is_safe_callable(self, obj: Any) -> bool:
        """Return whether a template may call `obj`: by default nothing, least of all methods of our own records."""
        if isinstance(obj, BuiltinMethodType):
            own = next((names for kind, names in _METHODS.items() if isinstance(obj.__self__, kind)), "")
            return obj.__name__ in own.split()
        if isinstance(obj, MethodType):
            ours = obj.__self__ is self and obj.__name__ in ("counted", "_range")
            return ours or (isinstance(obj.__self__, LoopContext) and obj.__name__ in ("cycle", "changed"))
        return isinstance(obj, Macro | BlockReference) or obj is dict or obj is Namespace

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template may call, after a check of the size of what it is given and will return."""
        if isinstance(__obj, MethodType) and __obj.__self__ is __self and __obj.__name__ == "counted":
            return __self.counted(*args)
        if isinstance(__obj, BuiltinMethodType):
            __self._check_arguments(__obj.__name__, (__obj.__self__, *args), kwargs)
        else:
            __self.spend(STEP)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operation, after a check of its size."""
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "%" and isinstance(left, str):
            raise SecurityError("`%` does not format text here; join texts with ~")
        if operator == "**" and numbers:
            self._check_number(left.bit_length() * max(right, 0))
        elif operator == "*" and numbers:
            self._check_number(left.bit_length() + right.bit_length())
        elif operator == "*":
            count = right if isinstance(right, int) else left if isinstance(left, int) else 1
            self._afford(_size(left if count is right else right) * max(count, 0))
        elif not numbers:
            self._afford(_size(left) + _size(right))
        self.spend(STEP)
        return super().call_binop(context, operator, left, right)

    def _load_template(self, name: str, globals: Any) -> Template:
        self.spend(STEP)  # an include; its template is in the cache
        return super()._load_template(name, globals)

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        if len(numbers) > MOST_RANGE:
            raise SecurityError(f"range has {len(numbers):,} numbers; at most {MOST_RANGE:,} are allowed")
        return numbers

    def _shown(self, value: Any) -> Any:
        if not isinstance(value, str):
            self._afford(_size(value))
        return value

    def _joined(self, pieces: Iterable[str]) -> str:
        kept, length = [], 0
        for piece in pieces:
            length += len(piece)
            if length > MOST_TEXT:
                raise SecurityError(f"the prompt exceeds {MOST_TEXT:,} characters")
            kept.append(piece)
        return "".join(kept)

    def _afford(self, size: int) -> None:
        if size > MOST_TEXT:
            raise SecurityError(f"the template makes a text or list of more than {MOST_TEXT:,} characters or elements")
        self.spend(size)

    def _check_number(self, bits: int) -> None:
        if bits > MOST_BITS:
            raise SecurityError(f"the template computes a number of more than {MOST_BITS:,} bits")

    def _checked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that checks what it is given first; Jinja's marks on it are kept."""
        passed = 1 if getattr(function, "jinja_pass_arg", None) else 0

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self._check_arguments(name, args[passed:], kwargs)
            return function(*args, **kwargs)

        return checked

    def _check_arguments(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Charge a filter or method of `args[0]` for its input, and for the largest result that it can have."""
        given = [*args[1:], *kwargs.values()]
        if any(isinstance(value, int) and abs(value) > MOST_NUMBER for value in given):
            raise SecurityError(f"{name} is given a number above {MOST_NUMBER:,}")
        size = _size(args[0]) if args else 0
        if name in ("replace", "join", "indent", "tojson", "sum"):  # these multiply: a text for each part of another
            widths = [value if isinstance(value, int) else _size(value) for value in given]
            size = (size + 1) * (max(widths, default=0) + 1)
        self._afford(size + STEP)


class _Folders(BaseLoader):
    """Templates of folders, none of which may be a link out of its folder."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = list(folders)

    def get_source(self, environment: Any, template: str) -> tuple[str, str, None]:
        parts = split_template_path(template)
        for folder in self._folders:
            path = folder.joinpath(*parts)
            if path.is_symlink() or path.exists():
                return _read(path, folder), str(path), None
        raise TemplateNotFound(template)


def check_folder(folder: Path, within: Path | None = None) -> None:
    """Make sure that a folder of templates is not reached by a link out of the folder it lies in.

    Args:
        folder: The folder of templates.
        within: The folder that it should be in; None: its parent. A path that names another place openly is no link.

    Raises:
        InputError: It is reached by one.
    """
    within = within or folder.parent
    inside = Path(os.path.normpath(folder)).is_relative_to(os.path.normpath(within))
    if inside and not _real(folder).is_relative_to(_real(within)):
        _refuse_link(folder)


def _read(path: Path, folder: Path) -> str:
    if not _real(path).is_relative_to(_real(folder)):
        _refuse_link(path)
    status = path.stat() if path.exists() else None
    if status is None or not stat.S_ISREG(status.st_mode) or status.st_size > MOST_TEMPLATE_BYTES:
        raise InputError(
            path,
            "",
            f"is not a regular file of at most {MOST_TEMPLATE_BYTES:,} bytes.",
            "Replace it by a template, or delete it.",
            code="templates.not-a-file",
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problem = "is not text in UTF-8."
        raise InputError(path, f"byte {error.start + 1}", problem, "Save it as UTF-8.", code="templates.text") from None


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike `Path.resolve`, it accepts a link to itself


def _refuse_link(path: Path) -> NoReturn:
    raise InputError(
        path,
        "",
        "is a link to a file or folder outside its own folder, which would be read and sent to a model.",
        "Copy what it links to into the folder of templates.",
        code="templates.link",
    )


def template_failure(error: Exception, path: str, values: Iterable[str] = ()) -> InputError:
    """Return the error for what a template made Python raise, with the template's file and line where it is known.

    Args:
        error: What was raised.
        path: The template's file, where nothing tells it from the file of an included template.
        values: The names of the values that the template may use.
    """
    place, trace = "", error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(template, Template):
            path = template.filename or path
            place = f"line {template.get_corresponding_lineno(trace.tb_lineno)}"
        trace = trace.tb_next
    if isinstance(error, SecurityError):
        problem = f"the template does what templates may not do: {error}."
        return InputError(path, place, problem, "Remove it; see docs/models.md.", code="templates.forbidden")
    if isinstance(error, UndefinedError):
        remedy = f"There are: {', '.join(values)}."
        return InputError(path, place, f"{error.message}.", remedy, code="templates.undefined")
    problem = f"the template cannot be rendered ({type(error).__name__}: {error})."
    return InputError(path, place, problem, "Correct the template.", code="templates.failed")


def _size(value: Any) -> int:
    """Return how many characters and elements are in a value, nested ones included; no more than is needed to refuse.

    A list that holds another twice counts it twice, as its text would.
    """
    if isinstance(value, str | bytes):
        return len(value)
    total, items, pending = 0, 0, [value]
    while pending:
        item = pending.pop()
        items += 1
        if items > MOST_ITEMS:
            return MOST_TEXT + 1
        total += len(item) if isinstance(item, str | bytes) else 1
        if isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset | range):
            pending += item
    return total
