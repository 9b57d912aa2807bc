"""What the fork server imports: all that its children need, and a quick end.

It ends when the supervisor is gone. To take torch down in an orderly way takes seconds
on a busy machine, and nothing is to outlive the supervisor. Children end by themselves.
"""

import atexit
import os
import sys
from multiprocessing import forkserver

from impala_mp.runtime import entry_points

__all__ = ["entry_points"]

if getattr(sys.modules["__main__"], "main", None) is forkserver.main:
    atexit.register(os._exit, 0)
