"""Draws the result of the factory. Its input is {"scores", "test_scores", "trained", "merges",
"promoted"}; what is chosen was chosen by the scores, and the test scores are what is shown of it."""

import json
import sys
from typing import Any, Dict

FAMILIES = ("numbers", "lists")


def pass_at(scored: Dict[str, Any], k: int) -> str:
    value = next((item["value"] for item in scored["pass_at_k"] if item["k"] == k), None)
    return "-" if value is None else f"{value:.2f}"


given = json.load(sys.stdin)
scores, tests = given["scores"], given["test_scores"]
numbers, lists = given["trained"]
methods = {item["record"]["id"]: item["record"]["method"] for item in given["merges"]}
promoted = {item["record"]["id"] for item in given["promoted"]}
most = max(item["k"] for item in tests[0]["pass_at_k"])

for family, report in zip(FAMILIES, (numbers, lists)):
    print(
        f"trained on {family:8} {report['steps']} steps, loss {report['first_loss']:.3f} to "
        f"{report['final_loss']:.3f}, {report['seconds']:.0f} s"
    )
tasks = {family["family"]: family["tasks"] for family in tests[0]["families"]}
asked = " and ".join(f"{count} of {family}" for family, count in tasks.items())
print(f"asked {asked} to choose by, and as many to test, {tests[0]['samples'] // sum(tasks.values())} answers each\n")

heads = ["mean", "numbers", "lists", "mean"] + ([f"pass@{most}"] if most > 1 else [])
print(f"{'':24}{'choose by':>12}{'test':>6}")
print(f"{'candidate':24}" + f"{heads[0]:>12}" + "".join(f"{head:>9}" for head in heads[1:]))
for scored, tested in zip(scores, tests):
    families = {item["family"]: item for item in tested["families"]}
    name = methods.get(scored["id"])
    name = scored["id"] if name is None else f"{name} of both"
    cells = [pass_at(families[family], 1) for family in FAMILIES]
    cells += [pass_at(tested, k) for k in sorted({1, most})]
    mark = "  promoted" if scored["id"] in promoted else ""
    print(f"{name:24}{pass_at(scored, 1):>12}" + "".join(f"{cell:>9}" for cell in cells) + mark)

print("\nnumbers, lists and mean are pass@1. ", end="")
if promoted:
    print(f"The registry keeps {', '.join(sorted(promoted))} for both families.")
else:
    print("No merge beat its parents, so none was promoted.")
