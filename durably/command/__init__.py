"""The command `python -m durably`: looks at the runs of a file, and retries, cancels and purges them.

Except for `serve`, which executes the jobs of files that its user names, it knows no jobs and executes nothing: what it
changes is in the store, where the workers of other processes find it. It never makes a file or brings one to another
version, and never imports what a database names: a file may come from anywhere. Exit codes: 0 done; 1 refused, with a
sentence on the error stream, or the followed run did not complete; 2 the command line makes no sense; 130 interrupted.

`line` is the command line, `verbs` what each verb does, `serving` what `serve` does, `opening` the file, `pictures`
what is shown of a run, `terminal` how it comes onto the screen.
"""
