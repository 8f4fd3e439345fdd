"""A model on a server that speaks OpenAI's protocol: a real one on this machine, over a tiny model."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from benchmarks.served_process import free_port
from metarl.agents.language.language import LanguageConfig
from metarl.agents.language.local import LocalModel
from metarl.agents.language.remote import RemoteModel
from metarl.agents.language.transcript import Prompt
from metarl.errors import RunError
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from tests.agents.language.models import make_model

pytest.importorskip("transformers")
fastapi, uvicorn = pytest.importorskip("fastapi"), pytest.importorskip("uvicorn")
KEY = "secret"
PROMPTS = [Prompt("Rules.\n", ((f"Episode {number}.\n", "Action:"),)) for number in range(3)]


class Server:
    """A server of the chat protocol; what it answers next can be set.

    Attributes:
        url: of the protocol.
        troubles: answers (status, headers, body) that the next requests get.
        asked: bodies of the requests.
    """

    def __init__(self, model: LocalModel) -> None:
        self.model, self.troubles, self.asked = model, [], []  # type: ignore[var-annotated]
        self.app, self.port = fastapi.FastAPI(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.app.post("/v1/chat/completions")(self.answer)
        self._lock = threading.Lock()

    def answer(self, request: dict[str, Any], authorization: str = fastapi.Header("")) -> Any:
        with self._lock:
            self.asked.append(request)
            if authorization != f"Bearer {KEY}":
                return fastapi.Response("no such key", 401)
            if self.troubles:
                status, headers, body = self.troubles.pop(0)
                return fastapi.Response(body, status, headers)
            return self._completion(request)

    def _completion(self, request: dict[str, Any]) -> dict[str, Any]:
        prompt = Prompt(request["messages"][-1]["content"], ((" ",),))
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": None}}
        if request.get("logprobs"):
            (chunk,) = self.model._read([prompt], [])
            values, tokens = chunk.following[0].topk(request["top_logprobs"])
            top = [
                {"token": self.model._tokenizer.decode([token]), "logprob": value}
                for token, value in zip(tokens.tolist(), values.tolist(), strict=True)
            ]
            choice["logprobs"] = {"content": [{"token": top[0]["token"], "top_logprobs": top}]}
        else:
            choice["message"]["content"] = self.model.write([prompt], request["max_tokens"])[0] + "\nand more"
        return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 1}}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    return LocalModel(make_model(tmp_path_factory.mktemp("model")), torch.device("cpu"))


@pytest.fixture(scope="module")
def server(local: LocalModel) -> Iterator[Server]:
    found = Server(local)
    with running(found):
        yield found


@contextmanager
def running(server: Server) -> Iterator[None]:
    served = uvicorn.Server(uvicorn.Config(server.app, port=server.port, log_level="error"))
    thread = threading.Thread(target=served.run)
    thread.start()
    while not served.started:
        time.sleep(0.01)
    yield
    served.should_exit = True
    thread.join()


def remote(server: Server, **settings: Any) -> RemoteModel:
    return RemoteModel(**{"url": server.url, "name": "tiny", "key": KEY, "retries": 1, **settings})


def test_letters_have_the_probabilities_of_the_model_itself(server: Server, local: LocalModel) -> None:
    (chunk,) = local._read([Prompt(PROMPTS[0].text, ((" ",),))], [])
    values, tokens = chunk.following[0].topk(20)
    letters = {local._tokenizer.decode([token]): value for token, value in zip(tokens.tolist(), values, strict=True)}
    names = [letter for letter in letters if letter.isascii() and letter.isalnum()][:3]
    assert names
    found = remote(server).log_probs(PROMPTS, [*names, "0unlikely"])
    torch.testing.assert_close(found[0, : len(names)], torch.stack([letters[name] for name in names]))
    assert found.shape == (3, len(names) + 1)


def test_tokens_and_cost_are_counted(server: Server) -> None:
    model = remote(server, prices=(2.0, 1e6))
    assert model.write(PROMPTS, 4) == remote(server).write(PROMPTS, 4)
    assert (model.usage.requests, model.usage.read_tokens, model.usage.written_tokens) == (3, 300, 3)
    assert model.usage.cost == pytest.approx(300 * 2e-6 + 3)


def test_it_asks_again_what_could_not_be_answered(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.agents.language.remote.PAUSE", 0.01)
    model = remote(server, retries=3, parallel=1)
    expected = model.log_probs(PROMPTS[:1], ["a"])
    server.troubles += [(429, {"retry-after": "0.05"}, "slow down"), (503, {}, ""), (529, {}, "overloaded")]
    assert torch.equal(model.log_probs(PROMPTS[:1], ["a"]), expected)


TROUBLES = [
    ([(400, {}, "no such\nmodel")], "answered 400: no such model$"),
    ([(500, {}, "x")] * 2, r"answered 500: x \(asked 2 times\)"),
    ([(200, {}, "<html>")], "did not answer in JSON: <html>"),
    ([(200, {}, "[]")], "did not answer in JSON"),
    ([(200, {}, "{}")], "answered without choices.logprobs.content: {}"),
    ([(200, {}, '{"choices": [{"logprobs": null}]}')], "answered without choices.logprobs.content"),
    ([(200, {}, '{"choices": [{"logprobs": {"content": []}}]}')], "gave no log-probabilities of tokens"),
]


@pytest.mark.parametrize(("troubles", "line"), TROUBLES)
def test_nonsense_ends_in_one_line(
    troubles: list[Any], line: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarl.agents.language.remote.PAUSE", 0.01)
    server.troubles += troubles
    with pytest.raises(RunError, match=line) as problem:
        remote(server).log_probs(PROMPTS[:1], ["a"])
    assert "\n" not in str(problem.value)


def test_a_wrong_key_and_a_server_that_is_not_there_are_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.agents.language.remote.PAUSE", 0.01)
    with pytest.raises(RunError, match="answered 401: no such key"):
        remote(server, key="wrong").log_probs(PROMPTS[:1], ["a"])
    with pytest.raises(RunError, match=r"does not answer: .* \(asked 2 times\)"):
        remote(server, url=f"http://127.0.0.1:{free_port()}").log_probs(PROMPTS[:1], ["a"])


def test_the_rate_is_limited(server: Server) -> None:
    model = remote(server, per_minute=600.0)
    began = time.monotonic()
    model.log_probs(PROMPTS, ["a"])
    assert time.monotonic() - began >= 0.2  # two pauses of a tenth of a second


def test_it_learns_as_any_other_learner(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    settings = LanguageConfig(model="tiny", url=server.url, key_variable="THE_KEY", reflection_tokens=3)
    config = TrainConfig("language", "gridnavi", RunConfig(horizon=3), settings)
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    server.asked.clear()
    session = sampler.session(learner, config.split().held_out_tasks("test", 2), 1)
    sampler.run(session, 0)
    session.adapt()
    sampler.run(session, 1)
    assert len(server.asked) == 2 * (3 + 1 + 3)
    assert "What I learned about this task:" in server.asked[-1]["messages"][-1]["content"]
    assert KEY not in str(config)
