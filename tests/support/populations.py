"""A small population on Catch, and its parts in this process; an experiment, too."""

import os

from impala_mp import config as config_lib
from impala_mp.monitoring import live_control, population
from impala_mp.runtime import program
from impala_mp.transport import population_block
from impala_mp.workers import builders, learner_process

RATES, COSTS = (0.01, 100.0), (0.001, 0.1)


def get_config(variant="lockstep"):
    config = config_lib.get_impala_config()
    config.runtime.mode = variant
    config.environment.id = "Catch"
    config.actors.environments = 4
    config.actors.count = 3
    config.batch_size = 4
    config.unroll_length = 7
    config.network.hidden_sizes = (8,)
    config.total_agent_steps = 3 * 40 * 7 * 4
    config.optimizer.schedule = "constant"
    config.evaluation.episodes = config.evaluation.training_episodes = 3
    config.evaluation.film = False
    config.learner.threads = 1
    config.checkpoint.interval_secs = 1000.0
    config.population.size = 3
    config.population.interval = 250
    config.population.ranges.learning_rate_factor = RATES
    config.population.ranges.entropy_cost = COSTS
    return config


class Parts:
    """Shared memory, actors and learners of a population, and its supervisor's side."""

    def __init__(self, folder, config=None):
        self.folder = str(folder)
        self.config = config or get_config("processes")
        environments = program.probe(self.config)
        policies, _ = program.prepare(self.config, None, environments, 2)
        place = os.path.join(self.folder, "policies")
        self.shared = program.allocation.allocate(policies, place, 2, self.config)
        for each in self.shared:
            os.makedirs(each.checkpoints, exist_ok=True)
        self.block: population_block.PopulationBlock = self.shared[0].population
        self.said = []
        self.supervise()
        self.restart()
        seats = self.shared[0].topology.actors
        self.actors = [builders.make_actor(seat, 0, self.shared) for seat in seats]

    def supervise(self):
        """The supervisor begins, or begins again."""
        live = live_control.LiveControl(
            [live_control.of(each) for each in self.shared],
            self.folder,
            self.said.append,
        )
        self.population = population.Population(
            self.shared, self.block, live, self.folder, self.said.append
        )

    def restart(self):
        """The process that learns begins, or begins again."""
        seat = self.shared[0].topology.learner()
        self.loops = [builders.make_learner(seat, each) for each in self.shared]
        learner_process.restore(self.loops, self.said.append)

    def train(self, count):
        """Makes `count` updates of each member."""
        for _ in range(count):
            for actor in self.actors:
                actor.fetch()
                actor.guarded_unroll()
            learner_process.take_turns(self.loops)

    def save(self):
        """Writes the checkpoints that are due."""
        if any([loop.save_is_due() for loop in self.loops]):
            for loop in self.loops:
                loop.save()

    def round(self, number, scores):
        """Reports a round with these scores, and lets the supervisor look."""
        for member, score in enumerate(scores):
            self.block.write_report(member, number, score)
        self.population.look()

    def close(self):
        for actor in self.actors:
            actor.close()
        program.allocation.release(self.shared)
