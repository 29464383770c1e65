"""``bydawn torture``: real runs, killed with SIGKILL again and again, and the providers' bill read in the end.

``planning`` says what is to happen, ``judging`` what came of it; both are pure.  ``stage`` has the processes.
"""
