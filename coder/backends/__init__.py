"""The ways to run a turn: each module wraps one kind of agent behind the `Backend` port; every agent runs under a guardian."""
