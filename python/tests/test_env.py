"""Variables a worker reads when it starts."""

import pytest

from cjm_worker import CapabilityConfigError, EnvVarSpec
from cjm_worker.env import (
    expand_worker_env_template,
    missing_required_env,
    template_check_placeholders,
)


def test_a_default_may_hold_known_placeholders() -> None:
    spec = EnvVarSpec("HF_HOME", default="${CJM_MODELS_DIR}/hf")
    assert spec.to_manifest()["default"] == "${CJM_MODELS_DIR}/hf"
    expanded = expand_worker_env_template(spec.default or "", {"CJM_MODELS_DIR": "/m${X}"})
    assert expanded == "/m${X}/hf"


def test_an_unknown_placeholder_is_an_error_of_the_author() -> None:
    with pytest.raises(CapabilityConfigError, match=r"HF_HOME.*\$\{HOME\}"):
        EnvVarSpec("HF_HOME", default="${HOME}/hf")
    with pytest.raises(CapabilityConfigError):
        template_check_placeholders("${}")


def test_a_placeholder_without_a_value_is_an_error() -> None:
    with pytest.raises(CapabilityConfigError, match="no value"):
        expand_worker_env_template("${CJM_MODELS_DIR}", {"CJM_MODELS_DIR": None})


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A\n"])
def test_a_name_no_shell_takes_is_refused(name: str) -> None:
    with pytest.raises(CapabilityConfigError):
        EnvVarSpec(name)


def test_a_secret_has_no_default() -> None:
    with pytest.raises(CapabilityConfigError, match="secret"):
        EnvVarSpec("KEY", secret=True, default="hunter2")


def test_missing_required_variables_are_named() -> None:
    specs = [EnvVarSpec("A", required=True), EnvVarSpec("B"), EnvVarSpec("C", required=True)]
    assert [spec.name for spec in missing_required_env(specs, {"A": "1", "C": ""})] == ["C"]
