"""Folds the verdicts of the jails into a table. Its input is {"machine": …, "programs": […]}."""

import json
import sys

given = json.load(sys.stdin)
machine, programs = given["machine"], given["programs"]

GIB = 1024**3
cpu, memory = machine["cpu"], machine["ram"]
gpus = ", ".join(gpu["name"] or gpu["uuid"] for gpu in machine["gpus"]) or "no GPU"
print(f"{cpu['logical_cores']} cores, {memory['total_bytes'] / GIB:.1f} GiB of RAM, {gpus}\n")

print(f"{'program':22} {'verdict':13} {'exit':>4} {'wall':>9} {'peak':>8}  jail")
passed = 0
for program in programs:
    verdict = program["verdict"]
    passed += verdict["status"] == "ok"
    exit_code = "-" if verdict["exit_code"] is None else verdict["exit_code"]
    peak = verdict["peak_memory_mb"]
    print(
        f"{program['name']:22} {verdict['status']:13} {exit_code:>4} "
        f"{verdict['wall_ms']:>6.0f} ms {'-' if peak is None else f'{peak:.0f} MB':>8}  "
        f"{verdict['isolation']['backend']}"
    )
print(f"\n{passed} of {len(programs)} programs passed their tests")
