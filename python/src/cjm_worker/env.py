"""The variables a worker reads when it starts, and the placeholders their defaults may hold."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set

from .errors import CapabilityConfigError

WORKER_ENV_TEMPLATE_PLACEHOLDERS = frozenset(
    ("CJM_MODELS_DIR", "CJM_CAPABILITY_DATA_DIR", "CAPABILITY_DATA_DIR", "CAPABILITY_NAME")
)
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class EnvVarSpec:
    """One variable of a worker's environment, fixed when the worker is spawned.

    A secret comes from the host's secret store and has no default: a secret in code is a leak.
    """

    name: str
    secret: bool = False
    required: bool = False
    label: str = ""
    description: str = ""
    #: Visible variables only; may hold ``${CJM_MODELS_DIR}`` and its like.
    default: Optional[str] = None
    options: Optional[Sequence[str]] = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise CapabilityConfigError(f"{self.name!r} is no name of an environment variable")
        if self.secret and self.default is not None:
            raise CapabilityConfigError(f"{self.name} is secret and may not have a default")
        template_check_placeholders(self.default or "", self.name)

    def to_manifest(self) -> Dict[str, Any]:
        """The spec as ``code.worker_env`` of a manifest lists it."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def template_check_placeholders(template: str, variable: str = "") -> Set[str]:
    """The placeholders a template names; raises CapabilityConfigError for an unknown one."""
    names = set(_PLACEHOLDER.findall(template))
    unknown = sorted(names - WORKER_ENV_TEMPLATE_PLACEHOLDERS)
    if unknown:
        allowed = ", ".join(sorted(WORKER_ENV_TEMPLATE_PLACEHOLDERS))
        shown = ", ".join(f"${{{name}}}" for name in unknown)
        raise CapabilityConfigError(
            f"{variable or 'the template'} names unknown {shown}; allowed are {allowed}",
            fields_invalid=[variable] if variable else [],
        )
    return names


def expand_worker_env_template(
    template: str, placeholders: Mapping[str, Optional[str]], variable: str = ""
) -> str:
    """The template with its placeholders filled in once; values are not scanned again.

    Raises CapabilityConfigError for an unknown placeholder and for one that has no value.
    """
    for name in sorted(template_check_placeholders(template, variable)):
        if placeholders.get(name) is None:
            raise CapabilityConfigError(
                f"{variable or 'the template'} needs ${{{name}}}, which has no value here",
                fields_invalid=[variable] if variable else [],
            )
    return _PLACEHOLDER.sub(lambda match: str(placeholders[match.group(1)]), template)


def missing_required_env(
    specs: Iterable[EnvVarSpec], environment: Mapping[str, str]
) -> List[EnvVarSpec]:
    """The required variables that are absent or empty."""
    return [spec for spec in specs if spec.required and not environment.get(spec.name)]
