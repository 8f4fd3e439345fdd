"""The transcript of a trial: what was observed, done and rewarded, as text that only ever grows at its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from metarl.families.words import Words
from metarl.learning.learner import OpenState

Pieces = tuple[str, ...]
ASK = "Action:"
REFLECT = "What I learned about this task:"


@dataclass(frozen=True)
class Prompt:
    """A text in pieces, which a model may read one after the other.

    Attributes:
        rules: what holds in all tasks, the same for all of them.
        episodes: the pieces of each episode; the last one asks for something.
    """

    rules: str
    episodes: tuple[Pieces, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return self.rules + "".join(piece for episode in self.episodes for piece in episode)

    def kept(self, size: Callable[[str], int], most: int) -> list[str]:
        """Return the rules and the pieces of the last episodes that fit together into ``most`` by their ``size``.

        The last episode is always kept.
        """
        room = most - size(self.rules)
        first = len(self.episodes)
        while first > 0:
            room -= sum(map(size, self.episodes[first - 1]))
            if room < 0 and first < len(self.episodes):
                break
            first -= 1
        return [self.rules, *(piece for episode in self.episodes[first:] for piece in episode)]


@dataclass(frozen=True)
class Transcripts:
    """The state: the complete episodes of R trials of each of N tasks.

    Attributes:
        trials: ``[N][R]``; before the first episode R is unknown, and they are ``[N][]``.
    """

    trials: tuple[tuple[tuple[Pieces, ...], ...], ...]

    def of(self, task: int, trial: int) -> tuple[Pieces, ...]:
        """Return the complete episodes of a trial."""
        rows = self.trials[task]
        return rows[trial] if rows else ()


@dataclass
class OpenTranscripts(OpenState[Transcripts]):
    """Trials with a running episode each.

    Attributes:
        pieces: of the running episodes, ``[N][R]``.
        returns: so far, ``[N][R]``.
        ended: whether they are complete, ``[N][R]``.
    """

    pieces: list[list[list[str]]] = field(default_factory=list)
    returns: list[list[float]] = field(default_factory=list)
    ended: list[list[bool]] = field(default_factory=list)


def rules_text(words: Words, episodes: int) -> str:
    """Return the beginning of all prompts."""
    again = f" You have {episodes} episodes in the same task, and all rewards count." if episodes > 1 else ""
    return f"{words.rules}{again}\nThe actions are: {', '.join(words.actions)}.\n"


def start_piece(number: int) -> str:
    """Return the beginning of an episode, counted from 0."""
    return f"\nEpisode {number + 1}.\n"


def asking_piece(words: Words, observation: Tensor) -> str:
    """Return an observation ``[*observation]``, and the question for an action."""
    seen = words.observation(observation.cpu())
    return f"{seen}\n{ASK}" if seen else ASK


def name_piece(name: str) -> str:
    """Return the answer to that question."""
    return f" {name}"


def reward_piece(reward: float) -> str:
    """Return what an action gave."""
    return f"\nReward: {reward:.3g}\n"


def end_piece(total: float) -> str:
    """Return the end of an episode."""
    return f"The episode is over. Its return was {total:.3g}.\n"


def reflection_pieces(text: str) -> Pieces:
    """Return what was written between two episodes."""
    return REFLECT, f" {text}\n"


def whole_episode(
    words: Words, number: int, observations: Tensor, actions: Sequence[int], rewards: Sequence[float]
) -> Pieces:
    """Return an episode of T steps, from its observations ``[T, *observation]``, as acting in it would write it."""
    pieces = [start_piece(number)]
    for observation, action, reward in zip(observations, actions, rewards, strict=True):
        pieces += [asking_piece(words, observation), name_piece(words.actions[action]), reward_piece(reward)]
    return (*pieces, end_piece(sum(rewards)))
