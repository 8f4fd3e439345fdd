"""What ``/metrics`` shows, in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The numbers of one service.

    Attributes:
        requests: by route and status.
        seconds: from a request's head to its answer, by route.
        batch: tasks in a forward pass.
        adaptations: that were made.
        episodes: that were completed.
        rebuilt: tasks that were read back from the database.
        open_tasks: in memory.
    """

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter("metarl_requests", "Requests", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "metarl_request_seconds", "From a request to its answer", ["route"], buckets=SECONDS, registry=own
        )
        self.batch = Histogram("metarl_tasks_per_pass", "Tasks in a forward pass", buckets=SIZES, registry=own)
        self.adaptations = Counter("metarl_adaptations", "Adaptations", registry=own)
        self.episodes = Counter("metarl_episodes", "Complete episodes", registry=own)
        self.rebuilt = Counter("metarl_rebuilt_tasks", "Tasks that were read back from the database", registry=own)
        self.open_tasks = Gauge("metarl_open_tasks", "Tasks in memory", registry=own)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        if (route, status) not in self._known:
            self._known[route, status] = self.requests.labels(route, status), self.seconds.labels(route)
        requests, times = self._known[route, status]
        requests.inc()
        times.observe(seconds)

    def text(self) -> bytes:
        """Return all of them in Prometheus' format."""
        return generate_latest(self._registry)
