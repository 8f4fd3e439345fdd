"""Memories: networks that read a trial, all at once or step by step, with the same results.

A memory is one file: its network, decorated with ``register_memory`` (``memory.py``). Importing this package registers
every memory in it.
"""

from metarl.registry import import_all

import_all(__name__, __path__)
