"""A language model behind a server that speaks OpenAI's chat protocol."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from metarl.agents.language.model import LanguageModel, Usage
from metarl.agents.language.transcript import Prompt
from metarl.errors import InputError, RunError

# The largest number of log-probabilities of the next token that servers give.
TOP = 20
# Seconds before the first repetition, doubled for each further one, and the longest of these pauses.
PAUSE, LONGEST_PAUSE = 0.5, 30.0
# Seconds until an answer.
PATIENCE = 120.0
# Refusals after which the same request may succeed, besides 5xx.
AGAIN = (408, 409, 425, 429)
INSTRUCTION = "Go on with this text. Answer with the words that follow it, and nothing else."


class RemoteModel(LanguageModel):
    """A model on a server, which is asked for one token and the log-probabilities of the most probable ones.

    A name's probability is that of the tokens with which it starts; a token that several names start with is shared
    among them. Names that none of these tokens starts are as improbable as the least probable token.

    Args:
        url: up to the version, such as ``https://api.openai.com/v1``.
        name: of the model.
        key: sent as a bearer token; empty for servers without one.
        parallel: requests at a time.
        retries: of a request that the server could not answer.
        per_minute: requests in a minute; 0 for no limit.
        prices: of a million tokens that are read and written.
        most: maximum number of characters of a prompt; the oldest episodes of longer ones are left out.

    Raises:
        InputError: when ``httpx`` is not installed, or the URL is not valid.
    """

    def __init__(
        self,
        url: str,
        name: str,
        key: str = "",
        parallel: int = 8,
        retries: int = 5,
        per_minute: float = 0.0,
        prices: tuple[float, float] = (0.0, 0.0),
        most: int = 100_000,
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise InputError("a server's model needs httpx: pip install 'metarl-gym[language]'") from None
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--url {url} must start with http:// or https://")
        self.identity, self.usage = name, Usage()
        self._url, self._retries, self._prices, self._most = url.rstrip("/"), retries, prices, most
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(timeout=PATIENCE, headers=headers)
        self._failure = httpx.TransportError
        self._threads = ThreadPoolExecutor(parallel, "requests")
        self._lock, self._gap, self._next = threading.Lock(), 60.0 / per_minute if per_minute else 0.0, 0.0

    def log_probs(self, prompts: Sequence[Prompt], names: Sequence[str]) -> Tensor:
        """Return the log-probabilities ``[R, A]`` of the names' first tokens."""
        plain = [name.strip().lower() for name in names]
        rows = self._threads.map(lambda prompt: self._scores(prompt, plain), prompts)
        return torch.tensor(list(rows))

    def write(self, prompts: Sequence[Prompt], tokens: int) -> list[str]:
        """Return the line with which each prompt continues."""
        answers = self._threads.map(lambda prompt: self._ask(prompt, {"max_tokens": tokens, "temperature": 0}), prompts)
        return [str(self._part(answer, "message", "content")).strip().split("\n")[0] for answer in answers]

    def _scores(self, prompt: Prompt, names: Sequence[str]) -> list[float]:
        answer = self._ask(prompt, {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP})
        content = self._part(answer, "logprobs", "content")
        try:
            found = {str(each["token"]): float(each["logprob"]) for each in content[0]["top_logprobs"]}
            least = min(found.values())
        except (KeyError, IndexError, TypeError, ValueError):
            raise RunError(
                f"{self._url} gave no log-probabilities of tokens (logprobs); use a server that does"
            ) from None
        shares = [0.0] * len(names)
        for token, log_prob in found.items():
            start = token.strip().lower()
            fitting = [number for number, name in enumerate(names) if start and name.startswith(start)]
            for number in fitting:
                shares[number] += math.exp(log_prob) / len(fitting)
        return [math.log(share) if share > 0 else least for share in shares]

    def _part(self, answer: Mapping[str, Any], *path: str) -> Any:
        part: Any = answer
        try:
            part = part["choices"][0]
            for name in path:
                part = part[name]
        except (KeyError, IndexError, TypeError):
            raise RunError(f"{self._url} answered without choices.{'.'.join(path)}: {str(answer)[:200]}") from None
        return part

    def _ask(self, prompt: Prompt, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask until there is an answer.

        Raises:
            RunError: when there is none, or the server refuses.
        """
        text = "".join(prompt.kept(len, self._most))
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": text}]
        for attempt in range(self._retries + 1):
            self._wait_for_turn()
            pause = min(PAUSE * 2**attempt, LONGEST_PAUSE)
            try:
                answer = self._http.post(
                    f"{self._url}/chat/completions", json={"model": self.identity, "messages": messages, **options}
                )
            except self._failure as error:
                problem = f"{self._url} does not answer: {error}"
            else:
                if answer.is_success:
                    return self._counted(answer)
                problem = f"{self._url} answered {answer.status_code}: {answer.text.strip()[:200]}"
                if answer.status_code < 500 and answer.status_code not in AGAIN:
                    raise RunError(" ".join(problem.split()))
                pause = max(pause, _seconds(answer.headers.get("retry-after")))
            if attempt < self._retries:
                time.sleep(pause)
        raise RunError(f"{' '.join(problem.split())} (asked {self._retries + 1} times)")

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        time.sleep(turn - now)

    def _counted(self, answer: Any) -> Mapping[str, Any]:
        try:
            content = answer.json()
            used = content.get("usage") or {}
            read, written = int(used.get("prompt_tokens", 0)), int(used.get("completion_tokens", 0))
        except (ValueError, AttributeError, TypeError):
            raise RunError(f"{self._url} did not answer in JSON: {' '.join(answer.text.split())[:200]}") from None
        with self._lock:
            self.usage.requests += 1
            self.usage.read_tokens += read
            self.usage.written_tokens += written
            self.usage.cost += (read * self._prices[0] + written * self._prices[1]) / 1e6
        found: Mapping[str, Any] = content
        return found


def _seconds(given: str | None) -> float:
    """Return how many seconds a server asks to wait."""
    try:
        return min(float(given or 0), LONGEST_PAUSE)
    except ValueError:  # a date
        return 0.0
