"""The command line: flags, flagfiles, and the terminal."""
