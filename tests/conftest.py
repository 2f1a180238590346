"""Where the tests find what they share, how hypothesis looks for counterexamples, and that Ctrl-C can be tested.

`contract_kit` and the like lie beside the tests. Counterexamples are looked for the same way each time, unless
`DURABLY_EXPLORE` is set: a check that every change must pass may not depend on luck. `DURABLY_EXPLORE=50` draws 50
times as many examples, other ones each time.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

sys.path.insert(0, str(Path(__file__).parent))

EXPLORE = int(os.environ.get("DURABLY_EXPLORE", "0"))

# What it has learnt of Unicode and of the sources is kept, and not in this folder.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "durably-hypothesis")
settings.register_profile(
    "durably",
    database=None,
    deadline=None,  # a busy machine is no counterexample
    derandomize=not EXPLORE,
    max_examples=100 * max(EXPLORE, 1),
    print_blob=False,
)
settings.load_profile("durably")

# A shell lets what it runs in the background ignore Ctrl-C, and so would every program that a test starts from here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
