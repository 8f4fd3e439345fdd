"""What is asked and answered over HTTP, as pydantic models; the OpenAPI document is made from them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

MAX_EPISODES, MAX_SEED = 1024, 2**63 - 1
NUMBERS = {
    "anyOf": [{"type": "number"}, {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array"}]}}]
}
FLAGS = {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "boolean"}}]}
# Their shapes depend on the run and the task, and are checked against those.
Numbers = Annotated[Any, WithJsonSchema(NUMBERS)]
Flags = Annotated[Any, WithJsonSchema(FLAGS)]
TaskId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="id from POST /tasks")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]


class Message(BaseModel):
    """A request or an answer, without fields that are not known."""

    model_config = ConfigDict(extra="forbid")


class NewTask(Message):
    """A task to adapt to."""

    description: str = Field("", max_length=2000, pattern=r"^[^\x00]*$", description="for people")
    parameters: dict[str, Numbers] | None = Field(
        None, description="the task's parameters, which only baselines need that simulate it or observe it"
    )
    episodes: int | None = Field(
        None,
        ge=1,
        le=MAX_EPISODES,
        strict=True,
        description="E episodes side by side, stepped together; then observations, actions, rewards and ends have a "
        "first axis E. By default one, without that axis.",
    )
    adapt_after: Count | None = Field(
        None, description="complete episodes between adaptations; by default as many as in training"
    )
    seed: Seed | None = Field(None, description="of all random numbers of the task; by default a random one")


class ExecuteTask(Message):
    """Ask for the next action of a task."""

    task: TaskId
    observation: Numbers = Field(
        None, description="needed at an episode's start; later it is the next observation that feedback gave"
    )
    deterministic: bool | None = Field(
        None,
        strict=True,
        description="act by the policy's mode in the episode that starts; by default actions are sampled",
    )
    seed: Seed | None = Field(
        None, description="of the draws in the episode that starts; by default from the task's seed"
    )


class Action(Message):
    """An action in the env's own units."""

    task: str
    episode: int = Field(description="number of the task's episode, from 0")
    step: int = Field(description="number of the step in it, from 0")
    action: Numbers


class Recorded(Message):
    """A whole episode of T steps that was recorded elsewhere."""

    observations: Numbers = Field(description="[T + 1, *observation], with that after the last step")
    actions: Numbers = Field(description="[T, *action], in the env's units")
    rewards: Numbers = Field(description="[T]")
    terminated: bool = Field(strict=True, description="whether the last step terminated the episode, or truncated it")


class Feedback(Message):
    """What came of the last action, or a whole recorded episode."""

    task: TaskId
    reward: Numbers = None
    terminated: Flags = None
    truncated: Flags = None
    next_observation: Numbers = Field(None, description="after the step; at an episode's end the last one of it")
    recorded: Recorded | None = Field(None, description="a whole episode, instead of the four fields of a step")
    episode: int | None = Field(None, ge=0, strict=True, description="which episode it is about")
    step: int | None = Field(
        None,
        ge=0,
        strict=True,
        description="which step of it; feedback that was taken before is not taken twice, so it can be sent again",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "Feedback":
        step = (self.reward, self.terminated, self.truncated, self.next_observation)
        if any(each is None for each in step) if self.recorded is None else any(each is not None for each in step):
            raise ValueError("give reward, terminated, truncated and next_observation, or a recorded episode")
        return self


class Outcome(Message):
    """What feedback changed."""

    task: str
    episode: int
    step: int
    ended: bool = Field(description="whether the episode is complete; the next one starts with an observation")
    returns: list[float] | None = Field(description="of the complete episode, one for each of those side by side")
    adapted: bool = Field(description="whether the learner has adapted")
    adaptation_steps: int = Field(description="so far")
    problem: str | None = Field(None, description="why an adaptation that was due left the learner as it was")


class Episode(Message):
    """A complete episode."""

    episode: int
    returns: list[float]
    steps: int
    adaptation_steps: int = Field(description="before it")
    deterministic: bool
    recorded: bool


class TaskSummary(Message):
    """A task in the list."""

    id: str
    description: str
    created: str
    episodes: int = Field(description="complete ones")
    steps: int = Field(description="env steps in them")
    adaptation_steps: int


class TaskState(TaskSummary):
    """Everything about a task except its steps."""

    parameters: dict[str, Any] | None
    parallel_episodes: int | None
    adapt_after: int
    seed: int
    episode: int = Field(description="number of the episode that is running or starts next")
    step: int = Field(description="number of the step in it that is next, or waits for feedback")
    waiting_for: str = Field(description="observation (an episode starts), action (ask for it) or feedback")
    history: list[Episode]


class Health(Message):
    """The service is up, and its database answers."""

    status: str
    learner: str
    family: str
    iteration: int
    observation: str
    action: str


class Problem(Message):
    """One line: what is wrong, and what to do."""

    detail: str
