"""The pickles of NVIDIA's networks (StyleGAN2-ADA, StyleGAN3, EDM), read without running anything in them.

Such a file embeds the source code of its classes and asks the reader to compile it. Here a small machine of
its own steps through the pickle's operations: it makes tensors, plain containers and inert
:class:`~evalkit.generators.module_nodes.Node` objects, drops the source, and knows about a dozen names.
Every other name, and every operation that it does not know, is refused. Bounds on operations and on bytes
made by calls end hostile files quickly.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from evalkit.errors import CheckpointError
from evalkit.generators.module_nodes import Node
from evalkit.generators.numpy_pickles import PickledArray, PickledDtype
from evalkit.generators.pickled_calls import CALLS, CLASSES, Budget, Global
from evalkit.generators.torch_files import unsafe

_MAX_OPERATIONS = 2_000_000
_MAX_LINE = 4096
_PUSHED = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES"}
)
_PUSHED |= {"BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_MADE: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_persistent_pickle(path: Path) -> object:
    """Return what a plain pickle holds: tensors, plain containers and nodes.

    Raises:
        UnsafeCheckpointError: it asks for a name that is not on the list; the error says which.
        CheckpointError: it is damaged, or goes beyond the bounds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        machine = _Machine(path.name, Budget(4 * size + 2**20))
        try:
            return machine.run(_Stream(file, size))
        except CheckpointError:
            raise
        except Exception as error:  # a crafted file can make the operations raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"{path.name} is not a whole pickle: {reason[:200]}", hint="was it cut short?"
            ) from error


class _Stream:
    """The file, without operations that promise more bytes than there are."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise EOFError("it ends in the middle of an operation")
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(_MAX_LINE)
        self._left -= len(line)
        return line


class _Machine:
    """The stack, the marks in it and the memo of one pickle."""

    def __init__(self, name: str, budget: Budget) -> None:
        self.name = name
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, stream: _Stream) -> object:
        """Step through all operations and return the object that they leave."""
        for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if count > _MAX_OPERATIONS:
                raise CheckpointError(f"{self.name} has more operations than any network's pickle")
            name = operation.name
            if name in _PUSHED:
                self.stack.append(argument)
            elif name == "BYTEARRAY8":
                self.stack.append(bytes(argument or b""))
            elif name in _MADE:
                self.stack.append(_MADE[name]())
            elif name in _TUPLES:
                self.stack.append(tuple(self._take(_TUPLES[name])))
            elif name not in {"PROTO", "FRAME", "STOP"}:
                self._step(name, argument)
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:  # noqa: ANN401 - what pickletools gives
        if name in _STEPS:
            _STEPS[name](self)
        elif name in {"BINPUT", "LONG_BINPUT"}:
            self.memo[argument] = self.stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self._look_up(module, attribute)
        else:
            raise unsafe(self.name, f"the pickle operation {name}")

    def mark(self) -> None:
        """Remember where the stack ends."""
        self.marks.append(len(self.stack))

    def memoize(self) -> None:
        """Remember the object on top under the next number."""
        self.memo[len(self.memo)] = self.stack[-1]

    def stack_global(self) -> None:
        """Replace a module's and an attribute's name by what they name."""
        module, attribute = self._take(2)
        self._look_up(module, attribute)

    def make_tuple(self) -> None:
        """Gather everything after the mark."""
        self.stack.append(tuple(self._after_mark()))

    def append(self) -> None:
        """Append one item to a list."""
        (item,) = self._take(1)
        self._extend([item])

    def appends(self) -> None:
        """Append everything after the mark to a list."""
        self._extend(self._after_mark())

    def set_item(self) -> None:
        """Set one entry of a dict."""
        self._update(self._take(2))

    def set_items(self) -> None:
        """Set the entries after the mark."""
        self._update(self._after_mark())

    def add_items(self) -> None:
        """Add everything after the mark to a set."""
        items = self._after_mark()
        if type(self.stack[-1]) is not set:
            raise CheckpointError(f"{self.name}: the pickle adds to something that is no set")
        self.stack[-1].update(self._simple(items))

    def frozen_set(self) -> None:
        """Gather everything after the mark into a set."""
        self.stack.append(frozenset(self._simple(self._after_mark())))

    def reduce(self) -> None:
        """Call one of the known functions."""
        called, arguments = self._take(2)
        if not isinstance(called, Global) or called.name not in CALLS or type(arguments) is not tuple:
            raise unsafe(self.name, f"a call of {_word(called)}")
        self.stack.append(CALLS[called.name](*arguments, budget=self.budget, file=self.name))

    def new_object(self) -> None:
        """Make an inert stand-in of one of the known classes."""
        kind, _ = self._take(2)
        if not isinstance(kind, Global) or kind.name not in CLASSES:
            raise unsafe(self.name, f"an object of {_word(kind)}")
        self.stack.append(CLASSES[kind.name]())

    def build(self) -> None:
        """Give the object on top its state."""
        (state,) = self._take(1)
        made = self.stack[-1]
        if isinstance(made, PickledDtype | PickledArray):
            made.__setstate__(state)
        elif isinstance(made, Node) and isinstance(state, dict):
            made.state = state
        elif type(made) is not dict:  # attributes of an OrderedDict (_metadata) tell nothing
            raise unsafe(self.name, f"the state of {_word(made)}")

    def _look_up(self, module: object, attribute: object) -> None:
        if type(module) is not str or type(attribute) is not str:
            raise unsafe(self.name, "a name that is no text")
        # Protocol 2 writes the names that Python 2 knew.
        name = f"{module.replace('__builtin__', 'builtins')}.{attribute}"
        if name == "numpy.ndarray":
            self.stack.append(PickledArray)
        elif name in CALLS or name in CLASSES:
            self.stack.append(Global(name))
        else:
            raise unsafe(self.name, name)

    def _take(self, count: int) -> list[Any]:
        # What lies below the last mark is out of reach until the mark is used up.
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - floor < count:
            raise EOFError("an operation finds too few objects")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _after_mark(self) -> list[Any]:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise CheckpointError(f"{self.name}: the pickle appends to something that is no list")
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise CheckpointError(f"{self.name}: the pickle sets entries of something that is no dict")
        self.stack[-1].update(zip(self._simple(items[::2]), items[1::2], strict=True))

    def _simple(self, keys: Iterable[Any]) -> list[Any]:
        # Hashing a deeply nested tuple overflows the interpreter's own stack.
        found = list(keys)
        if not all(key is None or type(key) in {str, int, float, bool, bytes} for key in found):
            raise CheckpointError(f"{self.name}: the pickle has keys that are neither text nor numbers")
        return found


def _word(value: object) -> str:
    return value.name if isinstance(value, Global) else f"an object of type {type(value).__name__}"


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "STACK_GLOBAL": _Machine.stack_global,
    "TUPLE": _Machine.make_tuple,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "FROZENSET": _Machine.frozen_set,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
}
