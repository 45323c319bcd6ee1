"""Reading every manifest of an experiment from an object store: the first time, and again when nothing changed.

Usage: python -m benchmarks.storage [--partitions N]

The server (moto's, in a process of its own) answers a few hundred requests a second, so the wall time of the first
reading is the server's; the CPU of this process is what the project's side takes. The baseline is the same number of
manifests, one `get` after the other, measured on a sample of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.objects import ObjectStore, in_parallel
from tests.servers import BUCKET, KEYS

SAMPLE = 200
SERVE = """
import sys, tests.servers
with tests.servers.s3_server() as environment:
    print(environment["AWS_ENDPOINT_URL"], flush=True)
    sys.stdin.read()
"""


def fill(store: ArtifactStore, partitions: int) -> None:
    """Writes one artifact, and its manifest under the names of all partitions."""
    first = Ref.of("agent_trajectories", agent="m:safe:j:0.1", seed="0")
    with store.write(first, run_id=str(uuid.uuid4()), code_version="1", config={"a": 1}, inputs={}) as draft:
        (draft.path / "trajectories.jsonl").write_text("{}\n")
    made = store.get(first)
    objects = ObjectStore(str(store.location))

    def copy(number: int) -> None:
        ref = Ref.of(f"agent_evaluations/j{number % 6}/safe", agent=f"m:safe:j:{number}", seed=str(number % 3))
        update = {"asset": ref.asset, "partition": dict(ref.partition), "inputs": (made.entry,)}
        content = made.manifest.model_copy(update=update).model_dump_json(indent=1).encode()
        objects.put(f"{store.experiment}/{ref.asset}/{ref.partition_label}/manifest.json", content)

    in_parallel(copy, range(1, partitions))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Returns the wall and CPU seconds of this process that some work takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=5000)
    partitions = parser.parse_args().partitions
    server = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        try:
            url = next(line for line in server.stdout if line.startswith("http")).strip()
            os.environ.update(KEYS, AWS_ENDPOINT_URL=url, FRONTIER_CACHE=folder)
            store = ArtifactStore(f"s3://{BUCKET}/benchmark", "paper")
            fill(store, partitions)
            refs = [manifest.ref for manifest in store.manifests()]
            assert len(refs) == partitions
            alone = timed(lambda: [store.manifest(ref) for ref in refs[:SAMPLE]])
            again = timed(lambda: list(store.manifests()))
            (Path(folder) / "copies").mkdir()
            os.environ["FRONTIER_CACHE"] = str(Path(folder) / "copies")
            other = ArtifactStore(f"s3://{BUCKET}/benchmark", "paper")
            first = timed(lambda: list(other.manifests()))
        finally:
            server.kill()
    for what, (wall, cpu) in (("first", first), ("again, nothing changed", again)):
        print(f"{partitions} manifests, {what}: {wall:.2f} s, {cpu:.2f} s of CPU here")
    scaled = alone[0] / SAMPLE * partitions
    print(f"one after the other: {scaled:.1f} s; again is {scaled / again[0]:.0f} times as fast")


if __name__ == "__main__":
    main()
