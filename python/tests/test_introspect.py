"""What provisioning is told about a capability or an adapter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SOURCE

from cjm_worker import Capability
from cjm_worker.introspect import describe

MODULE = '''
import sys
from dataclasses import dataclass
from cjm_worker import Capability, EnvVarSpec, TaskAdapter, action
print("noise on stdout")

class Shout(TaskAdapter):
    task_name = "shout"
    requires = ("run",)
    def shout(self, text: str) -> str: ...

class Tool(Capability):
    """Does one thing,
    and well.

    More words.
    """
    name = "my-tool"
    version = "0.3.0"
    tasks = (Shout,)
    max_concurrent_requests = 2
    resources = {"requires_gpu": True}
    worker_env = (EnvVarSpec("KEY", secret=True, required=True),)
    @dataclass
    class Config:
        model: str = "tiny"
    @action(repeatable=True)
    def run(self, text: str) -> str: ...
    def get_system_status(self): ...

class Broken(Capability):
    name = "no spaces allowed"
    version = "1"
'''


def introspect(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (folder / "thing.py").write_text(MODULE)
    path = f"{SOURCE}{os.pathsep}{folder}"
    return subprocess.run(
        [sys.executable, "-m", "cjm_worker.introspect", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_capability_is_described_and_nothing_else_is_on_stdout(tmp_path: Path) -> None:
    done = introspect(tmp_path, "thing:Tool")
    assert done.returncode == 0, done.stderr
    assert "noise" in done.stderr
    code: Any = json.loads(done.stdout)
    assert code["name"] == "my-tool" and code["version"] == "0.3.0"
    assert code["description"] == "Does one thing, and well."
    assert (code["module"], code["class"]) == ("thing", "Tool")
    assert (code["sdk"], code["protocol"], code["monitor"]) == ("cjm", 1, True)
    assert code["max_concurrent_requests"] == 2
    assert code["tasks"] == {"shout": ["shout"]}
    assert code["resources"] == {"requires_gpu": True}
    assert code["worker_env"][0]["name"] == "KEY" and "default" not in code["worker_env"][0]
    assert code["actions"]["run"]["repeatable"] and code["actions"]["run"]["default"]
    assert code["config_schema"]["properties"]["model"]["default"] == "tiny"
    assert [method["name"] for method in code["structural_surface"]["methods"]] == [
        "get_system_status",
        "run",
    ]


def test_an_adapter_is_described(tmp_path: Path) -> None:
    done = introspect(tmp_path, "--adapter", "thing:Shout")
    manifest: Any = json.loads(done.stdout)
    assert manifest["unit"] == "adapter" and manifest["task_name"] == "shout"
    assert manifest["name"] == "thing.Shout"
    assert [m["name"] for m in manifest["protocol_members"]["methods"]] == ["run"]
    assert "run" not in manifest["methods"] and manifest["methods"] == sorted(manifest["methods"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["thing:Broken"], "no spaces allowed"),
        (["thing:Missing"], "Missing"),
        (["nowhere:Tool"], "nowhere"),
        (["thing"], "module:Class"),
        (["thing:Shout"], "not a Capability"),
        (["--adapter", "thing:Tool"], "not a TaskAdapter"),
    ],
)
def test_what_cannot_be_described_is_an_error_with_its_reason(
    tmp_path: Path, arguments: Any, reason: str
) -> None:
    done = introspect(tmp_path, *arguments)
    assert done.returncode == 1
    assert reason in done.stderr and done.stdout == ""


def test_a_class_without_a_version_is_refused() -> None:
    class Unversioned(Capability):
        name = "x"

    with pytest.raises(TypeError, match="no version"):
        describe(Unversioned)
