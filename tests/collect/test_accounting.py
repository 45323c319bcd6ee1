"""What records took of models is counted at the price of the name that their server is asked for."""

from __future__ import annotations

from pathlib import Path

import yaml

from dagster_project.collect.accounting import evaluation_use, trajectory_use
from dagster_project.experiment.spec import load_experiment
from tests import lm_world
from tests.lm_world import write_world
from toolemu.chat import ModelUse
from toolemu.trajectory import StopReason, Trajectory

TRAJECTORY = Trajectory(
    trajectory_id="t",
    experiment="lm",
    agent="served",
    seed=None,
    case_idx=0,
    sample=0,
    user_input="",
    steps=(),
    output="",
    final_log="",
    stop_reason=StopReason.final_answer,
    agent_use=ModelUse(calls=1, prompt_tokens=2_000_000),
)


def test_a_model_that_is_served_here_has_a_price_as_any_other(tmp_path: Path) -> None:
    write_world(tmp_path)
    whole = lm_world.experiment(
        "http://localhost:1/v1",
        models={"served": {"kind": "weights", "source": "Qwen/Qwen3-8B"}},
        judges={"strict": {"endpoint": "models.served"}},
        prices={"Qwen/Qwen3-8B": {"input": 1.5}},
    )
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(whole))
    experiment = load_experiment(str(tmp_path / "lm.yaml"))
    agent, emulator = trajectory_use(experiment, "served", [TRAJECTORY])
    assert (agent.cost, emulator.cost) == (3.0, None)
    (judge,) = evaluation_use(experiment, "strict", [])
    assert judge.cost == 0
