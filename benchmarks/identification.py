"""Identification from cached templates beside one BLAS product of the same size, in one run.

    python -m benchmarks.identification            23,000 probes, 10,000 references, 128 numbers

Both take the same two threads and alternate, the fastest of several rounds of each is compared: the machine's load
falls on both. The product writes all its scores, as a plain evaluation would; identification reduces them as they
come.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer

from appliance.recognition.embed import unit
from provisioning.evaluation import identification


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(
    probes: Annotated[int, typer.Option(help="Probes searched.")] = 23_000,
    references: Annotated[int, typer.Option(help="References on the list.")] = 10_000,
    length: Annotated[int, typer.Option(help="Numbers in a template.")] = 128,
    rounds: Annotated[int, typer.Option(help="Rounds of each; the fastest counts.")] = 7,
) -> None:
    """Print both times and their ratio as JSON."""
    rng = np.random.default_rng(1)
    left = unit(rng.normal(size=(probes, length)).astype(np.float32))
    right = unit(rng.normal(size=(references, length)).astype(np.float32))
    out = np.empty((probes, references), np.float32)
    product, searched = [], []
    for _ in range(rounds):
        product.append(seconds(lambda: np.matmul(left, right.T, out=out)))
        searched.append(seconds(lambda: identification.best(left, right)))
    result = {"probes": probes, "references": references, "length": length, "rounds": rounds}
    times = {"product_seconds": round(min(product), 4), "identification_seconds": round(min(searched), 4)}
    print(json.dumps({**result, **times, "ratio": round(min(searched) / min(product), 3)}))


if __name__ == "__main__":
    typer.run(main)
