"""The learner's loss in plain eager PyTorch, as one would write it first.

Images [N, C, H, W] in torch's default memory format, the whole batch at once, a Python
loop over T for V-trace, torch.optim and torch.nn.utils. It prints seconds an update;
`tools/benchmark.py learner` starts it (`python -m benchmarks.eager_learner`, tools/ on
PYTHONPATH) with the allocator at its defaults. It computes
what `learner.Learner` computes: `tests/workers/learner_test.py` compares the gradients.
"""

import sys
from typing import Any

import torch
from absl import flags

from benchmarks import context as context_lib
from impala_mp import types
from impala_mp.algorithms import losses
from impala_mp.cli import command_line
from impala_mp.networks import agent

FLAGS = flags.FlagValues()
_CONFIG = command_line.define_config(FLAGS)


class EagerLearner:
    """Holds what an update needs; `update` is one."""

    def __init__(
        self, config: Any, policy: agent.Agent, batch: types.Trajectory
    ) -> None:
        self._config, self._agent = config, policy
        device = config.learner.device
        policy.network.to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        observation = batch.time_step.observation
        if observation.dim() == 5:  # stored as [T+1, B, C, H, W], torch's default
            observation = observation.permute(0, 1, 4, 2, 3).contiguous()
            observation = observation.permute(0, 1, 3, 4, 2)
        step = batch.time_step._replace(observation=observation)
        self._batch = batch._replace(time_step=step)
        parameters = policy.network.parameters()
        rate = config.optimizer.learning_rate
        adam = config.optimizer.name == "adam"
        kind: Any = torch.optim.Adam if adam else torch.optim.RMSprop
        self._optimizer = kind(parameters, lr=rate)

    def loss(self) -> torch.Tensor:
        settings, batch = self._config.loss, self._batch
        step, behaviour = batch.time_step, batch.agent_output
        network = self._agent.unroll(step, behaviour.action, batch.core_state)
        logits, values = network.policy_logits[:-1], network.baseline
        pi = torch.distributions.Categorical(logits=logits)
        mu = torch.distributions.Categorical(logits=behaviour.policy_logits)
        log_probs = pi.log_prob(behaviour.action)
        learnable = (step.step_type[:-1] != types.StepType.LAST).float()
        rhos = (log_probs - mu.log_prob(behaviour.action)).detach().exp() * learnable
        rewards = losses.clip_rewards(step.reward[1:], settings.reward_clipping)
        discounts = step.discount[1:] * settings.discount_factor
        vs, advantages = self._vtrace(rhos, discounts, rewards, values.detach())
        terms = -log_probs * advantages
        terms = terms + settings.baseline_cost * 0.5 * (vs - values[:-1]).square()
        terms = terms - settings.entropy_cost * pi.entropy()
        total = (terms * learnable).sum()
        return total if settings.reduction == "sum" else total / terms.numel()

    def _vtrace(
        self,
        rhos: torch.Tensor,
        discounts: torch.Tensor,
        rewards: torch.Tensor,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        config = self._config.vtrace
        clipped = rhos.clamp(max=config.clip_rho_threshold)
        cs = config.lambda_ * rhos.clamp(max=config.clip_c_threshold)
        deltas = clipped * (rewards + discounts * values[1:] - values[:-1])
        correction, corrections = torch.zeros_like(values[0]), []
        for t in reversed(range(rhos.shape[0])):
            correction = deltas[t] + discounts[t] * cs[t] * correction
            corrections.append(correction)
        vs = values[:-1] + torch.stack(corrections[::-1])
        next_vs = torch.cat([vs[1:], values[-1:]])
        mixed = torch.lerp(values[1:], next_vs, config.lambda_)
        weights = rhos.clamp(max=config.clip_pg_rho_threshold)
        return vs, weights * (rewards + discounts * mixed - values[:-1])

    def update(self) -> None:
        self._optimizer.zero_grad()
        self.loss().backward()
        if self._config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(
                self._agent.network.parameters(), self._config.optimizer.clip_norm
            )
        self._optimizer.step()


def main() -> None:
    command_line.parse(FLAGS, str(__doc__))
    options = context_lib.Options(1, 0.0, 0, 0.0, 0)
    context = context_lib.Context(_CONFIG.value, sys.argv[1:], options)
    batch = context.batch(context.config.batch_size)
    batch = context_lib.to_device(batch, context.device)
    eager = EagerLearner(context.config, context.agent(), batch)
    eager.update()
    print(context.seconds_a_call(eager.update, 2.0))


if __name__ == "__main__":
    command_line.run(main)
