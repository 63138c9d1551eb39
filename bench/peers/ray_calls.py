"""Ray beside a warm call: ray_calls.py prints READY, then for each line {"bytes", "calls"} the median of
an actor's echo, in milliseconds."""

import json
import statistics
import sys
import time

import ray

ray.init(num_cpus=1, include_dashboard=False, configure_logging=False, log_to_driver=False)


@ray.remote
class Echo:
    def echo(self, value):
        return value


actor = Echo.remote()
ray.get(actor.echo.remote("warm"))
print("READY", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    value = "x" * asked["bytes"]
    taken = []
    for _ in range(asked["calls"]):
        start = time.perf_counter()
        ray.get(actor.echo.remote(value))
        taken.append((time.perf_counter() - start) * 1e3)
    print(statistics.median(taken), flush=True)
