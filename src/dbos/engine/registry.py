"""Names to functions, classes and instances, and the application version computed from them.

A row in the database names its function; recovery finds the function here. Registration is legal at any time,
before an application exists and after it was launched.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..error import DBOSException
from ..logs import logger
from ..serialization import WorkflowSerializationFormat

if TYPE_CHECKING:
    from .kafka import ConsumerSpec

TEMPORARY_PREFIX = "<temp>."

ValidateArgs = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(slots=True)
class ClassInfo:
    """A class whose workflows may be methods."""

    name: str
    cls: type[Any]
    default_roles: list[str] | None = None


@dataclass(slots=True)
class FunctionInfo:
    """What the decorators know about one function. `kind` and `owner` are set when its class is decorated."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    kind: str = "function"  # function, static, class, instance
    owner: ClassInfo | None = None
    required_roles: list[str] | None = None

    @property
    def roles(self) -> list[str] | None:
        """The roles one of which a caller needs; the function's own list replaces the class default."""
        if self.required_roles is not None:
            return self.required_roles
        return self.owner.default_roles if self.owner is not None else None


@dataclass(slots=True)
class WorkflowInfo(FunctionInfo):
    max_recovery_attempts: int | None = 100
    serialization_type: WorkflowSerializationFormat | None = None
    validate_args: ValidateArgs | None = None
    auto_upgrade: bool | None = None
    stored_result: bool = False
    source: Callable[..., Any] | None = None
    is_undecorated_method: bool = False


class Registry:
    """Everything registered in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.workflows: dict[str, WorkflowInfo] = {}
        self.classes: dict[str, ClassInfo] = {}
        self.instances: dict[str, Any] = {}
        self.kafka_consumers: list[ConsumerSpec] = []
        self.launched = False

    def register_workflow(self, info: WorkflowInfo) -> None:
        """Make a workflow known under its name; a second one replaces the first with a warning, unless it comes
        from another module and another file, which is a mistake."""
        with self._lock:
            known = self.workflows.get(info.name)
            if known is not None and known.function is not info.function:
                self._check_redefinition(info, known)
            self.workflows[info.name] = info

    def _check_redefinition(self, info: WorkflowInfo, known: WorkflowInfo) -> None:
        new, old = _origin(info), _origin(known)
        is_step = info.name.startswith(TEMPORARY_PREFIX)
        if new[0] != old[0] and new[1] != old[1] and not is_step:
            raise DBOSException(
                f"Workflow {info.name!r} is registered twice: in module {old[0]} ({old[1]}) and in module {new[0]} "
                f"({new[1]}). Stored workflows find their function by name, so names must be unique: give one of "
                f"them another name with @DBOS.workflow(name=...)."
            )
        what = "Step" if is_step else "Workflow"
        name = info.name.removeprefix(TEMPORARY_PREFIX)
        logger.warning("%s %r of module %s is registered again; the newer function replaces it", what, name, old[0])

    def register_class(self, name: str, cls: type[Any]) -> ClassInfo:
        with self._lock:
            known = self.classes.get(name)
            if known is not None and known.cls is not cls:
                raise Exception(
                    f"Two classes are registered under the name {name!r}: {known.cls!r} and {cls!r}. Give one of "
                    f"them another name with @DBOS.dbos_class(class_name=...)."
                )
            if known is None:
                known = self.classes[name] = ClassInfo(name, cls)
            return known

    def register_instance(self, instance: Any) -> None:
        """Make a configured instance known under `<class name>/<config_name>`."""
        owner = self.class_of(type(instance))
        class_name = owner.name if owner is not None else type(instance).__qualname__
        key = f"{class_name}/{instance.config_name}"
        with self._lock:
            known = self.instances.get(key)
            if known is not None and known is not instance:
                raise Exception(
                    f"Two instances of class {class_name!r} have the config_name {instance.config_name!r}. Stored "
                    f"workflows find their instance by it: give each a name of its own."
                )
            self.instances[key] = instance
        if self.launched:
            logger.warning(
                "Configured instance %s was made after DBOS.launch(): recovery at launch could not find it",
                key,
            )

    def class_of(self, cls: type[Any]) -> ClassInfo | None:
        """The nearest registered class: the class itself, or the first registered one it derives from."""
        for base in cls.__mro__:
            for info in self.classes.values():
                if info.cls is base:
                    return info
        return None

    def find_receiver(self, info: WorkflowInfo, class_name: str | None, config_name: str | None) -> Any:
        """The class object or instance a stored method workflow needs as its first argument, or None.

        Raises LookupError, saying what is missing.
        """
        if info.kind not in ("class", "instance"):
            return None
        if class_name not in self.classes:
            raise LookupError(f"class {class_name!r} is not registered (@DBOS.dbos_class())")
        if info.kind == "class":
            return self.classes[class_name].cls
        instance = self.instances.get(f"{class_name}/{config_name}")
        if instance is None:
            raise LookupError(f"no instance {config_name!r} of class {class_name!r} exists in this process")
        return instance

    def compute_version(self, application_name: str) -> str:
        """A digest over the sources of all workflows and the application name.

        Stable for unchanged code. Any change in the source of a workflow changes it, also a comment; adding or
        removing a step does too, editing the body of a step does not. A release of this library does not.
        """
        sources = []
        for name, info in self.workflows.items():
            if name.startswith(TEMPORARY_PREFIX):
                sources.append(name)
                continue
            try:
                sources.append(inspect.getsource(inspect.unwrap(info.source or info.function)))
            except (OSError, TypeError):
                logger.warning(
                    "The source of workflow %r cannot be read, so the application version cannot follow the code; "
                    "set `application_version` in the configuration",
                    name,
                )
                return f"DEFAULT_VERSION-{application_name}"
        text = "".join(sorted(sources)) + application_name
        return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _origin(info: WorkflowInfo) -> tuple[str, str]:
    function = inspect.unwrap(info.source or info.function)
    try:
        file = inspect.getsourcefile(function) or "unknown file"
    except TypeError:
        file = "unknown file"
    return getattr(function, "__module__", "") or "", file
