"""The examples of the documentation do what the documentation says."""

import re
from pathlib import Path
from typing import Any, Dict

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "writing-a-capability.md"


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide is not shipped with the package")
def test_the_guides_examples_run(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    python_half = text[text.index("## Python") : text.index("## TypeScript")]
    blocks = re.findall(r"```python\n(.*?)```", python_half, re.DOTALL)
    assert len(blocks) >= 5
    # One module, as the hints of a class are looked up in the module it is from.
    import sys
    import types

    module = types.ModuleType("guide")
    sys.modules["guide"] = module
    namespace: Dict[str, Any] = vars(module)
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), namespace)

    from cjm_worker.testing import LocalWorker

    assert LocalWorker(namespace["Greeter"]).run(who="Ada", times=2) == "Hello, Ada. Hello, Ada."
    envelope = {"output_folder": str(tmp_path / "job" / "1")}
    reference = LocalWorker(namespace["Converter"]).run(text="abc", envelope=envelope)
    assert Path(reference["data"]["path"]).read_text() == "ABC"
