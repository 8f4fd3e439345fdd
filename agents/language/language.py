"""A language model that acts in context, without training (Brown et al. 2020): it knows a task by its transcript."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from metarl.agents.language.local import LocalModel
from metarl.agents.language.model import LanguageModel
from metarl.agents.language.remote import RemoteModel
from metarl.agents.language.transcript import (
    REFLECT,
    OpenTranscripts,
    Pieces,
    Prompt,
    Transcripts,
    asking_piece,
    end_piece,
    name_piece,
    reflection_pieces,
    reward_piece,
    rules_text,
    start_piece,
    whole_episode,
)
from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.learning.learner import Learner, register_learner
from metarl.numerics.distributions import Categorical
from metarl.rollouts.rollout import Rollout
from metarl.validation import require_choice, require_counts, require_not_negative, require_positive

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LanguageConfig:
    """Settings of a language model as a learner."""

    model: str = ""
    """A folder of transformers, a GGUF file, a name on the Hugging Face hub, or, with --url, the server's model."""
    url: str = ""
    """Base URL of a server that speaks OpenAI's protocol, such as http://127.0.0.1:8000/v1; empty for a model here."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the server's key."""
    episodes_per_trial: int = 2
    """Episodes per trial: the learner's budget on one task."""
    reflection_tokens: int = 0
    """Tokens that the model may write between two episodes about what it has learned; 0 for none."""
    temperature: float = 1.0
    """Divides the log-probabilities of the actions' names."""
    precision: Precision = "float32"
    """Number format of a model here: float32, bfloat16 or float16."""
    batch: int = 64
    """Transcripts in a forward pass of a model here."""
    parallel: int = 8
    """Requests to a server at a time."""
    requests_per_minute: float = 0.0
    """Maximum number of requests to a server per minute; 0 for no limit."""
    retries: int = 5
    """Further attempts when a server does not answer."""
    read_price: float = 0.0
    """Price of a million tokens that a server reads."""
    written_price: float = 0.0
    """Price of a million tokens that a server writes."""

    def __post_init__(self) -> None:
        require_counts(self, "episodes_per_trial", "batch", "parallel")
        require_positive(self, "temperature")
        require_not_negative(self, "reflection_tokens", "requests_per_minute", "retries", "read_price", "written_price")
        require_choice(self, "precision", Precision)


