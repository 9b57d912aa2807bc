"""Tests of impala_mp; a file has the place of what it tests.

Trainings of a test process have the variables of the command. Without them threads of
OpenMP spin while they wait, and take ten times as long beside other work. They are set
here, because torch must not be imported before.
"""

from impala_mp.runtime import launch

launch.set_environment()
