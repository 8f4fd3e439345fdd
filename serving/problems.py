"""What can be wrong with a request, each with the status of its answer and one line that says what to do."""

from metarl.errors import MetarlError


class Refusal(MetarlError):
    """A request that changed nothing; the message is the answer."""

    status = 400


class BadRequest(Refusal):
    """The request can never be right: a shape, a type or a value is wrong."""

    status = 422


class Unknown(Refusal):
    """There is no such task."""

    status = 404


class OutOfOrder(Refusal):
    """The request does not fit what the task is waiting for."""

    status = 409


class NotStored(Refusal):
    """The database did not accept what was to be stored; nothing that was answered before is lost."""

    status = 503
