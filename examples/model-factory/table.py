"""Draws the result of the factory. Its input is {"scores", "trained", "merges",
"evaluated", "promoted"}."""

import json
import sys
from typing import Any, Dict

FAMILIES = ("numbers", "lists")


def pass_at(scored: Dict[str, Any], k: int) -> str:
    value = next((item["value"] for item in scored["pass_at_k"] if item["k"] == k), None)
    return "-" if value is None else f"{value:.2f}"


given = json.load(sys.stdin)
scores = given["scores"]
numbers, lists = given["trained"]
methods = {item["record"]["id"]: item["record"]["method"] for item in given["merges"]}
promoted = {item["record"]["id"] for item in given["promoted"]}
most = max(item["k"] for item in scores[0]["pass_at_k"])

for family, report in zip(FAMILIES, (numbers, lists)):
    print(
        f"trained on {family:8} {report['steps']} steps, loss {report['first_loss']:.3f} to "
        f"{report['final_loss']:.3f}, {report['seconds']:.0f} s"
    )
tasks = {family["family"]: family["tasks"] for family in scores[0]["families"]}
held_out = " and ".join(f"{count} of {family}" for family, count in tasks.items())
print(f"asked {held_out}, {scores[0]['samples'] // sum(tasks.values())} answers each\n")

print(f"{'candidate':24}{'numbers':>9}{'lists':>9}{'mean':>9}" + (f"{f'pass@{most}':>9}" if most > 1 else ""))
for scored in scores:
    families = {item["family"]: item for item in scored["families"]}
    name = methods.get(scored["id"])
    name = scored["id"] if name is None else f"{name} of both"
    cells = [pass_at(families[family], 1) for family in FAMILIES]
    cells += [pass_at(scored, k) for k in sorted({1, most})]
    mark = "  promoted" if scored["id"] in promoted else ""
    print(f"{name:24}" + "".join(f"{cell:>9}" for cell in cells) + mark)

best = max(scores, key=lambda scored: scored["pass_rate"])
print("\nnumbers, lists and mean are pass@1. ", end="")
if best["id"] in promoted:
    print(f"The registry keeps {best['id']}, the best, for both.")
else:
    print("No merge beat its parents, so none was promoted.")
