"""How the work is run: Beam runners, worker processes, threads, the work directory."""
