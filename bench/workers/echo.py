"""The worker of the benchmarks."""

from typing import Any, Dict

from cjm_worker import Capability, action, serve


class Echo(Capability):
    name = "echo"
    version = "1.0.0"

    @action
    def echo(self, value: Any) -> Dict[str, Any]:
        """Gives back what it got."""
        return {"value": value}


if __name__ == "__main__":
    serve(Echo)
