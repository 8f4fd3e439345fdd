"""Arguments that several commands take."""

from typing import Annotated

import tyro

RunName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
