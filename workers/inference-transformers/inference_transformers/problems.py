"""Failures of the task: each message begins with the word that says which case it is."""

from typing import Sequence

from cjm_worker import CapabilityInputError

#: The words of ``docs/text-generation.md`` that this engine uses.
REASONS = frozenset(
    "parameter_unsupported context_overflow grammar_invalid chat_template_missing adapter_unknown "
    "adapter_mismatch adapter_hash adapter_missing adapter_invalid adapter_id_taken model_missing "
    "model_invalid registry_invalid registry_missing".split()
)


class TaskInputError(CapabilityInputError):
    """The caller can fix it; ``reason`` is one of :data:`REASONS`."""

    def __init__(self, reason: str, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(f"{reason}: {message}", reason=reason, fields_invalid=fields)
