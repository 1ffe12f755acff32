"""This machine: its identity, the slots its nodes take, and the files of turns."""