@register_learner
class Language(Learner):
    """A language model that reads the rules and the transcript of a trial, and acts by the probabilities of names.

    The distribution of actions follows from the model's log-probabilities of their names after the transcript. Nothing
    is trained. It acts in families that describe themselves in words (``TaskFamily.words``).
    """

    name: ClassVar[str] = "language"
    config_class: ClassVar[type] = LanguageConfig
    inner_steps: int
    pools_episodes: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    shards: ClassVar[bool] = False
    label_settings: ClassVar[Sequence[str]] = ("model",)
    metrics: ClassVar[Mapping[str, str]] = {
        "learned_env_steps": "0: it does not learn",
        "read_tokens": "tokens that the model has read so far, without those that a cache knew",
        "written_tokens": "tokens that the model has written so far",
        "requests": "requests to a server so far",
        "cost": "of all tokens so far, by the prices in the settings",
    }

    def __init__(self, family: TaskFamily, config: LanguageConfig, seed: int, device: torch.device) -> None:
        if (words := family.words()) is None:
            told = [name for name, each in FAMILIES.items() if each.words is not TaskFamily.words]
            known = ", ".join(name for name in told if make_family(name).words() is not None)
            raise InputError(
                f"language acts in families that describe themselves in words ({known}); use rl2 in others"
            )
        if not config.model:
            raise InputError(
                "language needs --model, a FOLDER, FILE.gguf or NAME on the Hugging Face hub, or with --url the name "
                "of a server's model; without a model, use rl2"
            )
        self.inner_steps = self.evaluation_steps = config.episodes_per_trial - 1
        self._words, self._config, self._device = words, config, device
        self._rules = rules_text(words, config.episodes_per_trial)
        self._names = [name_piece(name) for name in words.actions]
        self.model = _open(config, device)

    def begin(self, num_tasks: int) -> Transcripts:
        """Return transcripts without any episode."""
        return Transcripts(((),) * num_tasks)

    def open(
        self, state: Transcripts, episodes: int, generator: torch.Generator, deterministic: bool = False
    ) -> OpenTranscripts:
        """Start the next episode of ``episodes`` trials of each task.

        Raises:
            InputError: if the state has another number of trials.
        """
        if any(rows and len(rows) != episodes for rows in state.trials):
            begun = max(map(len, state.trials))
            raise InputError(f"{begun} trials of each task need {begun} episodes, not {episodes}")
        tasks = range(len(state.trials))
        pieces = [[[start_piece(len(state.of(task, row)))] for row in range(episodes)] for task in tasks]
        zeros = [[0.0] * episodes for _ in tasks]
        return OpenTranscripts(state, pieces, zeros, [[False] * episodes for _ in tasks])

    def action_distribution(self, working: OpenTranscripts, observations: Tensor) -> Categorical:
        """Return the probabilities of the actions' names; uniform ones for rows whose episode has ended."""
        shape = observations.shape[:2]
        logits = torch.zeros(*shape, len(self._names))
        running = [(task, row) for task in range(shape[0]) for row in range(shape[1]) if not working.ended[task][row]]
        prompts = []
        for task, row in running:
            working.pieces[task][row].append(asking_piece(self._words, observations[task, row]))
            prompts.append(self._prompt(working.state.of(task, row), working.pieces[task][row]))
        if prompts:
            scores = self.model.log_probs(prompts, self._names).cpu() / self._config.temperature
            logits[tuple(torch.tensor(running).T)] = scores.log_softmax(-1)
        return Categorical(logits.to(self._device))

    def observe(self, working: OpenTranscripts, actions: Tensor, rewards: Tensor, ended: Tensor) -> None:
        """Write actions and rewards into the transcripts of the episodes that are running."""
        taken, earned, ends = actions.tolist(), rewards.tolist(), ended.tolist()
        for task, rows in enumerate(working.pieces):
            for row, pieces in enumerate(rows):
                if working.ended[task][row]:
                    continue
                working.returns[task][row] += earned[task][row]
                pieces += [self._names[taken[task][row]], reward_piece(earned[task][row])]
                if ends[task][row]:
                    pieces.append(end_piece(working.returns[task][row]))
                    working.ended[task][row] = True

    def close(self, working: OpenTranscripts, rollout: Rollout) -> Transcripts:
        """Return the transcripts with the episodes that were written while acting."""
        return self._extended(working.state, [[tuple(pieces) for pieces in rows] for rows in working.pieces])

    def adapt(self, state: Transcripts, rollout: Rollout) -> Transcripts:
        """Read one more episode of every trial."""
        self.open(state, rollout.rewards.shape[1], torch.Generator())  # refuses another number of trials
        seen, actions, rewards = rollout.observations, rollout.actions.tolist(), rollout.rewards.tolist()
        lengths = rollout.valid.sum(-1).tolist()
        episodes = [
            [
                whole_episode(
                    self._words,
                    len(state.of(task, row)),
                    seen[task, row, :length],
                    actions[task][row][:length],
                    rewards[task][row][:length],
                )
                for row, length in enumerate(rows)
            ]
            for task, rows in enumerate(lengths)
        ]
        return self._extended(state, episodes)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Learn nothing; return what was read and written so far."""
        return {"learned_env_steps": 0.0, **self.notes()}

    def notes(self) -> dict[str, float]:
        """Return what was read and written so far."""
        return {name: float(value) for name, value in asdict(self.model.usage).items()}

    def state_dict(self) -> dict[str, Any]:
        """Return which model it is."""
        return {"model": self.model.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that it is the same model.

        Raises:
            InputError: when it is another one.
        """
        if state["model"] != self.model.identity:
            raise InputError(
                f"the run was made with another model than {self._config.model} is now: the hash differs; restore it"
            )

    def _extended(self, state: Transcripts, episodes: Sequence[Sequence[Pieces]]) -> Transcripts:
        """Return transcripts with one more episode each, and perhaps what the model writes about it."""
        longer = [
            [(*state.of(task, row), episode) for row, episode in enumerate(rows)] for task, rows in enumerate(episodes)
        ]
        if self._config.reflection_tokens:
            trials = [trial for rows in longer for trial in rows]
            asked = [Prompt(self._rules, (*trial[:-1], (*trial[-1], REFLECT))) for trial in trials]
            written = iter(self.model.write(asked, self._config.reflection_tokens))
            longer = [
                [(*trial[:-1], (*trial[-1], *reflection_pieces(next(written)))) for trial in rows] for rows in longer
            ]
        return Transcripts(tuple(map(tuple, longer)))

    def _prompt(self, past: tuple[Pieces, ...], running: Sequence[str]) -> Prompt:
        return Prompt(self._rules, (*past, tuple(running)))


def _open(config: LanguageConfig, device: torch.device) -> LanguageModel:
    if not config.url:
        return LocalModel(config.model, device, config.precision, config.batch)
    return RemoteModel(
        config.url,
        config.model,
        os.environ.get(config.key_variable, ""),
        config.parallel,
        config.retries,
        config.requests_per_minute,
        (config.read_price, config.written_price),
    )
