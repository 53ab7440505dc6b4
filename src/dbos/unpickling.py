"""Reading pickles, all of them or only those that name nothing but listed classes.

Whoever can write to the system database can put a pickle there that runs any code in whoever reads it. With a list, a
pickle is refused before anything it names is imported, unless that is listed, or is one of a few types of Python and of
this library that do no harm.
"""

from __future__ import annotations

import binascii
import builtins
import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any

# Modules of which the classes may be read, and single names.
_HARMLESS_MODULES = frozenset({"datetime", "decimal", "uuid", "fractions", "dbos._error", "dbos._sys_db"})
_HARMLESS_MODULES |= {"dbos._serialization", "dbos._kafka_message"}
_HARMLESS_NAMES = frozenset(
    {f"builtins.{name}" for name in ("set", "frozenset", "complex", "bytearray", "bytes", "range", "slice", "object")}
    | {
        f"builtins.{name}"
        for name, found in vars(builtins).items()
        if isinstance(found, type) and issubclass(found, BaseException)
    }
    | {"collections.OrderedDict", "collections.defaultdict", "collections.deque", "collections.Counter"}
    | {"zoneinfo.ZoneInfo._unpickle"}
    # What readers of stored values raise.
    | {"_pickle.UnpicklingError", "_pickle.PicklingError", "binascii.Error", "json.decoder.JSONDecodeError"}
    # How old protocols make an instance of a class that they name beside it.
    | {"copyreg._reconstructor"}
)


def read_pickle(text: str, _loads: Any = pickle.loads, _decode: Any = binascii.a2b_base64) -> Any:
    """The value of a pickle in base64."""
    return _loads(_decode(text))


def reader_of(allowed: Iterable[str]) -> Callable[[str], Any]:
    """As `read_pickle`, for pickles that name only what is harmless or `allowed`: modules and what is in them, or
    single names.

    The reader raises pickle.UnpicklingError for others, which names the class.
    """
    listed = frozenset(allowed)

    class Reader(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str) -> Any:
            if not _may_be_read(f"{module_name}.{global_name}", module_name, listed):
                raise _refusal(f"{module_name}.{global_name}")
            found = super().find_class(module_name, global_name)
            name = f"{module_name}.{global_name}"
            if name in listed or name in _HARMLESS_NAMES:
                return found
            # A dotted name may lead elsewhere: out of a module that is listed into one that it imports.
            own = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
            if not isinstance(found, type) or not _may_be_read(own, found.__module__, listed):
                raise _refusal(name)
            return found

    return lambda text: Reader(io.BytesIO(binascii.a2b_base64(text))).load()


def _may_be_read(name: str, module_name: str, listed: frozenset[str]) -> bool:
    if name in _HARMLESS_NAMES or module_name in _HARMLESS_MODULES or name in listed:
        return True
    parts = module_name.split(".")
    return any(".".join(parts[:count]) in listed for count in range(1, len(parts) + 1))


def _refusal(name: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(
        f"it names {name}, which is not among the classes that may be read; if it is one of yours, add it or its "
        f"module to `unpickle_only`."
    )
