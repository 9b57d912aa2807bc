"""Imports of the fork server, which its children share, and its quick exit.

The server ends with the supervisor, which no process may outlive. An orderly shutdown
of torch takes seconds on a busy machine. Children end by themselves.
"""

import atexit
import os
import sys
from multiprocessing import forkserver

from impala_mp.runtime import entry_points

__all__ = ["entry_points"]

if getattr(sys.modules["__main__"], "main", None) is forkserver.main:
    atexit.register(os._exit, 0)
