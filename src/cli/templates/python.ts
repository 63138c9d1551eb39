/** The module a Python capability of this name lives in. */
export function pythonModule(name: string): string {
  const module = name.toLowerCase().replaceAll("-", "_");
  return /^[0-9]/u.test(module) ? `c${module}` : module;
}

/** Its class: `text-tools` becomes `TextTools`. */
export function pythonClass(name: string): string {
  const words = pythonModule(name).split("_");
  const joined = words.map((word) => word.slice(0, 1).toUpperCase() + word.slice(1)).join("");
  return joined === "" ? "Tool" : joined;
}

/** Files of a new Python capability, by name. */
export function pythonTemplate(name: string): Readonly<Record<string, string>> {
  const module = pythonModule(name);
  const className = pythonClass(name);
  return {
    [`${module}.py`]: `import logging
from dataclasses import dataclass

from cjm_worker import Capability, action

log = logging.getLogger(__name__)


@dataclass
class Config:
    greeting: str = "Hello"


class ${className}(Capability):
    """Greets people."""

    name = "${name}"
    version = "0.1.0"
    Config = Config

    @action
    def greet(self, who: str) -> dict:
        """Greets someone."""
        log.info("greeting %s", who)
        return {"text": f"{self.config.greeting}, {who}!"}
`,
    [`test_${module}.py`]: `import unittest

from cjm_worker.testing import CallFailed, LocalWorker
from ${module} import ${className}


class ${className}Test(unittest.TestCase):
    def test_greets_as_it_is_configured(self) -> None:
        worker = LocalWorker(${className}, {"greeting": "Good day"})
        self.assertEqual(worker.run("greet", who="Ada"), {"text": "Good day, Ada!"})

    def test_refuses_to_greet_a_number(self) -> None:
        with self.assertRaises(CallFailed):
            LocalWorker(${className}).run("greet", who=3)


if __name__ == "__main__":
    unittest.main()
`,
  };
}
