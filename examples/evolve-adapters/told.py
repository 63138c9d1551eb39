"""Says what a sweep did. Its input is {"scores", "held_out", "merged", "decisions"}."""

import json
import sys
from typing import Any, Dict


def fact(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def numbers_of(evidence: Dict[str, Any]) -> str:
    """The evidence in a line, lists of adapters as ids with their fitness."""
    parts = []
    for key, value in evidence.items():
        if key == "chosen":
            value = ", ".join(f"{one['id']} {fact(one['fitness'])}" for one in value)
        elif key == "best_parent":
            value = f"{value['id']} {fact(value['pass_rate'])}"
        elif key == "interval":
            value = " to ".join(map(fact, value))
        elif isinstance(value, (dict, list)):
            continue
        parts.append(f"{key} {fact(value)}")
    return "; ".join(parts)


given = json.load(sys.stdin)
methods = {one["record"]["id"]: one["record"]["method"] for one in given["merged"]}


def table(title: str, scores: Any) -> None:
    if not scores:
        return
    families = [one["family"] for one in scores[0]["families"]]
    heads = ["pass@1", *families, "fitness"]
    print(f"{title:36}" + "".join(f"{head:>9}" for head in heads))
    for scored in sorted(scores, key=lambda one: -one["pass_rate"]):
        name = scored["id"] + (f" ({methods[scored['id']]})" if scored["id"] in methods else "")
        rates = [one["pass_rate"] for one in scored["families"]]
        cells = [scored["pass_rate"], *rates, scored["fitness"]]
        print(f"{name:36}" + "".join(f"{cell:>9.2f}" for cell in cells))
    print()


table("newly evaluated", given["scores"])
table("on held-out tasks", given["held_out"])
for decision in [one for part in given["decisions"] for one in part]:
    print(f"{decision['decision']:8} {decision['subject']}: {decision['reason']}")
    print(f"         {numbers_of(decision['evidence'])}")
