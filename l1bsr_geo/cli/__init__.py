"""The command line: command -> function of pipelines; arguments to values, errors to exit codes.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once.
"""
