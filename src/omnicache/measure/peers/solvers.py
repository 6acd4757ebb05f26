"""No cache, and fewer steps of a solver of higher order, as diffusers has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.fewer_steps import ladder
from omnicache.measure.peers.scene import Scene

SHARES = (0.25, 0.3, 0.4, 0.5, 0.6, 0.8)

# Class, what is changed in the scheduler's config, evaluations of the model in a step.
Solver = tuple[str, dict[str, Any], int]
MULTISTEP: dict[str, Solver] = {
    "DPM-Solver++ 2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}, 1),
    "DPM-Solver++ 3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}, 1),
    "UniPC 2": ("UniPCMultistepScheduler", {"solver_order": 2}, 1),
    "UniPC 3": ("UniPCMultistepScheduler", {"solver_order": 3}, 1),
    "DEIS 2": ("DEISMultistepScheduler", {"solver_order": 2}, 1),
    "DEIS 3": ("DEISMultistepScheduler", {"solver_order": 3}, 1),
}
IN_SIGMAS: dict[str, Solver] = {
    "Heun": ("HeunDiscreteScheduler", {}, 2),
    "DPM2": ("KDPM2DiscreteScheduler", {}, 2),
}
EDM: dict[str, Solver] = {
    "EDM DPM-Solver++ 2M": ("EDMDPMSolverMultistepScheduler", {"solver_order": 2}, 1),
    "EDM DPM-Solver++ 3M": ("EDMDPMSolverMultistepScheduler", {"solver_order": 3}, 1),
}


def solvers_of(scheduler: Any) -> dict[str, Solver]:
    """Solvers that can take the place of a scheduler, for the same trained model.

    Raises:
        OmniCacheError: none is known to.
    """
    config, name = scheduler.config, type(scheduler).__name__
    if name.startswith("FlowMatch"):
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": config.shift}
        found = {label: (kind, {**given, **flow}, cost) for label, (kind, given, cost) in MULTISTEP.items()}
        return {**found, "Heun": ("FlowMatchHeunDiscreteScheduler", {"shift": config.shift}, 2)}
    if config.get("timestep_type") == "continuous":
        # Such a model is told log(sigma) / 4, and its v-prediction is EDM's preconditioning for data of variance 1.
        edm = {"sigma_data": 1.0, "prediction_type": config.prediction_type}
        edm |= {"sigma_min": config.sigma_min, "sigma_max": config.sigma_max}
        return {label: (kind, {**given, **edm}, cost) for label, (kind, given, cost) in EDM.items()}
    if config.get("prediction_type") in ("epsilon", "v_prediction", "sample"):
        return {**MULTISTEP, **IN_SIGMAS}
    raise OmniCacheError(f"No solver of higher order is known to take the place of a {name} with these settings.")


def _settings(scene: Scene) -> list[Setting]:
    made = []
    for name, (_, _, cost) in solvers_of(scene.pipe.scheduler).items():
        count = ladder(scene.steps, SHARES)
        for evaluations in count[len(count) // 2 :][:1] if _misfit(scene, name) else count:  # one, to say why
            steps = evaluations if cost == 1 else (evaluations + 1) // 2  # the last of them needs one evaluation only
            label = f"{name}, {steps} steps"
            if steps > 1 and label not in {one.label for one in made}:
                made.append(Setting({"solver": name, "steps": steps}, label))
    return made


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    import diffusers

    before = scene.pipe.scheduler
    name, changed, _ = solvers_of(before)[options["solver"]]
    if _misfit(scene, options["solver"]):
        raise OmniCacheError("DiTPipeline hands scaled latents on from step to step, which solvers over sigmas cannot work with.")
    config = {key: value for key, value in before.config.items() if not key.startswith("_")}
    scene.pipe.scheduler = getattr(diffusers, name).from_config(config, **changed)
    return Worn(call={"num_inference_steps": options["steps"]})


def _misfit(scene: Scene, solver: str) -> bool:
    return solver in IN_SIGMAS and type(scene.pipe).__name__ == "DiTPipeline"


CONTENDER = Contender("fewer-steps, solvers of higher order", "fewer steps", _settings, _put)
