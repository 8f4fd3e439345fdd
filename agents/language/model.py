"""What a language model does for the learner, wherever it runs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from metarl.agents.language.transcript import Prompt


@dataclass
class Usage:
    """What was read and written since the model was opened.

    Attributes:
        read_tokens: in prompts; those that a cache knew are not counted.
        written_tokens: in answers.
        requests: to a server.
        cost: of all tokens, by the prices in the settings.
    """

    read_tokens: int = 0
    written_tokens: int = 0
    requests: int = 0
    cost: float = 0.0


class LanguageModel(ABC):
    """A causal language model.

    Attributes:
        identity: the same for the same model.
        usage: what it has read and written.
    """

    identity: str
    usage: Usage

    @abstractmethod
    def log_probs(self, prompts: Sequence[Prompt], names: Sequence[str]) -> Tensor:
        """Return the log-probabilities ``[R, A]`` that R prompts continue with each of A names; they need not sum to 1.

        Raises:
            RunError: when the model does not answer.
        """

    @abstractmethod
    def write(self, prompts: Sequence[Prompt], tokens: int) -> list[str]:
        """Return the most probable line with which each prompt continues, of at most this many tokens.

        Raises:
            RunError: when the model does not answer.
        """
