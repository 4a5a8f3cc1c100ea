"""Impaired links on netem itself, in a guest whose kernel has it."""
