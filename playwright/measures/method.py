"""How each figure is measured, in sentences: they go with the figures wherever these go."""

METHOD = {
    "": (
        "Everything is measured in one run, ours and what it is compared with in turns, in alternating order; a "
        "figure is the median of all its rounds, a ratio the median of the ratios of the rounds.",
        "The peer in the browser is `@coji/durably` on `sqlocal`, bundled, on a page with the isolation headers "
        "that SQLite's own build needs, set up as its documentation says for browsers: pollingIntervalMs 100, "
        "leaseRenewIntervalMs 500, leaseMs 3000 (the defaults of the package are 1000, 5000 and 30000).",
        "Each measured page is a tab of its own in Chromium without a window, closed before the next one opens.",
        "The load is that of the whole machine, the bench included. Where it is well above the number of cores, times "
        "are those of a busy machine, and what is compared with a wait of fixed length looks worse than it is: measure "
        "anew on a quiet one.",
    ),
    "steps": (
        "steps: {steps} steps that return their number, timed by the job from before the first to after the last, "
        "in a new file and after {warm_up} steps that are not timed (the peer: 5); nobody listens to events.",
        "raw commits: the transactions that durably has recorded of such a job, statement by statement, sent by "
        "plain JavaScript in a worker to durably's own bridge and file layer, as JSON text, with the same "
        "durability (flushed at each commit).",
    ),
    "runs": (
        "runs: {runs} runs of one step, triggered in one batch by the page; from then to the page's hearing of "
        "the last end.",
    ),
    "trigger": ("trigger: from the page's call to the first line of the job, after 150 ms without work.",),
    "replay": (
        "replay: a failed run with {replayed} stored steps is retried; from the page's call to the end of the "
        "last stored step, less the same of a run without steps (the median), so that reading the steps counts.",
    ),
    "warm-boot": (
        "warm boot: in a profile that has seen the page once, until it had kept its snapshot of Python (some 8 s, and "
        "the bare worker's page for as long), from the navigation to the end of `connect()`. The bare worker loads "
        "Pyodide and the same wheels but durably's own, imports pydantic, makes a model, and posts a message.",
    ),
    "resume": (
        "resume: a job with steps of 50 ms is interrupted by a reload; from the navigation to the first line of "
        "the step that is executed first. The peer first waits for the lease of the page that is gone.",
    ),
    "first-visit": ("first visit: the same as the warm boot in an empty profile, from a server on the same machine.",),
    "claim": (
        "claim: on CPython from `process_one()` to the first line of the job; in the browser from the trigger; in "
        "an empty file and in one with {finished:,} finished runs of one step each, in turns.",
    ),
    "long": (
        "long run: in the browser, the time of a step in the last tenth of {long:,} steps against that in the "
        "first; and the memory that Python has from the browser, at the end and after the first tenth.",
    ),
    "cpython": (
        "CPython: {steps} steps in a new file in WAL mode with `synchronous=FULL`; the raw commits are the "
        "recorded transactions through `sqlite3` in one thread, on the same disk and with the same settings; DBOS "
        "Transact with a workflow of as many steps on its own SQLite file, with the settings that it makes.",
    ),
    "size": (
        "sizes: the wheel; and what a page has asked for until it is connected, without Pyodide's own files and "
        "the wheels of pydantic and what pydantic needs; compressed by gzip where that is smaller.",
    ),
}


def method(chosen: set[str], **amounts: float) -> list[str]:
    """The sentences for these figures."""
    return [text.format(**amounts) for name, texts in METHOD.items() if not name or name in chosen for text in texts]
