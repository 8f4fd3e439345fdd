"""Returns that others published, for the tasks of the comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Quoted:
    """What the overview shows of a comparison.

    Attributes:
        section: of docs/learning-results.md, by its title.
        measure: which returns are compared, in words.
        published: what others report for a learner.
        source: where, under which protocol, and how it was read.
        of_trials: whether returns are of whole trials; otherwise they are of the last adaptation step's episodes.
    """

    section: str
    measure: str
    published: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    of_trials: bool = False


BANDITS = "Duan et al. 2016, table 1, which also has Gittins indices, for 10, 100 and 500 pulls"

QUOTED = {
    "bandit-k5": Quoted(
        "Bandits with five arms",
        "trial of n pulls",
        {
            "rl2-n10": "6.7",
            "ucb-n10": "6.7",
            "rl2-n100": "78.7",
            "rl2-large-n100": "78.7",
            "ucb-n100": "78.0",
            "rl2-n500": "401.6",
        },
        f"{BANDITS}: 6.6, 78.3 and 405.8",
        of_trials=True,
    ),
    "bandit-k10": Quoted(
        "Bandits with ten arms",
        "trial of n pulls",
        {
            "rl2-n10": "6.7",
            "rl2-n100": "83.5",
            "rl2-large-n100": "83.5",
            "ucb-n100": "82.4",
            "thompson-n100": "76.7",
            "rl2-n500": "432.5",
        },
        f"{BANDITS}: 6.6, 82.8 and 437.8",
        of_trials=True,
    ),
    "bandit-k50": Quoted(
        "Bandits with fifty arms",
        "trial of n pulls",
        {"rl2-n10": "6.8", "rl2-n100": "84.9", "rl2-large-n100": "84.9", "rl2-n500": "438.9"},
        f"{BANDITS}: 6.5, 85.2 and 463.7",
        of_trials=True,
    ),
    "bandit-short": Quoted(
        "Ten pulls of five arms",
        "trial of 10 pulls, five arms",
        {"rl2": "6.7"},
        "Duan et al. 2016, table 1, which also has Gittins indices with 6.6 and UCB1 with 6.7",
        of_trials=True,
    ),
    "tabular-mdp": Quoted(
        "Tabular MDPs",
        "trial of ten episodes",
        {"rl2": "156.2", "rl2-published": "156.2", "rl2-transformer": "156.2 (GRU)"},
        "Duan et al. 2016, table 2, which also has UCRL2 with 146.6 and greedy with 134.8",
        of_trials=True,
    ),
    "sparse-point": Quoted("Sparse point", "fifth episode"),
    "navigation-2d": Quoted(
        "2D navigation",
        "after the last step",
        {"maml-trpo": "-3.2", "maml-trpo-500": "-3.2"},
        "Finn et al. 2017, supplement: -40.4, -11.7, -3.3 and -3.2 after 0 to 3 steps",
    ),
    "navigation-2d-published": Quoted(
        "2D navigation, 40 episodes for each step",
        "after the last step",
        {"maml-trpo": "-3.2"},
        "Finn et al. 2017, supplement: -40.4, -11.7, -3.3 and -3.2 after 0 to 3 steps",
    ),
    "navigation-2d-recorded": Quoted("2D navigation from recorded episodes", "third episode"),
    "gridnavi": Quoted("GridNavi", "after the last step"),
    "gridnavi-recorded": Quoted("GridNavi from recorded episodes", "last episode"),
    "gridnavi-image": Quoted("GridNavi from images", "fourth episode"),
    "gridnavi-shared": Quoted(
        "GridNavi, published protocol",
        "last episode",
        {},
        "no table; the Bayes optimum of the fourth episode is 11.07",
    ),
    "random-mazes": Quoted("Random mazes", "last episode"),
    "half-cheetah-vel": Quoted("HalfCheetahVel", "after the last step"),
    "half-cheetah-vel-0-3": Quoted(
        "HalfCheetahVel in context",
        "last episode",
        {"rl2-published": "-40 to -70"},
        "Zintgraf et al. 2020 and Rakelly et al. 2019, read off figures: where the curves of RL², VariBAD (1e8 env "
        "steps) and PEARL end",
    ),
    "half-cheetah-dir": Quoted(
        "HalfCheetahDir in context",
        "trial of two episodes",
        {"rl2": "2104 ± 87"},
        "Beck et al. 2022, table 1, 7.5e7 env steps; known to us from others' notes of that table",
        of_trials=True,
    ),
    "metaworld-ml1-reach": Quoted("Meta-World", "success on ML1 reach"),
    "metaworld-ml1-push": Quoted("Meta-World", "success on ML1 push"),
    "metaworld-ml10": Quoted(
        "Meta-World",
        "success on ML10",
        {"maml-trpo": "about 0.35", "rl2": "about 0.35"},
        "Meta-World+ (NeurIPS 2025), IQM of 10 seeds by the package's own protocol, read off figures",
    ),
}
